"""Randomness by name: one independent stream per stage, and draws that depend on a row, not on its place.

A stage's stream is `SeedSequence([seed, crc32(stage)])`, so that changing the poison never moves the
initialisation, and so on. Draws for rows hash the row's id, which makes them independent of row order.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable

import numpy as np


def stage_seed(seed: int, stage: str) -> int:
    """A 32-bit seed for one stage ("split", "poison", "initialisation", "order", "probe")."""
    return int(np.random.SeedSequence([seed, zlib.crc32(stage.encode())]).generate_state(1)[0])


def stage_rng(seed: int, stage: str, key: str = "") -> np.random.Generator:
    """A generator for one stage and, with `key`, for one row of it."""
    entropy = [seed, zlib.crc32(stage.encode())]
    if key:
        entropy.append(_digest(key))
    return np.random.default_rng(np.random.SeedSequence(entropy))


def row_uniforms(seed: int, stage: str, row_ids: Iterable[str]) -> np.ndarray:
    """One uniform draw in [0, 1) for each row, a function of (seed, stage, row id) alone.

    Returns:
        float64 array, in the order of `row_ids`.
    """
    prefix = f"{seed}/{stage}/"
    return np.array([_digest(prefix + row_id) / 2.0**64 for row_id in row_ids], dtype=np.float64)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
