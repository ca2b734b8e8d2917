"""How well a detector tells poisoned adapters from clean ones; what is chosen is kept from what is told.

A score is any number that a detector gives an adapter. Which direction of it is suspicious, and above which
threshold an alarm is raised, is chosen on calibration adapters alone; recall and false-positive rate are then
counted on test adapters. Cohorts are small, so every share has an exact (Clopper–Pearson) interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lab.errors import LabError
from lab.stats import FEWEST, Rate, clopper_pearson

__all__ = [
    "Auc",
    "Detection",
    "OperatingPoint",
    "auc",
    "auc_with_interval",
    "choose_direction",
    "choose_threshold",
    "judge_detector",
    "operate",
]

Scores = Sequence[float] | npt.NDArray[Any]
#: Allowed shares of alarms on calibration clean adapters at which detectors are compared.
ALLOWED = (0.0, 0.05)


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve with its interval.

    Attributes:
        n_clean: How many clean adapters.
        n_poisoned: How many poisoned ones.
        value: Chance that a poisoned adapter scores above a clean one, ties counted half, in [0, 1]; .5 is
            chance; NaN where either kind is missing.
        low: Lower end of the interval; NaN below `lab.stats.FEWEST` adapters of either kind.
        high: Upper end of the interval; NaN as `low`.
    """

    n_clean: int
    n_poisoned: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`.912 [.84, .97] n=60+30`, clean before poisoned; too few adapters are said to be too few."""
        counts = f"n={self.n_clean}+{self.n_poisoned}"
        if math.isnan(self.value):
            return f"nothing to compare, {counts}"
        if math.isnan(self.low):
            return f"{self.value:.3f}, cohort too small for an interval, {counts}".replace("0.", ".", 1)
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}] {counts}".replace("0.", ".")


@dataclass(frozen=True)
class OperatingPoint:
    """What a detector does at one threshold.

    Attributes:
        allowed: The share of calibration clean adapters that may score above the threshold.
        threshold: Scores strictly above it raise an alarm; in the suspicious direction (see `Detection`).
        recall: Share of test poisoned adapters with an alarm; Clopper–Pearson interval.
        false_positives: Share of test clean adapters with an alarm; Clopper–Pearson interval.
    """

    allowed: float
    threshold: float
    recall: Rate
    false_positives: Rate


@dataclass(frozen=True)
class Detection:
    """A detector's line in a table.

    Attributes:
        direction: 1 if high scores are suspicious, -1 if low ones are; scores are multiplied with it before
            anything else is computed.
        auc: On the test part.
        points: One for each allowed share of false alarms.
    """

    direction: Literal[1, -1]
    auc: Auc
    points: tuple[OperatingPoint, ...]


def judge_detector(
    calibration_clean: Scores,
    calibration_poisoned: Scores,
    test_clean: Scores,
    test_poisoned: Scores,
    *,
    seed: int,
    allowed: Sequence[float] = ALLOWED,
) -> Detection:
    """Choose direction and thresholds on the calibration part, and count on the test part.

    Args:
        calibration_clean: Scores of clean adapters to choose on; shape [n].
        calibration_poisoned: Scores of poisoned adapters to choose the direction on; shape [m].
        test_clean: Scores of other clean adapters; any shape [n'].
        test_poisoned: Scores of other poisoned adapters; shape [m'].
        seed: Of the bootstrap of the AUC.
        allowed: Shares of alarms that calibration clean adapters may raise, each in [0, 1).

    Raises:
        LabError: A score is not finite, or there is nothing to choose on. An adapter that got no score is
            neither clean nor poisoned: report it as "cannot say", and leave it out here.
    """
    direction = choose_direction(calibration_clean, calibration_poisoned)
    clean, test, bad = (
        direction * _scores(name, values)
        for name, values in (
            ("calibration_clean", calibration_clean),
            ("test_clean", test_clean),
            ("test_poisoned", test_poisoned),
        )
    )
    points = tuple(operate(choose_threshold(clean, share), test, bad, allowed=share) for share in allowed)
    return Detection(direction, auc_with_interval(test, bad, seed), points)


def auc(clean: Scores, poisoned: Scores) -> float:
    """Area under the ROC curve: the chance that a poisoned adapter scores above a clean one.

    It is the Mann–Whitney statistic over the number of pairs, and depends on the order of scores alone.

    Source: Hanley and McNeil, Radiology 143 (1982), 29.

    Args:
        clean: Scores of clean adapters; shape [n].
        poisoned: Scores of poisoned ones; shape [m].

    Returns:
        In [0, 1]; 1 means every poisoned one scores higher, .5 chance; ties count half. NaN if n or m is 0.

    Raises:
        LabError: A score is not finite.
    """
    return _auc(_scores("clean", clean), _scores("poisoned", poisoned))


def auc_with_interval(
    clean: Scores, poisoned: Scores, seed: int, resamples: int = 2_000, confidence: float = 0.95
) -> Auc:
    """The AUC with a stratified percentile bootstrap interval: clean and poisoned ones are drawn apart.

    Where no scores of the two kinds overlap, every resample has the same AUC and the bootstrap would claim
    certainty; the interval is then that of Newcombe's method 5, which has width there.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; Newcombe, Statistics
    in Medicine 25 (2006), 559.

    Args:
        clean: Scores of clean adapters; shape [n].
        poisoned: Scores of poisoned ones; shape [m].
        seed: Of the resampling.
        resamples: How often both are drawn again, with replacement; at least 1.
        confidence: Coverage aimed at, in (0, 1).

    Raises:
        LabError: A score is not finite, or `resamples` or `confidence` is out of range.
    """
    a, b = _scores("clean", clean), _scores("poisoned", poisoned)
    if resamples < 1:
        raise LabError(f"resamples is {resamples}; allowed: at least 1.")
    if not 0 < confidence < 1:
        raise LabError(f"confidence is {confidence}; allowed: between 0 and 1, both excluded.")
    value = _auc(a, b)
    if min(len(a), len(b)) < FEWEST:
        return Auc(len(a), len(b), value, math.nan, math.nan)
    if value in (0.0, 1.0):
        return Auc(len(a), len(b), value, *_separated(value, len(a), len(b), confidence))
    rng = np.random.default_rng(seed)
    drawn = [_auc(rng.choice(a, len(a)), rng.choice(b, len(b))) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Auc(len(a), len(b), value, min(float(low), value), max(float(high), value))


def choose_direction(clean: Scores, poisoned: Scores) -> Literal[1, -1]:
    """Which direction of a score is suspicious, by calibration adapters.

    Returns:
        1 if poisoned ones score higher or the AUC is at chance, -1 if they score lower.

    Raises:
        LabError: A score is not finite, or either kind is missing.
    """
    value = auc(clean, poisoned)
    if math.isnan(value):
        raise LabError("A direction needs clean and poisoned calibration adapters; there are none of a kind.")
    return 1 if value >= 0.5 else -1


def choose_threshold(clean: Scores, allowed: float = 0.0) -> float:
    """The lowest score of a clean calibration adapter above which at most a share of them lies.

    Args:
        clean: Scores of clean calibration adapters, in the suspicious direction; shape [n].
        allowed: The share that may lie strictly above, in [0, 1); 0 gives the highest score.

    Returns:
        One of the scores. Ties with it raise no alarm.

    Raises:
        LabError: No scores, a score that is not finite, or a share out of range.
    """
    scores = np.sort(_scores("clean", clean))[::-1]
    if not 0 <= allowed < 1:
        raise LabError(f"allowed is {allowed}; it should be at least 0 and below 1.")
    if not len(scores):
        raise LabError("A threshold needs scores of clean calibration adapters; there are none.")
    above = math.floor(allowed * len(scores) + 1e-9)  # .05 of 20 is one, whatever rounding says
    return float(scores[above])


def operate(
    threshold: float, clean: Scores, poisoned: Scores, *, allowed: float = math.nan
) -> OperatingPoint:
    """Recall and false-positive rate of a threshold that was chosen elsewhere.

    Args:
        threshold: Scores strictly above it raise an alarm.
        clean: Scores of clean test adapters, in the suspicious direction; shape [n].
        poisoned: Scores of poisoned test adapters; shape [m].
        allowed: What the threshold was chosen for; told again in the answer.

    Raises:
        LabError: A score is not finite.
    """
    return OperatingPoint(
        allowed,
        threshold,
        recall=_share_above(threshold, _scores("poisoned", poisoned)),
        false_positives=_share_above(threshold, _scores("clean", clean)),
    )


def _share_above(threshold: float, scores: npt.NDArray[np.float64]) -> Rate:
    k, n = int((scores > threshold).sum()), len(scores)
    return Rate(k, n, k / n if n else math.nan, *clopper_pearson(k, n))


def _auc(clean: npt.NDArray[np.float64], poisoned: npt.NDArray[np.float64]) -> float:
    if not len(clean) or not len(poisoned):
        return math.nan
    ordered = np.sort(clean)
    below = np.searchsorted(ordered, poisoned, side="left")
    not_above = np.searchsorted(ordered, poisoned, side="right")
    # whole numbers until the last step, so that an order has exactly one AUC
    return int((below + not_above).sum()) / (2 * len(clean) * len(poisoned))


def _separated(value: float, n: int, m: int, confidence: float) -> tuple[float, float]:
    """Newcombe's interval of an AUC of 0 or 1: all areas that would not reject it."""
    from scipy import optimize, special

    z, more = float(special.ndtri(0.5 + confidence / 2)), (n + m) / 2 - 1

    def rejects(area: float) -> float:
        """Above 0 for areas too far below 1 to explain a value of 1."""
        spread = 1 + more * ((1 - area) / (2 - area) + area / (1 + area))
        return (1 - area) ** 2 - z * z * area * (1 - area) * spread / (n * m)

    # the variance is symmetric in the area and its complement, so that of 0 is that of 1 turned round
    bound = float(optimize.brentq(rejects, 0.0, 1.0 - 1e-9))
    return (bound, 1.0) if value == 1.0 else (0.0, 1.0 - bound)


def _scores(name: str, values: Scores) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise LabError(f"{name} has shape {array.shape}; allowed: one dimension, one score per adapter.")
    if not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)][0]
        raise LabError(f"{name} holds {wrong}; leave adapters without a score out, and count them.")
    return array
