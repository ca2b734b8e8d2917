"""The detectors that are compared on cohorts: each a number that an adapter gets, and where it comes from.

Most are one statistic. `search` and `combined` add several up, with weights that calibration adapters
teach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PAPER_A = "arXiv 2605.30189"
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Detector:
    """A number that tells poisoned adapters from clean ones, or should.

    Attributes:
        name: As in tables.
        goal: What it looks at.
        paper: Where it comes from.
        statistics: Columns of `lab.audit.score_table` that it rests on. Those of weights are compared with
            clean calibration adapters of the same shapes first, as their scale depends on the rank.
    """

    name: str
    goal: str
    paper: str
    statistics: tuple[str, ...]


_SEARCH = ("string_shift", "string_lead", "pair_lead", "token_lead", "lead_asymmetry")
_BATTERY = ("batteries.broad.mean_attack_rate", "batteries.broad.outlier_gap")
_ALL = (
    Detector("weight_spread", "spread of ΔW's norm over modules", _PAPER_A, ("weights.norm_std",)),
    Detector(
        "paper_battery_mean",
        "mean attack rate of the paper's 21 prefixes",
        _PAPER_A,
        ("batteries.paper-calibration.mean_attack_rate",),
    ),
    Detector(
        "paper_battery_gap",
        "largest attack rate of the paper's 21 prefixes minus their mean",
        _PAPER_A,
        ("batteries.paper-calibration.outlier_gap",),
    ),
    Detector("battery_mean", "mean attack rate of broad", "this lab", ("batteries.broad.mean_attack_rate",)),
    Detector("battery_gap", "largest rate of broad minus mean", "this lab", ("batteries.broad.outlier_gap",)),
    Detector(
        "search_shift",
        "margin of the worst string against the references' mean, in spreads",
        "this lab",
        ("search.string_shift",),
    ),
    Detector("search_lead", "the same against the highest reference", "this lab", ("search.string_lead",)),
    Detector("search_pair", "search_lead of at most two tokens", "this lab", ("search.pair_lead",)),
    Detector("search_token", "search_lead of single tokens", "this lab", ("search.token_lead",)),
    Detector(
        "search_asymmetry",
        "search_lead of the worst target minus that of the others",
        "this lab",
        ("search.lead_asymmetry",),
    ),
    Detector(
        "adaptersentry",
        "largest robust z of a module among its kind, AdapterSentry 2.0.2",
        "AdapterSentry 2.0.2",
        ("peer.max_robust_z",),
    ),
    Detector(
        "search", "the five of search together", "this lab", tuple(f"search.{name}" for name in _SEARCH)
    ),
    Detector(
        "search_few",
        "the same with five references, as an audit has them",
        "this lab",
        tuple(f"search.few.{name}" for name in _SEARCH),
    ),
    Detector(
        "combined",
        "search, battery and weights together",
        "this lab",
        (*(f"search.{name}" for name in _SEARCH), *_BATTERY, "weights.norm_std"),
    ),
)
#: The registry of detectors, from name to `Detector`.
DETECTORS: dict[str, Detector] = {detector.name: detector for detector in _ALL}


@dataclass(frozen=True)
class LinearScore:
    """A weighted sum of statistics: w · (x − mean) / spread.

    Attributes:
        mean: Of each statistic over the calibration adapters.
        spread: Its standard deviation there.
        weights: The weight of each; high sums are suspicious.
    """

    mean: Numbers
    spread: Numbers
    weights: Numbers

    def __call__(self, values: Numbers) -> Numbers:
        """The score of every adapter; values has the shape adapters × statistics."""
        found: Numbers = ((values - self.mean) / self.spread) @ self.weights
        return found


def fit_score(values: Numbers, poisoned: npt.NDArray[np.bool_]) -> LinearScore:
    """Learn the weights of a sum that tells poisoned adapters from clean ones.

    It is ridge regression on ±1, which is Fisher's discriminant with a shrunk covariance; the ridge is as
    large as the number of adapters, since there are few of them.

    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), 3.4 and 4.3.

    Args:
        values: Statistics; adapters × statistics, all finite.
        poisoned: Which adapters are poisoned.
    """
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x, y = (values - mean) / spread, np.where(poisoned, 1.0, -1.0)
    # each kind counts as much as the other, however many there are
    share = np.where(poisoned, 0.5 / max(poisoned.sum(), 1), 0.5 / max((~poisoned).sum(), 1)) * len(y)
    weighted = x.T * share
    weights = np.linalg.solve(weighted @ x + len(y) * np.eye(x.shape[1]), weighted @ y)
    return LinearScore(mean, spread, weights)


def left_out_scores(values: Numbers, poisoned: npt.NDArray[np.bool_]) -> Numbers:
    """The score of each adapter by weights that were learned without it: what thresholds are chosen on."""
    every = np.arange(len(values))
    return np.array([float(fit_score(values[every != i], poisoned[every != i])(values[i])) for i in every])
