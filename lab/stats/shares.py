"""Shares of rows: a value with its interval from k of n."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy import special

from lab.errors import LabError
from lab.stats._values import checked_counts, checked_level, digits


@dataclass(frozen=True)
class Rate:
    """A share of rows with its 95 % (or other) interval.

    Attributes:
        k: How many rows counted.
        n: Of how many.
        value: k / n in [0, 1]; NaN when n is 0.
        low: Lower end of the interval, in [0, value]; NaN when n is 0.
        high: Upper end of the interval, in [value, 1]; NaN when n is 0.
    """

    k: int
    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`.957 [.94, .97] n=427`."""
        if self.n == 0:
            return "no rows, n=0"
        return f"{digits(self.value, 3)} [{digits(self.low, 2)}, {digits(self.high, 2)}] n={self.n}"


def rate(k: int, n: int, confidence: float = 0.95) -> Rate:
    """Turn a count into a share with its Wilson interval.

    Args:
        k: How many rows counted, 0 ≤ k ≤ n.
        n: Of how many; 0 gives NaN for value and interval.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        LabError: If the counts are impossible or the confidence is not in (0, 1).

    >>> print(rate(409, 427))
    .958 [.93, .97] n=427
    """
    k, n = checked_counts(k, n)
    low, high = wilson(k, n, confidence)
    return Rate(k, n, k / n if n else math.nan, low, high)


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share: all shares p that k of n rows would not reject.

    It is never of zero width and never leaves [0, 1], also at 0 of n and n of n, where most attack success
    rates lie and where the textbook p ± z·sqrt(p(1-p)/n) claims certainty. No continuity correction.

    Source: Wilson, JASA 22 (1927), 209; recommended for general use by Brown, Cai and DasGupta,
    Statistical Science 16 (2001), 101.

    Args:
        k: How many rows counted, 0 ≤ k ≤ n.
        n: Of how many.
        confidence: Coverage, in (0, 1).

    Returns:
        (low, high) with 0 ≤ low ≤ k/n ≤ high ≤ 1; (NaN, NaN) when n is 0.

    Raises:
        LabError: If the counts are impossible or the confidence is not in (0, 1).
    """
    k, n = checked_counts(k, n)
    z = float(special.ndtri(0.5 + checked_level(confidence) / 2))
    if n == 0:
        return math.nan, math.nan
    share = k / n
    stretch = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / stretch
    half = z / stretch * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may push an end past the value by one unit in the last place, at 0 of n and n of n past 0 or 1.
    low = 0.0 if k == 0 else min(max(centre - half, 0.0), share)
    high = 1.0 if k == n else max(min(centre + half, 1.0), share)
    return low, high


def clopper_pearson(
    k: int,
    n: int,
    confidence: float = 0.95,
    side: Literal["two-sided", "upper", "lower"] = "two-sided",
) -> tuple[float, float]:
    """Exact interval for a share: its coverage is at least `confidence`, for every true share and every n.

    The price is width, so rates are shown with `wilson`; this one is for claims about small cohorts. With
    `side="upper"` it answers "k of n clean adapters were flagged: how high may the false positive rate be?":
    at 0 of n the bound is 1 - (1-confidence)^(1/n), so 0 of 4 says only "below 53 %", 0 of 60 "below 4.9 %".

    Source: Clopper and Pearson, Biometrika 26 (1934), 404.

    Args:
        k: How many counted, 0 ≤ k ≤ n.
        n: Of how many.
        confidence: Least coverage, in (0, 1).
        side: "two-sided" splits the error over both ends; "upper" and "lower" give one bound the whole of it.

    Returns:
        (low, high) with 0 ≤ low ≤ k/n ≤ high ≤ 1; low is 0 for "upper", high is 1 for "lower";
        (NaN, NaN) when n is 0.

    Raises:
        LabError: If the counts are impossible, the confidence is not in (0, 1) or the side is unknown.
    """
    k, n = checked_counts(k, n)
    if side not in ("two-sided", "upper", "lower"):
        raise LabError(f"side is {side!r}; allowed: 'two-sided', 'upper', 'lower'.")
    error = 1 - checked_level(confidence)
    if n == 0:
        return math.nan, math.nan
    tail = error / 2 if side == "two-sided" else error
    low = 0.0 if side == "upper" or k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if side == "lower" or k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return low, high
