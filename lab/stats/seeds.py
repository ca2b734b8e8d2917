"""Means over seeds, with an interval by bootstrap."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.errors import LabError
from lab.stats._values import FEWEST, as_numbers, checked_level, digits

#: So many numbers of a resampling (2 MB) are kept for the next one of the same size.
_FEW_DRAWS = 2**18


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its bootstrap interval.

    Attributes:
        n: How many values (seeds), not rows.
        value: Their mean, in the values' own unit; NaN when n is 0.
        low: Lower end of the interval; NaN below three values.
        high: Upper end of the interval; NaN below three values.
    """

    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`.957 [.94, .97] over 5 seeds`, or `.957, n too small for an interval (n=2)`."""
        if self.n == 0:
            return "no seeds, n=0"
        if math.isnan(self.low):
            return f"{digits(self.value, 3)}, n too small for an interval (n={self.n})"
        return f"{digits(self.value, 3)} [{digits(self.low, 2)}, {digits(self.high, 2)}] over {self.n} seeds"


def bootstrap_mean(
    values: Sequence[float] | npt.NDArray[Any],
    seed: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Mean:
    """Mean over seeds with a percentile bootstrap interval.

    The interval cannot reach beyond the smallest and largest value, so with three to five seeds it covers
    less than it says (the range of three values holds the true median in 75 % of cases, no more). Read it as
    "how far these seeds disagree", and add seeds before arguing about a small difference.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        values: One number per seed, any unit; shape [n].
        seed: Of the resampling; the same seed gives the same interval.
        resamples: How often the n values are drawn again, with replacement; at least 1.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        The mean; its interval is NaN below three values.

    Raises:
        LabError: If a value is not a finite number, or `resamples` or `confidence` is out of range.
    """
    sample = as_numbers("values", values)
    level = checked_level(confidence)
    if resamples < 1:
        raise LabError(f"resamples is {resamples}; allowed: at least 1.")
    n = len(sample)
    if n == 0:
        return Mean(0, math.nan, math.nan, math.nan)
    value = float(sample.mean())
    if n < FEWEST:
        return Mean(n, value, math.nan, math.nan)
    draw = _drawn if resamples * n <= _FEW_DRAWS else _drawn.__wrapped__
    means = sample[draw(seed, n, resamples)].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    # Equal values: the resampled means differ from the value by rounding alone.
    return Mean(n, value, min(float(low), value), max(float(high), value))


@functools.lru_cache(maxsize=8)
def _drawn(seed: int, n: int, resamples: int) -> npt.NDArray[np.int64]:
    """Which values each resample draws; a table of many means asks for the same draws again and again."""
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    drawn.flags.writeable = False
    return drawn
