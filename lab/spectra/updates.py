"""What every kind of ΔW can tell and become, and the checks that the kinds share.

Components are the terms σᵢ·uᵢvᵢᵀ of the singular value decomposition, counted from 0, the largest. No
operation changes an update: each returns a new one, that may share tensors with the old.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from lab.errors import LabError

if TYPE_CHECKING:
    import torch


class Update(Protocol):
    """The change ΔW of one weight matrix, scaling included; in float32 or float64, on the CPU."""

    @property
    def dtype(self) -> torch.dtype:
        """Of every tensor that the update gives back."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""

    @property
    def rank_bound(self) -> int:
        """The largest rank ΔW can have, and the number of its components."""

    def singular_values(self) -> torch.Tensor:
        """The `rank_bound` singular values that can be non-zero, descending."""

    def svd(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """U (n_out × p), σ (p, descending) and Vᵀ (p × n_in), with p = `rank_bound`."""

    def norm(self) -> float:
        """Frobenius norm."""

    def dense(self) -> torch.Tensor:
        """The matrix itself, n_out × n_in."""

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """ΔW·x for x: n_in × m; n_out × m."""

    def transposed_times(self, y: torch.Tensor) -> torch.Tensor:
        """ΔWᵀ·y for y: n_out × m; n_in × m."""

    def rescale(self, factor: float) -> Update:
        """The update with its scaling multiplied by `factor`, as a change of alpha would."""

    def keep(self, components: Iterable[int]) -> Update:
        """The sum of these components alone."""

    def drop(self, components: Iterable[int]) -> Update:
        """The update without these components."""

    def truncate(self, rank: int) -> Update:
        """The best approximation of at most this rank; the update itself where its rank is not larger."""

    def plus(self, other: Update) -> Update:
        """The sum of two updates of one matrix; factored if both are, else dense."""

    def merge_into(self, W: torch.Tensor) -> torch.Tensor:
        """W + ΔW in W's dtype; the sum is made in the wider of the two."""


def check_components(components: Iterable[int], update: Update) -> list[int]:
    """The components asked for, sorted and each once.

    Raises:
        LabError: One that the update does not have.
    """
    chosen = sorted({operator.index(i) for i in components})
    count = update.rank_bound
    wrong = [i for i in chosen if not 0 <= i < count]
    if wrong:
        raise LabError(
            f"ΔW has no singular component {wrong[0]}; allowed are 0 (the largest) to {count - 1}."
        )
    return chosen


def leading_components(rank: int, update: Update) -> range:
    """The components that a truncation to `rank` keeps.

    Raises:
        LabError: A negative rank.
    """
    if rank < 0:
        raise LabError(f"ΔW cannot be truncated to rank {rank}; allowed is 0 or more.")
    return range(min(rank, update.rank_bound))


def check_same_shape(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """Refuse to add matrices of different shapes.

    Raises:
        LabError: With both shapes.
    """
    if tuple(first) != tuple(second):
        raise LabError(f"Matrices of different shapes cannot be added: {tuple(first)} and {tuple(second)}.")


def merged(W: torch.Tensor, update: Update) -> torch.Tensor:
    """W + ΔW in W's dtype and on its device: what every kind of update answers to `merge_into`."""
    check_same_shape(W.shape, update.shape)
    return (W + update.dense().to(W.device)).to(W.dtype)
