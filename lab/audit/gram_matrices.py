"""Singular values of ΔW = L·R from the Gram matrices of its factors, LᵀL and RRᵀ.

With RRᵀ = SSᵀ the squares σ² are the eigenvalues of Sᵀ(LᵀL)S, k × k. Two products and nothing else pass over
the factors, several times as fast as their QR; the norms of the factors are traces.

Squares have half the digits: where the matrices are off by δ·‖L‖²‖R‖², σ is off by δ·‖L‖²‖R‖²/2σ, and by
√δ·‖L‖‖R‖ at most. In float32 that is nothing where all σ are of one size, as those of random factors are, and
shows where they fall by a hundred, as those of trained ones may. So it is estimated what is lost of Σσ, on
which every statistic rests, and where that is too much the products are made again in float64; then √δ is
less than the error of a QR in float32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lab.spectra import FactoredUpdate

#: Rows that are multiplied at once: they stay in a core's cache, and their products are summed in float64.
_ROWS = 1024
#: Beyond, the eigenvalues in float64 take longer than a QR in float32.
_WIDEST = 256
#: Up to here NumPy multiplies in the thread that asks; beyond, it starts others, for cores that are busy.
_WIDEST_ALONE = 64
#: δ of products in float32, in units of its rounding: up to 12 were measured, of random and trained factors.
_ROUNDINGS = 16
#: What may be lost of Σσ: less than would be seen in the fourth digit of a statistic.
_TOLERATED = 4e-5


def spectrum(update: FactoredUpdate) -> tuple[np.ndarray, float, float]:
    """Singular values of ΔW, and the Frobenius norms of its factors.

    Args:
        update: ΔW with finite factors on the CPU.

    Returns:
        σ, the `rank_bound` largest, descending, their sum within 4e-5 of itself; ‖L‖_F and ‖R‖_F. All are
        float64.
    """
    import torch

    if update.dtype != torch.float32 or update.left.shape[1] > min(_WIDEST, *update.shape):
        norms = [float(torch.linalg.vector_norm(x, dtype=torch.float64)) for x in (update.left, update.right)]
        return update.singular_values().double().numpy(), norms[0], norms[1]
    left, right = _gram(update.left, torch.float32), _gram(update.right.T, torch.float32)
    sigma = _singular_values(left, right)
    if _lost(sigma, left, right) > _TOLERATED * float(sigma.sum()):
        left, right = _gram(update.left, torch.float64), _gram(update.right.T, torch.float64)
        sigma = _singular_values(left, right)
    # what float32 would have as zero is zero: a ΔW below its smallest number has no other statistics
    return sigma.float().double().numpy(), math.sqrt(left.trace()), math.sqrt(right.trace())


def _gram(tall: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """XᵀX for X: n × k, in float64, from products in `dtype`."""
    import torch

    total = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64)
    for rows in tall.split(_ROWS):
        total += _square(rows.to(dtype))
    return total


def _square(rows: torch.Tensor) -> torch.Tensor:
    import torch

    if rows.shape[1] > _WIDEST_ALONE:
        return rows.T @ rows
    x = rows.numpy()
    return torch.from_numpy(x.T @ x)  # NumPy knows a product with its own transpose, and does half of it


def _singular_values(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    import torch

    # not NumPy's, which starts threads for matrices as small as these
    values, vectors = torch.linalg.eigh(right)
    root = vectors * values.clamp(min=0).sqrt()
    return torch.linalg.eigvalsh(root.T @ left @ root).clamp(min=0).sqrt().flip(0)


def _lost(sigma: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> float:
    """What products in float32 lose of Σσ."""
    # the largest sum of a row is no less than the largest eigenvalue
    largest = float(left.abs().sum(0).max() * right.abs().sum(0).max())
    error = _ROUNDINGS * 2.0**-24 * largest
    return float((error / (2 * sigma)).clamp(max=math.sqrt(error)).sum())
