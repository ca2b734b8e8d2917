"""The update of DoRA, which has a factored part and does not factor.

The effective weight is diag(m/‖W + L·R‖)(W + L·R), norms taken row by row (Liu et al. 2024, arXiv
2402.09353; peft's rows are the outputs). So ΔW also depends on W: surgery acts on L·R inside, because that
and the magnitude m are all that an adapter's file holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.spectra.dense import DenseUpdate
from lab.spectra.factored import FactoredUpdate
from lab.spectra.updates import Update, check_same_shape, merged

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DoraUpdate:
    """ΔW = diag(magnitude / ‖W + left @ right‖_row)(W + left @ right) − W.

    Attributes:
        base_weight: W, n_out × n_in.
        left: n_out × k, the scaling included.
        right: k × n_in.
        magnitude: n_out, the norm of each row of the effective weight.
    """

    base_weight: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    magnitude: torch.Tensor

    def __post_init__(self) -> None:
        n_out, n_in = self.inner.shape
        found = tuple(self.base_weight.shape), tuple(self.magnitude.shape)
        if found != ((n_out, n_in), (n_out,)):
            raise LabError(
                f"W and the magnitude of DoRA do not fit its factors: {found[0]} and {found[1]}; "
                f"expected {(n_out, n_in)} and {(n_out,)}."
            )

    @property
    def inner(self) -> FactoredUpdate:
        """L·R, what LoRA alone would add; its components are those that surgery counts."""
        return FactoredUpdate(self.left, self.right)

    @property
    def dtype(self) -> torch.dtype:
        """Of every tensor that the update gives back."""
        return self.left.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return self.inner.shape

    @property
    def rank_bound(self) -> int:
        """The smaller side: rescaled rows of W have any rank."""
        return min(self.shape)

    def singular_values(self) -> torch.Tensor:
        """All min(n_out, n_in) singular values of ΔW, descending; as `DenseUpdate.singular_values`."""
        return self._as_dense().singular_values()

    def svd(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """U (n_out × p), σ (p, descending) and Vᵀ (p × n_in) of ΔW, with p the smaller side."""
        return self._as_dense().svd()

    def norm(self) -> float:
        """Frobenius norm of ΔW."""
        return self._as_dense().norm()

    def dense(self) -> torch.Tensor:
        """ΔW, n_out × n_in; computed on every call."""
        import torch

        moved = self.base_weight + self.left @ self.right
        norms = moved.norm(dim=1)
        # a row of zeros has no direction: it stays zero, whatever its magnitude
        gain = torch.where(norms > 0, self.magnitude / norms, torch.zeros_like(norms))
        return gain.unsqueeze(1) * moved - self.base_weight

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """ΔW·x for x: n_in × m; n_out × m."""
        return self.dense() @ x

    def transposed_times(self, y: torch.Tensor) -> torch.Tensor:
        """ΔWᵀ·y for y: n_out × m; n_in × m."""
        return self.dense().t() @ y

    def rescale(self, factor: float) -> DoraUpdate:
        """The update with `factor`·L·R inside and the same magnitude: what changing alpha does.

        This is not `factor`·ΔW: at 0 the rows of W keep the norms that were learned.
        """
        return replace(self, left=self.left * factor)

    def keep(self, components: Iterable[int]) -> DoraUpdate:
        """The update with these components of L·R alone inside, and the same magnitude.

        Args:
            components: Indices of components of L·R, 0 the largest.

        Raises:
            LabError: An index out of range.
        """
        return replace(self, left=self.inner.keep(components).left)

    def drop(self, components: Iterable[int]) -> DoraUpdate:
        """The update without these components of L·R inside, and the same magnitude.

        Args:
            components: Indices of components of L·R, 0 the largest.

        Raises:
            LabError: An index out of range.
        """
        return replace(self, left=self.inner.drop(components).left)

    def truncate(self, rank: int) -> DoraUpdate:
        """The update with L·R truncated to at most this rank, and the same magnitude.

        Raises:
            LabError: A negative rank.
        """
        return replace(self, left=self.inner.truncate(rank).left)

    def plus(self, other: Update) -> DenseUpdate:
        """The sum of both ΔW, dense.

        Raises:
            LabError: Different shapes.
        """
        check_same_shape(self.shape, other.shape)
        return self._as_dense().plus(other)

    def merge_into(self, W: torch.Tensor) -> torch.Tensor:
        """W + ΔW in W's dtype; the effective weight, where W is the base weight.

        Raises:
            LabError: W has another shape.
        """
        return merged(W, self)

    def _as_dense(self) -> DenseUpdate:
        return DenseUpdate(self.dense())
