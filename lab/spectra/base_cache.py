"""Singular vectors of the base's weights: decomposed once, kept in the cache by what the weights are.

One file per matrix, so that adapters on other modules of one base share what they have in common.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.paths import cache_dir
from lab.spectra.base_values import FULL_BELOW, leading_svd
from lab.spectra.cache_files import replacing

if TYPE_CHECKING:
    import torch

#: Up to this width of the smaller side all singular vectors are kept: 64 MB for the bundled encoder.
ALL_VECTORS_UP_TO = 512
#: How many are kept of wider matrices: 4 MB for one of 4096 × 4096.
VECTORS = 128
# Part of every key: a change of what the files hold starts a new cache.
_FORMAT = 1


@dataclass(frozen=True)
class BaseSpectrum:
    """The singular value decomposition W = U·diag(σ)·Vᵀ of a weight matrix, as far as it is kept.

    Attributes:
        sigma: Singular values, descending: all of them where the smaller side is below `FULL_BELOW`, else
            one for each kept vector.
        U: n_out × k, the left singular vectors of the k largest values; k is the smaller side where that is
            at most `ALL_VECTORS_UP_TO`, else `VECTORS`.
        Vt: k × n_in, the right ones.
    """

    sigma: torch.Tensor
    U: torch.Tensor
    Vt: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in) of W."""
        return self.U.shape[0], self.Vt.shape[1]

    @property
    def kept(self) -> int:
        """How many singular vectors are kept on each side."""
        return self.U.shape[1]


def base_spectra(
    shapes: Mapping[str, tuple[int, int]],
    sha256: str,
    load: Callable[[], Mapping[str, torch.Tensor]],
    precision: str = "float32",
) -> dict[str, BaseSpectrum]:
    """The singular value decompositions of a base's weight matrices, from the cache where they lie there.

    Args:
        shapes: Name and (n_out, n_in) of each matrix.
        sha256: Hash of the weight files.
        load: Gives the matrices by name; called once, and only if the cache lacks one of them.
        precision: What the weights are loaded in: one file gives other matrices in bfloat16 or 4-bit.

    Returns:
        Float32 decompositions on the CPU, exact where the smaller side is below `FULL_BELOW`, else by
        randomised SVD.

    Raises:
        LabError: What `load` gives lacks a matrix, or holds it in another shape or with values not finite.
    """
    found: dict[str, BaseSpectrum] = {}
    missing: dict[str, Path] = {}
    for name, shape in shapes.items():
        path = _path(sha256, precision, name, shape)
        spectrum = _read(path, shape)
        if spectrum is None:
            missing[name] = path
        else:
            found[name] = spectrum
    weights = load() if missing else {}
    for name, path in missing.items():
        found[name] = _decompose(_weight(weights, name, shapes[name]))
        _write(path, found[name])
    return {name: found[name] for name in shapes}


def _path(sha256: str, precision: str, name: str, shape: tuple[int, int]) -> Path:
    identity = "\n".join([str(_FORMAT), sha256, precision, name, f"{shape[0]}x{shape[1]}"])
    return cache_dir() / "spectra" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.safetensors"


def _read(path: Path, shape: tuple[int, int]) -> BaseSpectrum | None:
    """What the cache holds; None where it is missing, damaged or out of reach."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        spectrum = BaseSpectrum(**load_file(path))
    except (OSError, SafetensorError, TypeError):
        return None
    kept = _kept(shape)
    values = min(shape) if min(shape) < FULL_BELOW else kept
    expected = ((values,), (shape[0], kept), (kept, shape[1]))
    fits = tuple(tuple(t.shape) for t in (spectrum.sigma, spectrum.U, spectrum.Vt)) == expected
    return spectrum if fits and _is_whole(spectrum) else None


def _is_whole(spectrum: BaseSpectrum) -> bool:
    """Whether the vectors have unit length on the whole; a disk that lost power leaves zeros among them."""
    squares = [float(flat @ flat) for flat in (spectrum.U.flatten(), spectrum.Vt.flatten())]
    lengths = all(abs(square - spectrum.kept) <= 1e-3 * spectrum.kept for square in squares)
    return lengths and bool(spectrum.sigma.isfinite().all())


def _write(path: Path, spectrum: BaseSpectrum) -> None:
    from safetensors.torch import save

    tensors = {"sigma": spectrum.sigma, "U": spectrum.U, "Vt": spectrum.Vt}
    # not `save_file`, whose files only their owner may read: a cache on a shared disk is for everyone
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_bytes(save(tensors))


def _weight(weights: Mapping[str, torch.Tensor], name: str, shape: tuple[int, int]) -> torch.Tensor:
    if name not in weights:
        raise LabError(f"The base has no weight matrix {name!r}, which the update changes.")
    W = weights[name].detach().float().cpu()
    if tuple(W.shape) != tuple(shape):
        raise LabError(
            f"{name}: the base's weight is {tuple(W.shape)}, the update {tuple(shape)}; "
            f"they do not belong together."
        )
    if not bool(W.isfinite().all()):
        raise LabError(f"{name}: the base's weight holds values that are not finite.")
    return W


def _kept(shape: tuple[int, int]) -> int:
    smaller = min(shape)
    return smaller if smaller <= ALL_VECTORS_UP_TO else VECTORS


def _decompose(W: torch.Tensor) -> BaseSpectrum:
    import torch

    kept = _kept((W.shape[0], W.shape[1]))
    if min(W.shape) < FULL_BELOW:
        U, sigma, Vt = torch.linalg.svd(W, full_matrices=False)
    else:
        U, sigma, Vt = leading_svd(W, kept)
    return BaseSpectrum(sigma.contiguous(), U[:, :kept].contiguous(), Vt[:kept].contiguous())
