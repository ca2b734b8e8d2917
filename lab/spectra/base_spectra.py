"""Singular values of the base's weights: computed once, kept in the cache by what the weights are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lab.paths import cache_dir

if TYPE_CHECKING:
    import torch

#: Above this width a full decomposition takes minutes on a laptop: the largest values are enough there.
FULL_BELOW = 2048
#: How many singular values are kept for wider matrices, by randomised SVD.
TOP = 64
# Values of each matrix that go into the cache's key: enough to tell precisions apart, quick for any width.
_SAMPLE = 1024


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
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            np.savez(temporary, **{f"w{i}": values[name] for i, name in enumerate(names)})  # type: ignore[arg-type]
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return values


def _key(weights: Mapping[str, torch.Tensor], sha256: str) -> str:
    digest = hashlib.sha256(sha256.encode())
    for name in sorted(weights):
        values = weights[name].detach().flatten()
        sample = values[:: max(1, len(values) // _SAMPLE)].float().cpu().numpy()
        digest.update(f"\n{name} {tuple(weights[name].shape)}\n".encode())
        digest.update(np.ascontiguousarray(sample).tobytes())
    return digest.hexdigest()[:24]


def _singular_values(W: torch.Tensor) -> np.ndarray:
    import torch

    from lab.spectra.updates import DenseUpdate

    W = W.detach().float().cpu()
    if min(W.shape) < FULL_BELOW:
        return DenseUpdate(W).singular_values().numpy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.svd_lowrank(W, q=TOP + 16, niter=4)[1][:TOP].numpy()
