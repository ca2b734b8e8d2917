"""The table that says how good the detectors are: by their scores of a cohort, and its key.

Direction, weights and thresholds come from the calibration part alone; the test part is counted once. An
adapter of which a detector says nothing (all texts get one label, say) raises no alarm: if it is poisoned, it
was missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lab.audit.cohort_builds import cohort_folder, key_table
from lab.audit.cohort_scores import score_table
from lab.audit.cohorts import PARTS, find_cohort
from lab.audit.detectors import DETECTORS, Detector, LinearScore, Numbers, fit_score, left_out_scores
from lab.detector_stats import choose_direction, choose_threshold, judge_detector
from lab.errors import LabError
from lab.paths import expanded

if TYPE_CHECKING:
    import pandas as pd


def judge_cohort(
    name: str | Path = "minilm",
    *,
    folder: str | Path | None = None,
    calibrated_by: str | Path | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How well each detector tells the test part's poisoned adapters from its clean ones.

    Args:
        name: The cohort's name or file.
        folder: Its folder, `cohorts/<name>` if not given.
        calibrated_by: The folder of another cohort, whose calibration part serves, and whose clean test
            adapters stand for those that this one lacks.
        seed: Of the bootstrap intervals.

    Returns:
        A line a detector, and for each of the two allowed shares of false alarms, 0 and 5 % of the clean
        calibration adapters: detector, direction (1: high is suspicious), auc with low and high (95 %),
        allowed, threshold, recall and false_positives as `k`, `n`, value, low, high (95 % Clopper–Pearson) on
        test adapters; left_out, how many test adapters it says nothing of. Detectors whose statistics were
        not measured are left out.

    Raises:
        LabError: No adapter was measured, or the calibration part lacks clean or poisoned ones.
    """
    import pandas as pd

    lines = []
    for detector, table in _scored(name, folder, calibrated_by).items():
        found = judge_detector(
            *(_of(table, part, poisoned) for part in PARTS for poisoned in (False, True)), seed=seed
        )
        silent = int(table.loc[table["part"] == "test", "score"].isna().sum())
        for point in found.points:
            line: dict[str, Any] = {"detector": detector.name, "direction": table["direction"].iloc[0]}
            line |= {"auc": found.auc.value, "auc.low": found.auc.low, "auc.high": found.auc.high}
            line |= {"allowed": point.allowed, "threshold": point.threshold}
            for kind, share in (("recall", point.recall), ("false_positives", point.false_positives)):
                line |= {kind: share.value, f"{kind}.k": share.k, f"{kind}.n": share.n}
                line |= {f"{kind}.low": share.low, f"{kind}.high": share.high}
            lines.append({**line, "left_out": silent})
    return pd.DataFrame(lines)


def recall_by(
    column: str,
    detector: str = "combined",
    *,
    name: str | Path = "minilm",
    folder: str | Path | None = None,
    calibrated_by: str | Path | None = None,
    allowed: float = 0.05,
) -> pd.DataFrame:
    """The recall of one detector on the test part, for every value of a column of the key.

    Args:
        column: "family", "rank", "count", "position" …
        detector: One of `DETECTORS`.
        name: The cohort's name or file.
        folder: Its folder.
        calibrated_by: As in `judge_cohort`.
        allowed: Share of clean calibration adapters that may raise an alarm.

    Returns:
        The column, n, k, recall with low and high (95 % Clopper–Pearson).

    Raises:
        LabError: There is no such column or detector, or nothing was measured.
    """
    import pandas as pd

    from lab.registry import lookup
    from lab.stats import clopper_pearson

    wanted = lookup(DETECTORS, detector, "detector")
    table = _scored(name, folder, calibrated_by, [wanted]).get(wanted)
    if table is None or column not in table:
        raise LabError(f"There is no {column!r} of {detector!r}: was it measured (`lab cohort score`)?")
    threshold = choose_threshold(_of(table, "calibration", False), allowed)
    poisoned = table[(table["part"] == "test") & table["poisoned"]]
    lines = []
    for value, group in poisoned.groupby(column):
        k, n = int((group["score"] > threshold).sum()), len(group)
        low, high = clopper_pearson(k, n)
        lines.append({column: value, "n": n, "k": k, "recall": k / n, "low": low, "high": high})
    return pd.DataFrame(lines)


def learned_score(
    detector: Detector, name: str | Path, folder: str | Path | None
) -> tuple[LinearScore, npt.NDArray[np.bool_]]:
    """The weights of a detector by all calibration adapters, and which of these are poisoned."""
    table = _measured(cohort_folder(find_cohort(name), folder))
    table = table[table["part"] == "calibration"]
    values = _values(detector, table)
    known, poisoned = np.isfinite(values).all(axis=1), table["poisoned"].to_numpy()
    return fit_score(values[known], poisoned[known]), poisoned[known]


def _of(table: pd.DataFrame, part: str, poisoned: bool) -> Numbers:
    """The scores of a part's adapters; where there is none, of the test part, lower than all others."""
    scores = table.loc[(table["part"] == part) & (table["poisoned"] == poisoned), "score"]
    found = scores.fillna(table["score"].min() - 1) if part == "test" else scores.dropna()
    out: Numbers = found.to_numpy(dtype=float)
    return out


def _scored(
    name: str | Path,
    folder: str | Path | None,
    calibrated_by: str | Path | None,
    detectors: Iterable[Detector] | None = None,
) -> dict[Detector, pd.DataFrame]:
    """For each detector that was measured, the key with a column "score", high for suspicious, and NaN."""
    import pandas as pd

    table = _measured(cohort_folder(find_cohort(name), folder))
    if calibrated_by is not None:
        other = _measured(expanded(calibrated_by).absolute())
        table = pd.concat([table, other[(other["part"] == "calibration") | ~other["poisoned"]]])
        table = table.reset_index(drop=True)
    out = {}
    for detector in tuple(DETECTORS.values()) if detectors is None else detectors:
        if set(detector.statistics) <= set(table.columns):
            direction, scores = _scores(detector, table)
            out[detector] = table.assign(score=scores, direction=direction)
    return out


def _measured(place: Path) -> pd.DataFrame:
    """The key's lines of the adapters that were measured, with their statistics."""
    key = key_table(place)
    table = key[key["state"] == "sealed"].merge(score_table(place), on="id", how="inner")
    return table.assign(poisoned=table["poisoned"].astype(bool))


def _scores(detector: Detector, table: pd.DataFrame) -> tuple[int, Numbers]:
    """The direction that calibration adapters show, and every score, turned so that high is suspicious."""
    values = _values(detector, table)
    known = np.isfinite(values).all(axis=1)
    chosen = known & (table["part"] == "calibration").to_numpy()
    poisoned = table["poisoned"].to_numpy()
    if len(set(poisoned[chosen])) < 2:
        raise LabError(f"{detector.name}: the calibration part lacks measured clean or poisoned adapters.")
    scores = np.full(len(table), np.nan)
    if len(detector.statistics) > 1:
        scores[known] = fit_score(values[chosen], poisoned[chosen])(values[known])
        scores[chosen] = left_out_scores(values[chosen], poisoned[chosen])
    else:
        scores[known] = values[known, 0]
    direction = choose_direction(scores[chosen & ~poisoned], scores[chosen & poisoned])
    return direction, direction * scores


def _values(detector: Detector, table: pd.DataFrame) -> Numbers:
    """What a detector rests on; adapters × statistics."""
    return np.column_stack(
        [
            _relative(table, s) if s.startswith("weights.") else table[s].to_numpy(dtype=float)
            for s in detector.statistics
        ]
    )


def _relative(table: pd.DataFrame, statistic: str) -> Numbers:
    """A statistic in robust standard deviations from the clean calibration adapters of the same group.

    Of an adapter that is one of them, from the others.
    """
    from scipy.stats import median_abs_deviation

    bag = (table["part"] == "calibration") & ~table["poisoned"]
    out = np.full(len(table), np.nan)
    for place, line in enumerate(table.itertuples()):
        others = table[bag & (table["group"] == line.group) & (table["id"] != line.id)][statistic].dropna()
        spread = float(median_abs_deviation(others, scale="normal")) if len(others) else 0.0
        if spread > 0:
            out[place] = (table[statistic].iloc[place] - float(others.median())) / spread
    return out
