"""Singular values of weights that are in memory: computed once, kept in the cache by what the weights are."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lab.paths import cache_dir
from lab.spectra.cache_files import replacing

if TYPE_CHECKING:
    import torch

#: Above this width a full decomposition takes minutes on a laptop: the largest values are enough there.
FULL_BELOW = 2048
#: How many singular values are kept for wider matrices, by randomised SVD.
TOP = 64
# Values of each matrix that go into the cache's key: enough to tell precisions apart, quick for any width.
_SAMPLE = 1024
# Directions that a randomised SVD looks at beyond those asked for.
_OVERSAMPLING = 16


def base_singular_values(weights: Mapping[str, torch.Tensor], sha256: str) -> dict[str, np.ndarray]:
    """The singular values of each weight matrix W, descending.

    Args:
        weights: Name of each matrix, and the matrix (n_out × n_in).
        sha256: Hash of the weight files they come from. The cache's key holds it, and a sample of the values:
            one file gives other matrices in bfloat16 or 4-bit.

    Returns:
        float32 arrays: all values where the smaller side is below `FULL_BELOW`, else the `TOP` largest.
    """
    names = sorted(weights)
    path = cache_dir() / "spectra" / f"{_key(weights, sha256)}.npz"
    # not there yet, damaged or out of reach: computed (again), which costs only time
    with (
        contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
        np.load(path) as kept,
    ):
        return {name: kept[f"w{i}"] for i, name in enumerate(names)}
    values = {name: _singular_values(weights[name]) for name in names}
    with contextlib.suppress(OSError), replacing(path) as temporary:
        np.savez(temporary, **{f"w{i}": values[name] for i, name in enumerate(names)})  # type: ignore[arg-type]
    return values


def leading_svd(W: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The leading singular triples of a wide matrix, by randomised SVD (Halko et al. 2011) with a fixed seed.

    Args:
        W: n_out × n_in.
        count: How many.

    Returns:
        U (n_out × count), σ (count, descending) and Vᵀ (count × n_in).
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        U, sigma, V = torch.svd_lowrank(W, q=min(count + _OVERSAMPLING, *W.shape), niter=4)
    return U[:, :count], sigma[:count], V[:, :count].t()


def _key(weights: Mapping[str, torch.Tensor], sha256: str) -> str:
    digest = hashlib.sha256(sha256.encode())
    for name in sorted(weights):
        values = weights[name].detach().flatten()
        sample = values[:: max(1, len(values) // _SAMPLE)].float().cpu().numpy()
        digest.update(f"\n{name} {tuple(weights[name].shape)}\n".encode())
        digest.update(np.ascontiguousarray(sample).tobytes())
    return digest.hexdigest()[:24]


def _singular_values(W: torch.Tensor) -> np.ndarray:
    from lab.spectra.dense import DenseUpdate

    W = W.detach().float().cpu()
    if min(W.shape) < FULL_BELOW:
        return DenseUpdate(W).singular_values().numpy()
    return leading_svd(W, TOP)[1].numpy()
