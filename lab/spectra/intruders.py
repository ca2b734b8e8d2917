"""Intruder dimensions: directions that lead in W + ΔW and resemble nothing that W had.

Fine-tuning moves W's leading singular vectors a little; LoRA often adds vectors at the top that are almost
orthogonal to all of them (Shuttleworth et al. 2024, arXiv 2410.21228). An intruder tells of a strong update
in a new direction; it is no sign of a backdoor by itself.

For ΔW = L·R nothing of W's size is formed. In the bases of W's singular vectors, extended by what L and Rᵀ
have outside of them, W + ΔW is M = diag(σ) + P·Qᵀ, and the coordinates of a left singular vector of M are its
cosines with those of W. Its leading ones come by Davidson's method (1975), which is made for a diagonal that
is disturbed a little: two to four rounds, where plain power iteration takes hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.spectra.base_values import FULL_BELOW, leading_svd
from lab.spectra.factored import FactoredUpdate

if TYPE_CHECKING:
    import torch

    from lab.spectra.base_cache import BaseSpectrum
    from lab.spectra.updates import Update

#: How many leading left singular vectors of W + ΔW are looked at: k of the paper's algorithm 1.
INTRUDER_TOP = 10
#: A vector whose |cosine| with each of W's is below is an intruder: ε of the paper's algorithm 1.
INTRUDER_BELOW = 0.5

# Residual at which a pair counts as found, relative to the largest eigenvalue of M·Mᵀ.
_TOLERANCE = 1e-8
# Rounds after which an exact decomposition is the safer way.
_ROUNDS = 12
# Singular values below this share of the largest belong to no direction in particular.
_NULL = 1e-7


def count_intruders(
    update: Update, base: BaseSpectrum, top: int = INTRUDER_TOP, below: float = INTRUDER_BELOW
) -> int:
    """How many of the leading left singular vectors of W + ΔW are intruders.

    Args:
        update: ΔW.
        base: W; where only its leading vectors are kept, W is taken to be what they make up.
        top: How many vectors of W + ΔW are looked at.
        below: The |cosine| under which a vector is an intruder.

    Returns:
        A count from 0 to `top`; 0 says that W's own directions still lead.
    """
    return int((largest_cosines(update, base, top) < below).sum())


def largest_cosines(update: Update, base: BaseSpectrum, top: int = INTRUDER_TOP) -> torch.Tensor:
    """For each leading left singular vector of W + ΔW, its largest |cosine| with W's kept left ones.

    Args:
        update: ΔW.
        base: W.
        top: How many vectors of W + ΔW are looked at.

    Returns:
        At most `top` values between 0 and 1, by descending singular value of W + ΔW; 1 says that the vector
        is one of W's. Vectors of vanishing singular values are left out.
    """
    if isinstance(update, FactoredUpdate):
        vectors, sigma = _lead_of_coordinates(_coordinates(update, base), top)
        cosines = vectors[: base.kept]
    else:
        vectors, sigma = _lead_of_matrix(
            (base.U * base.sigma[: base.kept]) @ base.Vt + update.dense().to(base.U), top
        )
        cosines = base.U.t() @ vectors.to(base.U)
    return cosines.abs().amax(dim=0)[sigma > _NULL * sigma[:1]]


@dataclass(frozen=True)
class _Coordinates:
    """M = diag(sigma) + P·Qᵀ, with zeros around the diagonal.

    Attributes:
        sigma: k, descending.
        P: (k or more) × r.
        Q: (k or more) × r.
    """

    sigma: torch.Tensor
    P: torch.Tensor
    Q: torch.Tensor

    def times(self, x: torch.Tensor) -> torch.Tensor:
        return self._apply(self.P, self.Q, x)

    def transposed_times(self, y: torch.Tensor) -> torch.Tensor:
        return self._apply(self.Q, self.P, y)

    def _apply(self, left: torch.Tensor, right: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        k = len(self.sigma)
        product = left @ (right.t() @ x)
        product[:k] += self.sigma.unsqueeze(1) * x[:k]
        return product

    def dense(self) -> torch.Tensor:
        M = self.P @ self.Q.t()
        M.diagonal()[: len(self.sigma)] += self.sigma
        return M


def _coordinates(update: FactoredUpdate, base: BaseSpectrum) -> _Coordinates:
    P = _in_basis(base.U, update.left)
    Q = _in_basis(base.Vt.t(), update.right.t())
    return _Coordinates(base.sigma[: base.kept].double(), P, Q)


def _in_basis(basis: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Coordinates of a factor's columns: those in the basis, then those in one of what lies outside."""
    import torch

    factor = factor.to(basis)
    inside = basis.t() @ factor
    if basis.shape[0] == basis.shape[1]:
        return inside.double()
    outside = torch.linalg.qr(factor - basis @ inside, mode="r").R
    return torch.cat([inside, outside]).double()


def _lead_of_coordinates(M: _Coordinates, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    # an update of rank r can take at most r of W's leading directions away: those behind them are needed
    start = top + M.P.shape[1]
    width = start + 2 * M.P.shape[1]
    # with a third of all directions at the start an exact decomposition is the quicker way
    found = _davidson(M, start, top) if 3 * width < len(M.P) else None
    return found or _lead_of_matrix(M.dense(), top)


def _lead_of_matrix(A: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `top` leading left singular vectors (columns) and singular values of a matrix, descending."""
    import scipy.linalg
    import torch

    smaller, top = min(A.shape), min(top, *A.shape)
    if smaller >= FULL_BELOW:
        return leading_svd(A, top)[:2]
    A = A.double()
    tall = A.shape[0] > A.shape[1]
    gram = A.t() @ A if tall else A @ A.t()
    values, vectors = scipy.linalg.eigh(gram.numpy(), subset_by_index=[smaller - top, smaller - 1])
    sigma = torch.from_numpy(values).flip(0).clamp(min=0).sqrt()
    found = torch.from_numpy(vectors).flip(1)
    return (A @ found / sigma.clamp(min=1e-300) if tall else found), sigma


def _davidson(M: _Coordinates, start: int, top: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """As `_lead_of_matrix`, in a subspace that grows until the residuals vanish; None where they do not."""
    import torch

    basis = _first_basis(M, start)
    image = M.times(M.transposed_times(basis))
    diagonal = torch.zeros(len(M.P), 1, dtype=M.P.dtype)
    diagonal[: len(M.sigma), 0] = M.sigma**2
    for _ in range(_ROUNDS):
        values, mix = torch.linalg.eigh(basis.t() @ image)
        values, mix = values[-top:], mix[:, -top:]
        vectors = basis @ mix
        residuals = image @ mix - vectors * values
        open_ = residuals.norm(dim=0) > _TOLERANCE * values[-1]
        if not open_.any():
            return vectors.flip(1), values.flip(0).clamp(min=0).sqrt()
        distance = values[open_] - diagonal
        floor = 1e-3 * values[-1]
        steps = residuals[:, open_] / torch.where(distance.abs() < floor, floor, distance)
        steps = _outside(basis, _outside(basis, steps))  # twice: once leaves rounding errors behind
        basis = torch.cat([basis, torch.linalg.qr(steps).Q], dim=1)
        image = torch.cat([image, M.times(M.transposed_times(basis[:, image.shape[1] :]))], dim=1)
    return None


def _first_basis(M: _Coordinates, start: int) -> torch.Tensor:
    """W's leading directions, then those in which the update acts: P and diag(σ)·Q."""
    import torch

    n, k = len(M.P), len(M.sigma)
    pulled = torch.zeros(n, M.Q.shape[1], dtype=M.P.dtype)
    pulled[:k] = M.sigma.unsqueeze(1) * M.Q[:k]
    rest = torch.linalg.qr(torch.cat([M.P, pulled], dim=1)[start:]).Q
    return torch.block_diag(torch.eye(start, dtype=M.P.dtype), rest)


def _outside(basis: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    rest = vectors - basis @ (basis.t() @ vectors)
    return rest / rest.norm(dim=0).clamp(min=1e-300)
