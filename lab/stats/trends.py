"""Trends over ranks, counts and the like, and many tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from lab.errors import LabError
from lab.stats._values import FEWEST, as_numbers, checked_level, digits


@dataclass(frozen=True)
class Trend:
    """A monotone trend and how easily chance makes one as strong.

    Attributes:
        n: How many points.
        rho: Spearman's rank correlation in [-1, 1]; 1 means y always rises with x; NaN where it is undefined.
        p: Two-sided permutation p-value in (0, 1]; small means hard to explain by chance; NaN as `rho`.
    """

    n: int
    rho: float
    p: float

    def __str__(self) -> str:
        """`rho +.83, p=.004, n=12`."""
        if math.isnan(self.rho):
            return f"n too small or values constant, no trend (n={self.n})"
        chance = "p<.001" if self.p < 0.001 else f"p={digits(self.p, 3)}"
        return f"rho {digits(self.rho, 2, True)}, {chance}, n={self.n}"


@dataclass(frozen=True)
class RankCorrelation:
    """How far two numbers order the same things alike.

    Attributes:
        n: How many things.
        rho: Spearman's rank correlation in [-1, 1]; NaN below four things, or where one number is constant.
        low: Lower end of the interval, in [-1, rho]; NaN as `rho`.
        high: Upper end of the interval, in [rho, 1]; NaN as `rho`.
        p: Two-sided permutation p-value in (0, 1]; NaN as `rho`.
    """

    n: int
    rho: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        """`rho +.83 [+.05, +.98], p=.058, n=6`."""
        if math.isnan(self.rho):
            return f"n too small or values constant, no correlation (n={self.n})"
        value, low, high = (digits(x, 2, True) for x in (self.rho, self.low, self.high))
        chance = "p<.001" if self.p < 0.001 else f"p={digits(self.p, 3)}"
        return f"rho {value} [{low}, {high}], {chance}, n={self.n}"


def spearman_trend(
    x: Sequence[float] | npt.NDArray[Any],
    y: Sequence[float] | npt.NDArray[Any],
    permutations: int = 10_000,
    seed: int = 0,
) -> Trend:
    """Does y rise (or fall) with x? Spearman's rank correlation, judged against shuffled y.

    The p-value is (1 + shuffles at least as strong) / (1 + shuffles), which is never 0 and never too small
    by chance. With n points it cannot fall far below 2/n!: four points cannot be significant.

    Source: Spearman, American Journal of Psychology 15 (1904), 72; the p-value's form: Phipson and Smyth,
    Statistical Applications in Genetics and Molecular Biology 9 (2010), article 39.

    Args:
        x: Doses, in any unit; shape [n]. Ties get their mean rank.
        y: Responses in the same order; shape [n].
        permutations: How many shuffles; at least 1.
        seed: Of the shuffling.

    Returns:
        The trend; rho and p are NaN below three points, or where x or y is constant.

    Raises:
        LabError: If the lengths differ, a value is not finite, or `permutations` is below 1.
    """
    from scipy.stats import rankdata  # here, because scipy.stats takes longer to import than all of lab.stats

    dose, response = as_numbers("x", x), as_numbers("y", y)
    if len(dose) != len(response):
        raise LabError(f"x has {len(dose)} values and y has {len(response)}; a trend needs pairs.")
    if permutations < 1:
        raise LabError(f"permutations is {permutations}; allowed: at least 1.")
    n = len(dose)
    if n < FEWEST or np.ptp(dose) == 0 or np.ptp(response) == 0:
        return Trend(n, math.nan, math.nan)
    ranks_x, ranks_y = rankdata(dose), rankdata(response)
    ranks_x, ranks_y = ranks_x - ranks_x.mean(), ranks_y - ranks_y.mean()
    norm = math.sqrt(float(ranks_x @ ranks_x) * float(ranks_y @ ranks_y))
    rho = float(np.clip(ranks_x @ ranks_y / norm, -1.0, 1.0))
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.broadcast_to(ranks_y, (permutations, n)), axis=1) @ ranks_x / norm
    # The tolerance counts ties with the observed value, which rounding would otherwise split at random.
    as_strong = int((np.abs(shuffled) >= abs(rho) - 1e-12).sum())
    return Trend(n, rho, (1 + as_strong) / (1 + permutations))


def rank_correlation(
    x: Sequence[float] | npt.NDArray[Any],
    y: Sequence[float] | npt.NDArray[Any],
    permutations: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> RankCorrelation:
    """Spearman's rank correlation with an interval: do two numbers order the same things alike?

    The interval is that of Fisher's z with Bonett and Wright's standard error, √((1 + rho²/2) / (n − 3)). A
    bootstrap would have no width where the orders agree, which few things often do by chance. For the same
    reason rho is moved half a step of what n things can show away from ±1 before z is taken. It takes the
    things to be independent of each other: cells of one sweep that share seeds are less than that.

    Source: Bonett and Wright, Psychometrika 65 (2000), 23.

    Args:
        x: One number for each thing; shape [n]. Ties get their mean rank.
        y: The other number, in the same order; shape [n].
        permutations: How many shuffles the p-value rests on; at least 1.
        seed: Of the shuffling.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        The correlation; all NaN below four things, of which nothing can be said.

    Raises:
        LabError: As `spearman_trend`, or if the confidence is not in (0, 1).
    """
    checked_level(confidence)  # out of range is said before anything is worked out
    trend = spearman_trend(x, y, permutations, seed)
    n, rho = trend.n, trend.rho
    if n <= FEWEST or math.isnan(rho):
        return RankCorrelation(n, math.nan, math.nan, math.nan, math.nan)
    low, high = correlation_interval(rho, n, confidence)
    return RankCorrelation(n, rho, low, high, trend.p)


def correlation_interval(rho: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a rank correlation that is known by its value alone; see `rank_correlation`.

    Args:
        rho: Spearman's, in [-1, 1].
        n: Of how many things.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        Both ends, in [-1, 1]; NaN below four things, or where rho is NaN.

    Raises:
        LabError: If rho or the confidence is out of range.
    """
    z = float(special.ndtri(0.5 + checked_level(confidence) / 2))
    if n <= FEWEST or math.isnan(rho):
        return math.nan, math.nan
    if not -1 <= rho <= 1:
        raise LabError(f"rho is {rho}; allowed: -1 to 1.")
    most = 1 - 6 / (n**3 - n)
    middle = math.atanh(min(max(rho, -most), most))
    half = z * math.sqrt((1 + rho**2 / 2) / (n - FEWEST))
    low, high = math.tanh(middle - half), math.tanh(middle + half)
    return min(low, rho), max(high, rho)


def benjamini_hochberg(pvalues: Sequence[float] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Adjust p-values so that, of all that are called, only a share is expected to be false.

    Calling every adjusted value ≤ q keeps the expected share of false discoveries below q, for independent
    tests and for positively dependent ones (many probes of one model are).

    Source: Benjamini and Hochberg, Journal of the Royal Statistical Society B 57 (1995), 289.

    Args:
        pvalues: p-values in [0, 1]; shape [m]. NaN means "not tested": it stays NaN and is not counted.

    Returns:
        Adjusted p-values in [0, 1], never below the p-values; shape [m], same order; small is significant.

    Raises:
        LabError: If a p-value lies outside [0, 1].
    """
    given = np.asarray(pvalues, dtype=np.float64).reshape(-1)
    tested = np.flatnonzero(~np.isnan(given))
    p = given[tested]
    if ((p < 0) | (p > 1)).any():
        worst = p[(p < 0) | (p > 1)][0]
        raise LabError(f"p-value {worst:g} is outside [0, 1].")
    adjusted = np.full(given.shape, np.nan)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    # From the largest down, no value may exceed the one after it: order among the tests is kept.
    adjusted[tested[order]] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted
