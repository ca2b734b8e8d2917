"""The update of LoRA and its relatives: ΔW = L·R, kept as its two factors.

Thin QR of both factors, L = Q_L·T_L and Rᵀ = Q_R·T_R, gives ΔW = Q_L (T_L T_Rᵀ) Q_Rᵀ: the singular values
of ΔW are those of the k × k core T_L T_Rᵀ. For a 4096 × 4096 matrix at k = 16 that is thousands of times
faster than a dense SVD. QR rather than the Gram matrices LᵀL and RRᵀ, which are no faster here and lose the
values below √ε of the largest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.spectra.dense import DenseUpdate
from lab.spectra.updates import Update, check_components, check_same_shape, leading_components, merged

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FactoredUpdate:
    """ΔW = left @ right, with the scaling already in one of the factors.

    Surgery changes `left` alone and leaves the width k, so that what is saved again has the A it had, and
    its configuration stays true.

    Attributes:
        left: n_out × k; for LoRA s·B.
        right: k × n_in; for LoRA A.
    """

    left: torch.Tensor
    right: torch.Tensor

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            raise LabError(
                f"The factors of ΔW do not fit: {tuple(self.left.shape)} and {tuple(self.right.shape)}; "
                f"expected (n_out, k) and (k, n_in)."
            )

    @property
    def dtype(self) -> torch.dtype:
        """Of every tensor that the update gives back."""
        return self.left.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank_bound(self) -> int:
        """The largest rank ΔW can have: k, or the smaller side."""
        return min(self.left.shape[1], *self.shape)

    def core(self) -> torch.Tensor:
        """T_L T_Rᵀ of the thin QR factorisations: at most k × k, with the singular values of ΔW."""
        import torch

        left = torch.linalg.qr(self.left, mode="r").R
        right = torch.linalg.qr(self.right.t(), mode="r").R
        return left @ right.t()

    def singular_values(self) -> torch.Tensor:
        """The `rank_bound` largest singular values, descending; the others are zero."""
        import torch

        return torch.linalg.svdvals(self.core())

    def svd(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """U (n_out × p), σ (p, descending) and Vᵀ (p × n_in) of ΔW, with p = `rank_bound`."""
        import torch

        Q_left, T_left = torch.linalg.qr(self.left)
        Q_right, T_right = torch.linalg.qr(self.right.t())
        U, sigma, Vt = torch.linalg.svd(T_left @ T_right.t(), full_matrices=False)
        return Q_left @ U, sigma, Vt @ Q_right.t()

    def norm(self) -> float:
        """Frobenius norm."""
        # from the core: where the factors nearly cancel (PiSSA's first steps), Gram matrices lose all digits
        return float(self.core().norm())

    def dense(self) -> torch.Tensor:
        """The product, n_out × n_in. The only place where it is formed."""
        return self.left @ self.right

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """ΔW·x for x: n_in × m, through the factors; n_out × m."""
        return self.left @ (self.right @ x)

    def transposed_times(self, y: torch.Tensor) -> torch.Tensor:
        """ΔWᵀ·y for y: n_out × m, through the factors; n_in × m."""
        return self.right.t() @ (self.left.t() @ y)

    def rescale(self, factor: float) -> FactoredUpdate:
        """`factor`·ΔW."""
        return FactoredUpdate(self.left * factor, self.right)

    def keep(self, components: Iterable[int]) -> FactoredUpdate:
        """The sum of these singular components alone: U_c U_cᵀ·L and the same R.

        Args:
            components: Indices by descending σ, 0 the largest.

        Raises:
            LabError: An index out of range.
        """
        return FactoredUpdate(self._within(components), self.right)

    def drop(self, components: Iterable[int]) -> FactoredUpdate:
        """The update without these singular components: (1 − U_c U_cᵀ)·L and the same R.

        Args:
            components: Indices by descending σ, 0 the largest.

        Raises:
            LabError: An index out of range.
        """
        return FactoredUpdate(self.left - self._within(components), self.right)

    def truncate(self, rank: int) -> FactoredUpdate:
        """The best approximation of at most this rank, with the same R and width k.

        Raises:
            LabError: A negative rank.
        """
        return self.keep(leading_components(rank, self))

    def plus(self, other: Update) -> Update:
        """The sum: of two factored updates one of width k₁ + k₂, else dense.

        Raises:
            LabError: Different shapes.
        """
        import torch

        check_same_shape(self.shape, other.shape)
        if not isinstance(other, FactoredUpdate):
            return DenseUpdate(self.dense() + other.dense())
        return FactoredUpdate(
            torch.cat([self.left, other.left], dim=1), torch.cat([self.right, other.right], dim=0)
        )

    def merge_into(self, W: torch.Tensor) -> torch.Tensor:
        """W + ΔW in W's dtype.

        Raises:
            LabError: W has another shape.
        """
        return merged(W, self)

    def _within(self, components: Iterable[int]) -> torch.Tensor:
        U = self.svd()[0][:, check_components(components, self)]
        return U @ (U.t() @ self.left)
