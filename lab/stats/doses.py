"""Dose and response: how many poisoned rows it takes, from success counts at several doses.

The model is a logistic curve in the logarithm of the count, above a background that needs no poison:

    P(success | count c) = g + (1 − g) · expit(b · (log c − log h)),   b > 0

g is what triggered rows do without the backdoor (the clean twin's rate on them; Abbott's correction, J. Econ.
Entomol. 18, 1925), and h is the *half count*: the count at which half of the rows that would not have gone to
the target anyhow do. With g = 0 that is the count of 50 % attack success.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from lab.errors import LabError

#: Fewer different doses than that do not tell a curve from a line.
FEWEST_DOSES = 3
#: Bounds of the slope: from hardly a trend to a step between two neighbouring counts.
_SLOPES = (1e-3, 1e3)
#: How far from the doses that were tried the ends of an interval are looked for, as a factor.
_FAR = 1e4

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DoseFit:
    """A fitted dose–response curve.

    Attributes:
        verdict: "fitted"; "not reached": even the largest dose has less than half of the effect; "always
            reached": even the smallest has more; "separated": no dose lies on the slope, so the curve may be
            as steep as one likes and the half count lies anywhere between two doses; "no trend": the
            response does not rise with the dose; "n too small": fewer than three doses above zero.
        half: The half count h; NaN unless fitted or separated (then the geometric middle of its bounds).
        low: Lower end of its interval; 0 where the data set none. Where it is not reached, the largest dose.
        high: Upper end; infinite where the data set none. Where it is always reached, the smallest dose.
        slope: b, per unit of the natural logarithm; NaN unless fitted.
        background: g as it was given, in [0, 1).
        doses: How many different doses.
        n: How many rows in all.
        heterogeneity: Pearson's χ² over its degrees of freedom, at least 1: how much runs of one dose differ
            more than their rows explain. The interval is widened by it (Finney, Probit Analysis, ch. 4).
    """

    verdict: str
    half: float
    low: float
    high: float
    slope: float
    background: float
    doses: int
    n: int
    heterogeneity: float

    def rate(self, dose: float) -> float:
        """The fitted probability of success at a dose above zero; NaN where nothing is fitted."""
        if math.isnan(self.slope) or dose <= 0:
            return math.nan
        rise = float(special.expit(self.slope * (math.log(dose) - math.log(self.half))))
        return self.background + (1 - self.background) * rise


def fit_dose_response(
    doses: Sequence[float] | npt.NDArray[Any],
    k: Sequence[int] | npt.NDArray[Any],
    n: Sequence[int] | npt.NDArray[Any],
    *,
    background: float = 0.0,
    confidence: float = 0.95,
) -> DoseFit:
    """Fit a logistic curve in the logarithm of the dose by maximum likelihood.

    The interval of the half count is that of the profile likelihood, which is not symmetric and stays honest
    for few doses; with several runs a dose it is widened by how much these differ (quasi-likelihood, with the
    F distribution in place of χ²). Doses of 0 have no logarithm and say nothing but the background: they are
    left out.

    Args:
        doses: The dose of each run, such as its poison count; 0 or more.
        k: How many of its rows succeeded.
        n: Of how many.
        background: The share that succeeds without any dose, in [0, 1), taken as known.
        confidence: Coverage aimed at, in (0, 1).

    Raises:
        LabError: Lists of different lengths, impossible counts, a background or confidence out of range.
    """
    x, hits, rows = _checked(doses, k, n, background, confidence)
    keep = (x > 0) & (rows > 0)
    x, hits, rows = np.log(x[keep]), hits[keep], rows[keep]
    levels = np.unique(x)
    total = int(rows.sum())

    def said(verdict: str, half: float, low: float, high: float, slope: float, more: float) -> DoseFit:
        return DoseFit(verdict, half, low, high, slope, background, len(levels), total, more)

    nothing = math.nan
    if len(levels) < FEWEST_DOSES:
        return said("n too small", nothing, nothing, nothing, nothing, nothing)
    pooled = np.array([hits[x == level].sum() / rows[x == level].sum() for level in levels])
    effect = np.clip((pooled - background) / (1 - background), 0, 1)
    if effect.max() < 0.5:
        return said("not reached", nothing, float(np.exp(levels[-1])), math.inf, nothing, nothing)
    if effect.min() > 0.5:
        return said("always reached", nothing, 0.0, float(np.exp(levels[0])), nothing, nothing)
    if np.polyfit(x, hits / rows, 1, w=np.sqrt(rows))[0] <= 0:
        return said("no trend", nothing, nothing, nothing, nothing, nothing)
    if (gap := _gap(levels, effect)) is not None:
        low, high = (float(np.exp(end)) for end in gap)
        return said("separated", math.sqrt(low * high), low, high, nothing, nothing)
    place, slope = _fit(x, hits, rows, background)
    more, free = _heterogeneity(x, hits, rows, background, place, slope)
    low, high = _interval(x, hits, rows, background, place, slope, confidence, more, free)
    return said("fitted", math.exp(place), low, high, slope, more)


def _checked(
    doses: Any, k: Any, n: Any, background: float, confidence: float
) -> tuple[Numbers, Numbers, Numbers]:
    x, hits, rows = (np.asarray(values, dtype=float) for values in (doses, k, n))
    if not x.shape == hits.shape == rows.shape or x.ndim != 1:
        raise LabError(f"A dose, k and n for each run: got {x.shape}, {hits.shape}, {rows.shape}.")
    fine = np.isfinite(x) & (x >= 0) & (hits >= 0) & (hits <= rows) & (rows == np.floor(rows))
    if not fine.all():
        at = int(np.flatnonzero(~fine)[0])
        raise LabError(
            f"Run {at} has dose {x[at]:g}, k {hits[at]:g}, n {rows[at]:g}; allowed: 0 ≤ k ≤ n, dose ≥ 0."
        )
    if not 0 <= background < 1:
        raise LabError(f"background = {background}; allowed: from 0 to below 1.")
    if not 0 < confidence < 1:
        raise LabError(f"confidence = {confidence}; allowed: between 0 and 1.")
    return x, hits, rows


def _gap(levels: Numbers, effect: Numbers) -> tuple[float, float] | None:
    """The two doses between which everything happens, where none lies on the slope; None where some does."""
    none, all_ = effect <= 0, effect >= 1
    if not (none | all_).all() or not (np.diff(all_.astype(int)) >= 0).all():
        return None
    return float(levels[none][-1]), float(levels[all_][0])


def _loss(x: Numbers, hits: Numbers, rows: Numbers, background: float, place: float, slope: float) -> float:
    """Minus the log-likelihood, up to a constant; in logarithms, for on a steep curve p comes out as 0."""
    rise = slope * (x - place)
    rest = math.log1p(-background)
    hit = rest + special.log_expit(rise)
    if background > 0:
        hit = np.logaddexp(math.log(background), hit)
    return -float((hits * hit + (rows - hits) * (rest + special.log_expit(-rise))).sum())


def _fit(x: Numbers, hits: Numbers, rows: Numbers, background: float) -> tuple[float, float]:
    """The most likely place (log half count) and slope; several starts, since the surface has flat parts."""
    from scipy import optimize  # it takes a third of a second to import, and few who count need it

    found = [
        optimize.minimize(
            lambda v: _loss(x, hits, rows, background, v[0], math.exp(v[1])),
            (start, math.log(slope)),
            method="L-BFGS-B",
            bounds=((x.min() - math.log(_FAR), x.max() + math.log(_FAR)), tuple(map(math.log, _SLOPES))),
        )
        for start in np.quantile(x, (0.25, 0.5, 0.75))
        for slope in (0.5, 2.0, 8.0)
    ]
    best = min(found, key=lambda result: float(result.fun))
    return float(best.x[0]), math.exp(float(best.x[1]))


def _profile(x: Numbers, hits: Numbers, rows: Numbers, background: float, place: float) -> float:
    """The smallest loss over all slopes with the half count fixed."""
    from scipy import optimize

    low, high = map(math.log, _SLOPES)
    grid = np.linspace(low, high, 60)
    values = [_loss(x, hits, rows, background, place, math.exp(s)) for s in grid]
    at = int(np.argmin(values))
    ends = (grid[max(0, at - 1)], grid[min(len(grid) - 1, at + 1)])
    found = optimize.minimize_scalar(
        lambda s: _loss(x, hits, rows, background, place, math.exp(s)), bounds=ends, method="bounded"
    )
    return min(float(found.fun), values[at])


def _heterogeneity(
    x: Numbers, hits: Numbers, rows: Numbers, background: float, place: float, slope: float
) -> tuple[float, int]:
    """Pearson's χ² by its degrees of freedom, at least 1, and these."""
    p = background + (1 - background) * special.expit(slope * (x - place))
    spread = np.maximum(rows * p * (1 - p), 1e-12)
    # cells that expect hardly any success or failure have no χ² worth the name
    told = np.minimum(rows * p, rows * (1 - p)) >= 1
    free = int(told.sum()) - 2
    if free < 1:
        return 1.0, 0
    return max(1.0, float((((hits - rows * p) ** 2 / spread)[told]).sum()) / free), free


def _interval(
    x: Numbers,
    hits: Numbers,
    rows: Numbers,
    background: float,
    place: float,
    slope: float,
    confidence: float,
    more: float,
    free: int,
) -> tuple[float, float]:
    """Where the profile's deviance crosses the quantile, on either side; 0 or infinite where it does not."""
    from scipy import optimize

    best = _loss(x, hits, rows, background, place, slope)
    if more > 1:
        limit = more * float(special.fdtri(1, free, confidence))
    else:
        limit = float(special.chdtri(1, 1 - confidence))

    def over(at: float) -> float:
        return 2 * (_profile(x, hits, rows, background, at) - best) - limit

    far = math.log(_FAR)
    ends = [
        optimize.brentq(over, place, end, xtol=1e-6) if over(end) > 0 else math.nan
        for end in (x.min() - far, x.max() + far)
    ]
    low = 0.0 if math.isnan(ends[0]) else math.exp(ends[0])
    high = math.inf if math.isnan(ends[1]) else math.exp(ends[1])
    return low, high
