"""Differences between two answers to the same rows, such as a run's and its twin's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from lab.errors import LabError
from lab.stats._values import as_flags, digits
from lab.stats.shares import wilson


@dataclass(frozen=True)
class Difference:
    """A difference of two shares of the same rows, such as excess ASR.

    Attributes:
        n: How many rows, each seen under both conditions.
        value: Share under `a` minus share under `b`, in [-1, 1]; above 0: more under `a`; NaN when n is 0.
        low: Lower end of the interval, in [-1, value]; NaN when n is 0.
        high: Upper end of the interval, in [value, 1]; NaN when n is 0.
        only_a: Rows that count under `a` and not under `b`.
        only_b: Rows that count under `b` and not under `a`.
    """

    n: int
    value: float
    low: float
    high: float
    only_a: int
    only_b: int

    def __str__(self) -> str:
        """`+.742 [+.70, +.78] n=427`."""
        if self.n == 0:
            return "no rows, n=0"
        value, low, high = (
            digits(self.value, 3, True),
            digits(self.low, 2, True),
            digits(self.high, 2, True),
        )
        return f"{value} [{low}, {high}] n={self.n}"


def paired_difference(
    a: Sequence[bool] | npt.NDArray[Any],
    b: Sequence[bool] | npt.NDArray[Any],
    confidence: float = 0.95,
) -> Difference:
    """Difference of two shares measured on the same rows: excess ASR is a = poisoned, b = clean twin.

    Interval: Newcombe's square-and-add interval for paired proportions (his method 10). It combines the two
    Wilson intervals, so that what is shown for the difference agrees with what is shown for each rate, and
    takes their correlation over rows into account, which is what pairing is for. It stays in [-1, 1] and has
    width where no row changes or every row does; a bootstrap over rows collapses to a point there, and those
    are the cases of a perfect backdoor and of a clean model.

    Source: Newcombe, Statistics in Medicine 17 (1998), 2635; among the recommended intervals in Fagerland,
    Lydersen and Laake, Statistics in Medicine 33 (2014), 2850.

    Args:
        a: Whether each row counts under the first condition; shape [n], booleans or 0/1.
        b: The same rows in the same order under the second condition; shape [n].
        confidence: Coverage, in (0, 1).

    Returns:
        The share under `a` minus the share under `b`, in [-1, 1]; NaN when there are no rows.

    Raises:
        LabError: If the lengths differ or an entry is neither true nor false.
    """
    first, second = as_flags("a", a), as_flags("b", b)
    if len(first) != len(second):
        raise LabError(f"a has {len(first)} rows and b has {len(second)}; pairs need the same rows in both.")
    n = len(first)
    if n == 0:
        return Difference(0, math.nan, math.nan, math.nan, 0, 0)
    both = int((first & second).sum())
    only_a = int((first & ~second).sum())
    only_b = int((second & ~first).sum())
    neither = n - both - only_a - only_b
    share_a, share_b = (both + only_a) / n, (both + only_b) / n
    value = (only_a - only_b) / n
    low_a, high_a = wilson(both + only_a, n, confidence)
    low_b, high_b = wilson(both + only_b, n, confidence)
    phi = _phi(both, only_a, only_b, neither)
    low = value - _joined(share_a - low_a, high_b - share_b, phi)
    high = value + _joined(high_a - share_a, share_b - low_b, phi)
    return Difference(n, value, max(low, -1.0), min(high, 1.0), only_a, only_b)


def _joined(one: float, other: float, phi: float) -> float:
    """Length of two correlated distances put together; rounding must not make the square negative."""
    return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))


def _phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Correlation of the two conditions over rows, with Newcombe's correction towards 0 when positive."""
    n = both + only_a + only_b + neither
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    product = float(both * neither - only_a * only_b)
    if product > 0:
        product = max(product - n / 2, 0.0)
    return product / math.sqrt(margins)
