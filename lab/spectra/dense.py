"""The update of a method that does not factor it: full fine-tuning, and sums with what does not factor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.spectra.updates import Update, check_components, check_same_shape, leading_components, merged

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DenseUpdate:
    """ΔW as a matrix.

    Attributes:
        matrix: n_out × n_in.
    """

    matrix: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Of every tensor that the update gives back."""
        return self.matrix.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def rank_bound(self) -> int:
        """The smaller side."""
        return min(self.shape)

    def singular_values(self) -> torch.Tensor:
        """All min(n_out, n_in) singular values, descending.

        From the eigenvalues of the smaller Gram matrix in float64, several times faster than an SVD; values
        below 1e-7 of the largest are noise.
        """
        import torch

        M = self.matrix.double()
        gram = M.t() @ M if M.shape[0] >= M.shape[1] else M @ M.t()
        return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0).to(self.matrix.dtype)

    def svd(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """U (n_out × p), σ (p, descending) and Vᵀ (p × n_in), with p the smaller side."""
        import torch

        U, sigma, Vt = torch.linalg.svd(self.matrix, full_matrices=False)
        return U, sigma, Vt

    def norm(self) -> float:
        """Frobenius norm."""
        return float(self.matrix.norm())

    def dense(self) -> torch.Tensor:
        """The matrix itself."""
        return self.matrix

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """ΔW·x for x: n_in × m; n_out × m."""
        return self.matrix @ x

    def transposed_times(self, y: torch.Tensor) -> torch.Tensor:
        """ΔWᵀ·y for y: n_out × m; n_in × m."""
        return self.matrix.t() @ y

    def rescale(self, factor: float) -> DenseUpdate:
        """`factor`·ΔW."""
        return DenseUpdate(self.matrix * factor)

    def keep(self, components: Iterable[int]) -> DenseUpdate:
        """The sum of these singular components alone.

        Args:
            components: Indices by descending σ, 0 the largest.

        Raises:
            LabError: An index out of range.
        """
        return DenseUpdate(self._within(components))

    def drop(self, components: Iterable[int]) -> DenseUpdate:
        """The update without these singular components.

        Args:
            components: Indices by descending σ, 0 the largest.

        Raises:
            LabError: An index out of range.
        """
        return DenseUpdate(self.matrix - self._within(components))

    def truncate(self, rank: int) -> DenseUpdate:
        """The best approximation of at most this rank.

        Raises:
            LabError: A negative rank.
        """
        return self.keep(leading_components(rank, self))

    def plus(self, other: Update) -> DenseUpdate:
        """The sum, dense.

        Raises:
            LabError: Different shapes.
        """
        check_same_shape(self.shape, other.shape)
        return DenseUpdate(self.matrix + other.dense())

    def merge_into(self, W: torch.Tensor) -> torch.Tensor:
        """W + ΔW in W's dtype.

        Raises:
            LabError: W has another shape.
        """
        return merged(W, self)

    def _within(self, components: Iterable[int]) -> torch.Tensor:
        chosen = check_components(components, self)
        U, sigma, Vt = self.svd()
        return (U[:, chosen] * sigma[chosen]) @ Vt[chosen]
