"""What a kernel says in a number: its spectrum, its alignments, and the information in it.

All take a kernel of margins as a symmetric matrix without negative eigenvalues, texts × texts where nothing
else is said, and work in float64. What is undefined, as the alignment of a zero kernel, is NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.probe.kernels import Kernel

Array = npt.NDArray[np.float64]

#: Orders α of the Rényi entropies that the lab's tables hold.
RENYI_ORDERS = (0.5, 1.0, 2.0, math.inf)


def eigenvalues(kernel: npt.ArrayLike) -> Array:
    """All eigenvalues, descending; those that rounding made negative are 0."""
    values = np.asarray(kernel, dtype=np.float64)
    if not np.isfinite(values).all():
        raise LabError("kernels: a kernel holds values that are not finite; nothing can be said about it.")
    return np.linalg.eigvalsh((values + values.T) / 2)[::-1].clip(min=0)


def effective_rank(spectrum: npt.ArrayLike) -> float:
    """The exponential of the entropy of the normalised eigenvalues: from 1 to their number.

    Source: Roy and Vetterli, EUSIPCO 2007, with eigenvalues in the place of singular values.
    """
    return float(np.exp(renyi_entropy(spectrum, 1.0)))


def alignment(one: npt.ArrayLike, other: npt.ArrayLike, *, centred: bool = False) -> float:
    """How alike two kernels of the same texts are, whatever their scales.

    Args:
        one: A kernel.
        other: Another one.
        centred: Take both kernels' features minus their mean over the texts before; what all texts share,
            which no classifier can use, counts for nothing then.

    Returns:
        ⟨K, L⟩ / (‖K‖‖L‖) of Frobenius products, in [0, 1]; 1 for kernels that differ in scale alone.

    Source: Cristianini et al., NIPS 2001; centred: Cortes, Mohri and Rostamizadeh, JMLR 13 (2012), 795, which
    Kornblith et al., ICML 2019, call linear CKA.
    """
    a, b = (np.asarray(kernel, dtype=np.float64) for kernel in (one, other))
    if a.shape != b.shape:
        raise LabError(f"kernels: kernels of {len(a)} and {len(b)} texts cannot be compared.")
    if centred:
        before = np.linalg.norm(a), np.linalg.norm(b)
        a, b = _centred(a), _centred(b)
        # what rounding leaves of a kernel in which all texts are alike is no kernel
        if np.linalg.norm(a) <= 1e-12 * before[0] or np.linalg.norm(b) <= 1e-12 * before[1]:
            return math.nan
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip((a * b).sum() / size, -1.0, 1.0)) if size > 0 else math.nan


def target_alignment(kernel: npt.ArrayLike, is_target: npt.ArrayLike, *, centred: bool = True) -> float:
    """How well a kernel tells the texts of the target label from the others: alignment with y yᵀ, y = ±1.

    Args:
        kernel: Texts × texts.
        is_target: Whether each text's true label is the target.
        centred: As in `alignment`; without it unbalanced labels are aligned with any constant kernel.

    Returns:
        In [0, 1] up to rounding, 1 where the kernel is y yᵀ; NaN where all texts have one label and it is
        centred.
    """
    y = np.where(np.asarray(is_target, dtype=bool), 1.0, -1.0)
    return alignment(kernel, np.outer(y, y), centred=centred)


def _centred(kernel: Array) -> Array:
    rows = kernel - kernel.mean(axis=0, keepdims=True)
    return rows - rows.mean(axis=1, keepdims=True)


def paired_kernel(kernel: Kernel, pairs: npt.NDArray[np.int64]) -> tuple[float, float]:
    """How far a step on clean texts carries to their triggered copies: M′ of arXiv 2505.12871.

    Args:
        kernel: Of clean texts and copies alike.
        pairs: Places of a clean text and its copy, pairs × 2; at least one.

    Returns:
        M′ = ‖mean over pairs of K(x, x̃)‖_F, with one entry per two margins, and the same of K(x, x). Their
        ratio says how much of a step on a text reaches its copy: 1 where the trigger changes nothing.
    """
    blocks = kernel.blocks()

    def mean_norm(a: Any, b: Any) -> float:
        return float(np.linalg.norm(blocks[:, a, :, b].mean(axis=0)))

    clean, copy = pairs.T
    return mean_norm(clean, copy), mean_norm(clean, clean)


def paired_cosines(kernel: npt.ArrayLike, pairs: npt.NDArray[np.int64]) -> Array:
    """K(x, x̃) / √(K(x, x) K(x̃, x̃)) of each pair of a clean text and its copy, in [-1, 1]; NaN for 0/0."""
    values = np.asarray(kernel, dtype=np.float64)
    clean, copy = pairs.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return values[clean, copy] / np.sqrt(values[clean, clean] * values[copy, copy])


def fisher_gram(kernel: Kernel, logits: npt.ArrayLike, target: int) -> Array:
    """A matrix with the non-zero eigenvalues of the Fisher information of the trained weights.

        F = (1/n) Σ_i Σ_y p(y|x_i) ∇log p(y|x_i) ∇log p(y|x_i)ᵀ

    is as large as there are weights; with J the gradients of margins and S_i = L_i L_iᵀ the covariance of the
    labels under p(·|x_i), it is (1/n) Jᵀ S J, whose non-zero eigenvalues are those of (1/n) Lᵀ K L. The
    labels are the model's own, not the rows': it is not what is often called the empirical Fisher.

    Args:
        kernel: K = J Jᵀ.
        logits: Texts × labels, at the same weights.
        target: The target label's index, whose logit the margins have in common.

    Returns:
        Symmetric, (margins·texts)².
    """
    from scipy.special import softmax

    others = np.delete(softmax(np.asarray(logits, dtype=np.float64), axis=1), target, axis=1)
    covariance = np.einsum("ia,ab->iab", others, np.eye(others.shape[1])) - np.einsum(
        "ia,ib->iab", others, others
    )
    # a square root that exists where p is 0 too, which Cholesky's does not
    values, vectors = np.linalg.eigh(covariance)
    roots = vectors * np.sqrt(values.clip(min=0))[:, None, :]
    gram = np.einsum("iac,aibj,jbd->cidj", roots, kernel.blocks(), roots, optimize=True)
    size = kernel.margins * kernel.texts
    return gram.reshape(size, size) / kernel.texts


def renyi_entropy(spectrum: npt.ArrayLike, order: float) -> float:
    """Rényi's entropy of eigenvalues divided by their sum.

        H_α = log(Σ_k λ_k^α) / (1 − α),   H_1 = −Σ_k λ_k log λ_k,   H_∞ = −log λ_max

    Source: Rényi, Berkeley Symposium 4 (1961), 547; of the Fisher information in arXiv 2505.12871.

    Args:
        spectrum: Eigenvalues, none negative.
        order: α, above 0; 1 is Shannon's entropy, `math.inf` the min-entropy.

    Returns:
        Nats, from 0 (one direction) to log of the number of eigenvalues (all alike), and never larger for a
        larger order; NaN where all are 0.

    Raises:
        LabError: An order of 0 or below, or a negative eigenvalue.
    """
    if not order > 0:
        raise LabError(f"kernels: Rényi entropy of order {order}; allowed: above 0, or inf.")
    values = np.asarray(spectrum, dtype=np.float64)
    if (values < 0).any():
        raise LabError(f"kernels: the eigenvalue {values.min():g} is negative; no entropy is defined.")
    total = values.sum()
    if not total > 0:
        return math.nan
    share = values[values > 0] / total
    share = share[share > 0]
    if order == 1:
        return max(0.0, float(-(share * np.log(share)).sum()))
    if math.isinf(order):
        return max(0.0, float(-np.log(share.max())))
    largest = np.log(share.max())
    # relative to the largest, which a high order would otherwise underflow
    summed = np.log(np.exp(order * (np.log(share) - largest)).sum())
    return max(0.0, float((order * largest + summed) / (1 - order)))
