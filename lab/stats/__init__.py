"""Counts become statements here, and only here: a value, how many it rests on, and how far it may be off.

Two kinds of uncertainty appear in the lab, and they are not exchangeable. *Which rows* were tested: a share
of n rows has a Wilson interval. *Which seed* was trained: a mean over seeds has a bootstrap interval, and
says "n too small" below three seeds, because two numbers cannot tell how far a third would lie.

An interval that cannot be given is NaN. That of a share is never of zero width; that of a mean over seeds is,
where all of them say the same. Impossible counts raise `LabError`.
"""

from __future__ import annotations

from lab.stats._values import FEWEST
from lab.stats.doses import DoseFit, fit_dose_response
from lab.stats.pairs import Difference, paired_difference
from lab.stats.seeds import Mean, bootstrap_mean
from lab.stats.shares import Rate, clopper_pearson, rate, wilson
from lab.stats.trends import (
    RankCorrelation,
    Trend,
    benjamini_hochberg,
    correlation_interval,
    rank_correlation,
    spearman_trend,
)

__all__ = [
    "FEWEST",
    "Difference",
    "DoseFit",
    "Mean",
    "RankCorrelation",
    "Rate",
    "Trend",
    "benjamini_hochberg",
    "bootstrap_mean",
    "clopper_pearson",
    "correlation_interval",
    "fit_dose_response",
    "paired_difference",
    "rank_correlation",
    "rate",
    "spearman_trend",
    "wilson",
]
