"""M_Δ = s²AᵀA − I: what LoRA's kernel has at its start that full fine-tuning's has not.

With B = 0 the gradient of B sees the input through A, so LoRA's kernel of a layer is full fine-tuning's with
⟨x, s²AᵀA x'⟩ in the place of ⟨x, x'⟩ (arXiv 2505.12871, section 3; there with s = 1). Where M_Δ is negative
semidefinite, LoRA's kernel is nowhere above: its loss falls no faster along any direction, for clean rows
and poison alike. The paper's condition, r ≤ n_in and σ_a² < 1/n_in, makes that so only on average over A;
for one drawn A the largest eigenvalue is what decides.

All eigenvalues are of the r × r matrix s²AAᵀ, minus 1; the other n_in − r are −1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lab.errors import LabError, unknown_name

if TYPE_CHECKING:
    import torch

#: Fourth moment of one entry of A over its squared variance, by initialisation.
_KURTOSIS = {"gaussian": 3.0, "kaiming": 9 / 5}


@dataclass(frozen=True)
class LoraShift:
    """The eigenvalues of M_Δ for one layer.

    Attributes:
        own: The r eigenvalues of s²AᵀA − I that A's rows span, descending, each -1 or more.
        width: n_in; the other n_in − r eigenvalues are −1.
    """

    own: npt.NDArray[np.float64]
    width: int

    @property
    def share_negative(self) -> float:
        """The share of all n_in eigenvalues below 0, in [0, 1]; 1 where LoRA's kernel is strictly below."""
        return (self.width - int((self.own >= 0).sum())) / self.width

    @property
    def largest(self) -> float:
        """The largest eigenvalue, -1 or more; M_Δ is negative semidefinite where it is 0 or less."""
        return float(self.own[0])

    @property
    def mean_scale(self) -> float:
        """The mean eigenvalue of s²AᵀA, 0 or more: LoRA's kernel over full's for inputs of any direction."""
        return float((self.own + 1).sum()) / self.width


def lora_shift(A: torch.Tensor, scaling: float) -> LoraShift:
    """The eigenvalues of s²AᵀA − I through A's r × r Gram matrix.

    Args:
        A: rank × n_in, with rank at most n_in.
        scaling: s, peft's alpha/r or alpha/√r.

    Raises:
        LabError: A has more rows than columns.
    """
    import torch

    rank, width = A.shape
    if rank > width:
        raise LabError(f"M_Δ: A has {rank} rows and {width} columns; a rank above the width adds nothing.")
    gram = A.double() @ A.double().T * scaling**2
    own = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0) - 1
    return LoraShift(own.cpu().numpy(), width)


def expected_scale(rank: int, init_variance: float, width: int, scaling: float) -> float:
    """s² r σ_a² with σ_a² = init_variance / width: E[s²AᵀA] is that times I.

    So it is what full fine-tuning's kernel is multiplied by on average over A; 1 for r = n_in, σ_a² = 1/n_in
    and s = 1 (Corollary 3.5 of the paper).
    """
    return scaling**2 * rank * init_variance / width


def expected_largest(rank: int, init_variance: float, width: int, scaling: float) -> float:
    """About the largest eigenvalue of M_Δ: s² σ_a² (√n_in + √r)² − 1, a little less for narrow layers.

    Source: the edge of Marchenko and Pastur's law, Mathematics of the USSR-Sbornik 1 (1967), 457.
    """
    return scaling**2 * init_variance / width * (math.sqrt(width) + math.sqrt(rank)) ** 2 - 1


def paper_entropy(order: int, rank: int, init_variance: float, width: int, init: str = "gaussian") -> float:
    """The closed forms H₁′ and H₂′ that the code of arXiv 2505.12871 draws its Figure 3 with; theirs, as is.

        H₁′ = 10¹⁰ · log(σ² r d),   H₂′ = log(σ⁴ r (r + 2) d)   or   log(σ⁴ (4r + 5r²) d / 5)   (uniform)

    with σ² = init_variance / d. They are the logarithms of the expected sums of AᵀA's diagonal entries and of
    these squared, so they rise with rank and variance. The entropy of a normalised spectrum they are not:
    H₁′ divides by 1 − α = 10⁻¹⁰, which leaves its order alone to mean something. For one that is measured,
    see `lab.probe.kernel_measures.renyi_entropy`.

    Args:
        order: 1 or 2.
        rank: r.
        init_variance: Variance of A's entries times its width.
        width: d, the layer's n_in.
        init: "gaussian" or "kaiming" (uniform); H₁′ is the same for both.

    Raises:
        LabError: Another order or initialisation.
    """
    if init not in _KURTOSIS:
        raise unknown_name("initialisation with a closed form", init, _KURTOSIS)
    variance = init_variance / width
    if order == 1:
        return 1e10 * math.log(variance * rank * width)
    if order == 2:
        return math.log(variance**2 * rank * (rank - 1 + _KURTOSIS[init]) * width)
    raise LabError(f"paper_entropy: order = {order}; the paper's code has closed forms for 1 and 2.")
