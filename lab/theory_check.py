"""Where theory and measurement part: kernels before training against what poison did, cell by cell.

    kernels = lab.kernel_table("rfc-citation", [(r, 1/3) for r in (1, 4, 16, 64)], draws=3)
    runs = lab.sweep("rfc-citation", {"adapter.rank": [1, 4, 16, 64]}, seeds=3)
    compare_with_theory(kernels, runs)

arXiv 2505.12871 says that LoRA's kernel is full fine-tuning's and something negative, which less rank and
less variance make larger; so LoRA resists backdoors better (lower attack success) and wrong labels worse
(lower clean accuracy) the further its kernel, or the information in it, lies below. Every measure in
`PREDICTED` should order cells as the measured rates do. One limit is known before any training: where B is
zero, variance scales LoRA's kernel and leaves its shape, so that entropies of a normalised spectrum do not
know it. The paper's closed forms, which rise with variance, are of sums that are not normalised.

Only order is compared: the theory is of gradient
descent with small steps, training here is AdamW, and small ranks may simply have learned less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab import stats
from lab.errors import LabError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

#: 1: what is measured rises with it, if theory holds; -1: it falls.
PREDICTED = {
    "trace_ratio": 1,
    "full_cka": 1,
    "poison_kernel": 1,
    "renyi_entropy_1": 1,
    "renyi_entropy_2": 1,
    "shift_largest": 1,
    "shift_share_negative": -1,
    "paper_entropy_1": 1,
    "paper_entropy_2": 1,
}
#: What is measured. Clean accuracy is robustness only where labels were flipped.
OUTCOMES = ("attack_success_rate", "excess_asr", "clean_accuracy")

PAIR_COLUMNS = ("measure", "outcome", "rank", "init_variance", "predicted", "predicted.n", "measured", "low",
                "high", "runs", "n")  # fmt: skip
CHECK_COLUMNS = ("measure", "outcome", "expected", "cells", "rho", "low", "high", "p", "verdict")

_CELL = ("rank", "init_variance")


def prediction_pairs(
    kernels: pd.DataFrame, runs: pd.DataFrame, measure: str, outcome: str = "attack_success_rate"
) -> pd.DataFrame:
    """A prediction and a measurement for each cell of rank and variance that both tables have.

    Args:
        kernels: As `lab.kernel_table` gives it; LoRA's lines at the start, for all layers together.
        runs: One line per run, as `lab.sweep` gives it: adapter.rank, adapter.init_variance (each may be left
            out if the kernels have one value of it), the outcome, and where there are some `<outcome>.low`,
            `.high` and `.n`. Give one arm at a time.
        measure: One of `PREDICTED`.
        outcome: One of `OUTCOMES`.

    Returns:
        `PAIR_COLUMNS`: predicted is the mean over seeds and draws of A, predicted.n how many; measured the
        mean over `runs` runs with its interval (over seeds from three on; of a single run its own; else
        missing), n the rows in all.

    Raises:
        LabError: An unknown measure or outcome, or a table that lacks a column.
    """
    import pandas as pd

    if measure not in PREDICTED:
        raise unknown_name("prediction", measure, PREDICTED)
    if outcome not in OUTCOMES:
        raise unknown_name("measured outcome", outcome, OUTCOMES)
    predicted = _predictions(kernels, measure)
    measured = _measurements(runs, outcome, predicted)
    lines = []
    for rank, variance in sorted(set(zip(predicted["rank"], predicted["init_variance"], strict=True))):
        values = predicted.loc[_in_cell(predicted, rank, variance), "value"]
        own = measured[_in_cell(measured, rank, variance)]
        if len(own):
            cell = (measure, outcome, int(rank), variance, float(values.mean()), len(values))
            lines.append((*cell, *_mean(own, outcome)))
    return pd.DataFrame(lines, columns=list(PAIR_COLUMNS))


def compare_with_theory(
    kernels: pd.DataFrame,
    runs: pd.DataFrame,
    outcomes: Sequence[str] = ("attack_success_rate",),
    measures: Sequence[str] = tuple(PREDICTED),
) -> pd.DataFrame:
    """Every prediction against what was measured, with a verdict.

    Args:
        kernels: As for `prediction_pairs`.
        runs: As for `prediction_pairs`.
        outcomes: Which of `OUTCOMES`.
        measures: Which of `PREDICTED`; those that the kernels do not have are left out.

    Returns:
        `CHECK_COLUMNS`: expected is the sign that theory gives rho, Spearman's rank correlation over the
        cells, with its 95 % interval and permutation p. verdict: "agree" or "part" where the interval lies
        on theory's or on the other side of 0, "cannot say" where it holds 0, and "n too small" below four
        cells or where all are alike.

    Raises:
        LabError: As `prediction_pairs`.
    """
    import pandas as pd

    known = set(kernels["measure"]) if "measure" in kernels else set()
    lines = []
    for outcome in outcomes:
        for measure in measures:
            if measure in PREDICTED and measure not in known:
                continue
            pairs = prediction_pairs(kernels, runs, measure, outcome).dropna(subset=["predicted", "measured"])
            found = stats.rank_correlation(pairs["predicted"].to_numpy(), pairs["measured"].to_numpy())
            said = verdict(found, PREDICTED[measure])
            numbers = (found.n, found.rho, found.low, found.high, found.p)
            lines.append((measure, outcome, PREDICTED[measure], *numbers, said))
    return pd.DataFrame(lines, columns=list(CHECK_COLUMNS))


def verdict(found: stats.RankCorrelation, expected: int) -> str:
    """What a rank correlation says of a prediction: "agree", "part", "cannot say" or "n too small"."""
    if math.isnan(found.rho):
        return "n too small"
    low, high = (found.low, found.high) if expected > 0 else (-found.high, -found.low)
    if low > 0:
        return "agree"
    return "part" if high < 0 else "cannot say"


def _predictions(kernels: pd.DataFrame, measure: str) -> pd.DataFrame:
    wanted = ("at", "kernel", "layer", "measure", *_CELL, "value")
    if missing := [column for column in wanted if column not in kernels]:
        raise LabError(f"The kernels lack the column {missing[0]!r}; lab.kernel_table gives such a table.")
    at_start = (kernels["at"] == "start") & (kernels["kernel"] == "lora") & (kernels["layer"] == -1)
    return kernels[at_start & (kernels["measure"] == measure)]


def _measurements(runs: pd.DataFrame, outcome: str, predicted: pd.DataFrame) -> pd.DataFrame:
    """The runs with the outcome, and with rank and init_variance under the kernels' names."""
    if outcome not in runs:
        raise LabError(f"The runs lack the column {outcome!r}; lab.sweep gives such a table.")
    found = runs[runs[outcome].notna()]
    for name in _CELL:
        key = f"adapter.{name}"
        if key in found:
            found = found.assign(**{name: found[key].astype(float)})
        elif predicted[name].nunique() > 1:
            raise LabError(f"The runs lack the column {key!r}, and the kernels have several values of it.")
        else:
            found = found.assign(**{name: predicted[name].iloc[0] if len(predicted) else math.nan})
    return found


def _in_cell(table: pd.DataFrame, rank: float, variance: float) -> pd.Series:
    """Which lines are of a cell; variances may differ by the digits that a file leaves out."""
    return (table["rank"] == rank) & ((table["init_variance"] - variance).abs() <= 1e-6 * variance)


def _mean(own: pd.DataFrame, outcome: str) -> tuple[float, float, float, int, float]:
    """Mean, interval, number of runs and of rows."""
    rows = float(own[f"{outcome}.n"].sum()) if f"{outcome}.n" in own else math.nan
    if len(own) == 1:
        low, high = (float(own[f"{outcome}.{end}"].iloc[0]) if f"{outcome}.{end}" in own else math.nan
                     for end in ("low", "high"))  # fmt: skip
        return float(own[outcome].iloc[0]), low, high, 1, rows
    mean = stats.bootstrap_mean(own[outcome].to_numpy(dtype=float), seed=0)
    return mean.value, mean.low, mean.high, mean.n, rows
