"""Counts become statements here, and only here: a value, how many it rests on, and how far it may be off.

Two kinds of uncertainty appear in the lab, and they are not exchangeable. *Which rows* were tested: a share
of n rows has a Wilson interval. *Which seed* was trained: a mean over seeds has a bootstrap interval, and
says "n too small" below three seeds, because two numbers cannot tell how far a third would lie.

An interval that cannot be given is NaN, never zero width. Impossible counts raise `LabError`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from lab.errors import LabError

__all__ = [
    "Difference",
    "Mean",
    "RankCorrelation",
    "Rate",
    "Trend",
    "benjamini_hochberg",
    "bootstrap_mean",
    "clopper_pearson",
    "paired_difference",
    "rank_correlation",
    "rate",
    "spearman_trend",
    "wilson",
]

#: Below this many seeds (or points of a trend) nothing is said about spread.
FEWEST = 3
#: So many numbers of a resampling (2 MB) are kept for the next one of the same size.
_FEW_DRAWS = 2**18


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
        return f"{_short(self.value, 3)} [{_short(self.low, 2)}, {_short(self.high, 2)}] n={self.n}"


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
            return f"{_short(self.value, 3)}, n too small for an interval (n={self.n})"
        return f"{_short(self.value, 3)} [{_short(self.low, 2)}, {_short(self.high, 2)}] over {self.n} seeds"


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
        value, low, high = _short(self.value, 3, True), _short(self.low, 2, True), _short(self.high, 2, True)
        return f"{value} [{low}, {high}] n={self.n}"


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
        chance = "p<.001" if self.p < 0.001 else f"p={_short(self.p, 3)}"
        return f"rho {_short(self.rho, 2, True)}, {chance}, n={self.n}"


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
        value, low, high = (_short(x, 2, True) for x in (self.rho, self.low, self.high))
        chance = "p<.001" if self.p < 0.001 else f"p={_short(self.p, 3)}"
        return f"rho {value} [{low}, {high}], {chance}, n={self.n}"


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
    k, n = _counts(k, n)
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
    k, n = _counts(k, n)
    z = float(special.ndtri(0.5 + _level(confidence) / 2))
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
    k, n = _counts(k, n)
    if side not in ("two-sided", "upper", "lower"):
        raise LabError(f"side is {side!r}; allowed: 'two-sided', 'upper', 'lower'.")
    error = 1 - _level(confidence)
    if n == 0:
        return math.nan, math.nan
    tail = error / 2 if side == "two-sided" else error
    low = 0.0 if side == "upper" or k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if side == "lower" or k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return low, high


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
    sample = _numbers("values", values)
    level = _level(confidence)
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
    first, second = _flags("a", a), _flags("b", b)
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

    dose, response = _numbers("x", x), _numbers("y", y)
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
    _level(confidence)  # out of range is said before anything is worked out
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
    z = float(special.ndtri(0.5 + _level(confidence) / 2))
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


def _counts(k: Any, n: Any) -> tuple[int, int]:
    """K and n as whole numbers, also from NumPy and from float columns of a table."""
    for name, count in (("k", k), ("n", n)):
        if not np.isfinite(count) or int(count) != count or count < 0:
            raise LabError(f"{name} is {count}; allowed: a whole number from 0 up.")
    if k > n:
        raise LabError(f"k is {int(k)} and n is {int(n)}; no more rows can count than there are.")
    return int(k), int(n)


def _level(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise LabError(f"confidence is {confidence}; allowed: between 0 and 1, both excluded.")
    return confidence


def _numbers(name: str, values: Any) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise LabError(f"{name} has shape {array.shape}; allowed: one dimension.")
    if not np.isfinite(array).all():
        raise LabError(f"{name} holds {array[~np.isfinite(array)][0]}; leave failed runs out first.")
    return array


def _flags(name: str, values: Any) -> npt.NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise LabError(f"{name} has shape {array.shape}; allowed: one dimension, one entry per row.")
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise LabError(f"{name} holds entries other than true and false.")
    return array.astype(np.bool_)


def _short(value: float, digits: int, signed: bool = False) -> str:
    """`.957` for 0.957: the zero before the point says nothing in a share."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("+-").startswith("0.") else text
