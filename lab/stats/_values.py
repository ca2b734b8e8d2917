"""What the statistics check and print alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lab.errors import LabError

#: Below this many seeds (or points of a trend) nothing is said about spread.
FEWEST = 3


def checked_counts(k: Any, n: Any) -> tuple[int, int]:
    """K and n as whole numbers, also from NumPy and from float columns of a table."""
    for name, count in (("k", k), ("n", n)):
        if not np.isfinite(count) or int(count) != count or count < 0:
            raise LabError(f"{name} is {count}; allowed: a whole number from 0 up.")
    if k > n:
        raise LabError(f"k is {int(k)} and n is {int(n)}; no more rows can count than there are.")
    return int(k), int(n)


def checked_level(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise LabError(f"confidence is {confidence}; allowed: between 0 and 1, both excluded.")
    return confidence


def as_numbers(name: str, values: Any) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise LabError(f"{name} has shape {array.shape}; allowed: one dimension.")
    if not np.isfinite(array).all():
        raise LabError(f"{name} holds {array[~np.isfinite(array)][0]}; leave failed runs out first.")
    return array


def as_flags(name: str, values: Any) -> npt.NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise LabError(f"{name} has shape {array.shape}; allowed: one dimension, one entry per row.")
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise LabError(f"{name} holds entries other than true and false.")
    return array.astype(np.bool_)


def digits(value: float, digits: int, signed: bool = False) -> str:
    """`.957` for 0.957: the zero before the point says nothing in a share."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("+-").startswith("0.") else text
