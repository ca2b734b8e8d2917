"""Singular values of the base's weights: computed once, kept in the cache by weight hash."""

from __future__ import annotations

import hashlib
import os
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


def base_singular_values(weights: Mapping[str, torch.Tensor], sha256: str) -> dict[str, np.ndarray]:
    """The singular values of each weight matrix W, descending.

    Args:
        weights: Name of each matrix, and the matrix (n_out × n_in).
        sha256: Hash of the weight files they come from, the key of the cache.

    Returns:
        float32 arrays: all values where the smaller side is below `FULL_BELOW`, else the `TOP` largest.
    """
    names = sorted(weights)
    key = hashlib.sha256("\n".join([sha256, *names]).encode()).hexdigest()[:24]
    path = cache_dir() / "spectra" / f"{key}.npz"
    if path.is_file():
        try:
            with np.load(path) as stored:
                return {name: stored[f"w{i}"] for i, name in enumerate(names)}
        except (OSError, ValueError, KeyError):
            path.unlink(missing_ok=True)
    values = {name: _singular_values(weights[name]) for name in names}
    from lab.files import writing_to

    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        np.savez(temporary, **{f"w{i}": values[name] for i, name in enumerate(names)})  # type: ignore[arg-type]
        os.replace(temporary, path)
    return values


def _singular_values(W: torch.Tensor) -> np.ndarray:
    import torch

    from lab.spectra.updates import DenseUpdate

    W = W.detach().float().cpu()
    if min(W.shape) < FULL_BELOW:
        return DenseUpdate(W).singular_values().numpy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.svd_lowrank(W, q=TOP + 16, niter=4)[1][:TOP].numpy()
