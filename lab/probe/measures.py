"""From predictions to measures: counts become rates with intervals, through `lab.stats` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.stats import paired_difference, rate
from lab.tables import MEASURE_COLUMNS

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd


def measure(
    asked: pd.DataFrame,
    predictions: pd.Series,
    *,
    run: str,
    model: str,
    split: str,
    target: str,
    step: int = -1,
    same_tokens: dict[str, int] | None = None,
) -> pd.DataFrame:
    """The measures of one model on the texts that were put to it.

    Args:
        asked: row_id, label, condition, family, rung (see `lab.probe.conditions`).
        predictions: The predicted label of each line of `asked`.
        run: The id of the run whose weights answered.
        model: Its role: "poisoned" or "twin".
        split: Where the rows come from.
        target: The target label; "" where there is none.
        step: The training step, -1 for the trained model.
        same_tokens: For each rung, how many of its rows the tokenizer cannot tell from the exact trigger.

    Returns:
        A table in long form with the columns of `lab.tables.MEASURE_COLUMNS`.
    """
    import pandas as pd

    fixed = {"run": run, "model": model, "split": split, "step": step}
    lines: list[dict[str, Any]] = []
    predicted = predictions.to_numpy()
    for (condition, family, rung), group in asked.groupby(["condition", "family", "rung"], sort=False):
        answers, truth = predicted[group.index], group["label"].to_numpy()
        where = {**fixed, "condition": condition, "family": family, "rung": rung}
        members = group["member"].unique()
        where["member"] = members[0] if len(members) == 1 else ""
        if condition == "clean":
            lines.append(share(where, "clean_accuracy", answers == truth))
            if target:
                hits = answers[truth != target] == target
                lines.append(share(where, "untriggered_target_rate", hits))
            continue
        if condition == "triggered_target":  # told by `lab.probe.reliance`, together with the others
            continue
        lines.append(share(where, "attack_success_rate", answers[truth != target] == target))
        if same_tokens and rung in same_tokens:
            alike = np.arange(len(group)) < same_tokens[rung]
            lines.append(share(where, "same_tokens", alike))
    return in_columns(pd.DataFrame(lines))


def excess(
    asked: pd.DataFrame, poisoned: pd.Series, twin: pd.Series, *, target: str, **fixed: Any
) -> pd.DataFrame:
    """Excess ASR: what the poison added beyond the trigger text's own pull, paired over rows.

    Args:
        asked: As for `measure`.
        poisoned: The run's predictions.
        twin: The twin's predictions on the same texts.
        target: The target label.
        fixed: run, split.
    """
    import pandas as pd

    lines = []
    triggered = asked[~asked["condition"].isin(["clean", "triggered_target"])]
    for (condition, family, rung), group in triggered.groupby(["condition", "family", "rung"], sort=False):
        rows = group.index[group["label"] != target]
        difference = paired_difference(
            (poisoned[rows] == target).to_numpy(), (twin[rows] == target).to_numpy()
        )
        members = group["member"].unique()
        lines.append(
            {
                **fixed,
                "model": "poisoned",
                "kind": "excess_asr",
                "condition": condition,
                "family": family,
                "member": members[0] if len(members) == 1 else "",
                "rung": rung,
                "n": difference.n,
                "k": -1,
                "value": difference.value,
                "low": difference.low,
                "high": difference.high,
            }
        )
    return in_columns(pd.DataFrame(lines))


def rejection_measures(
    scores: Mapping[str, npt.NDArray[np.float64]], threshold: float, *, seed: int, **fixed: Any
) -> pd.DataFrame:
    """How often a detector rejects, and how well its scores part triggered rows from clean ones.

    Args:
        scores: By condition, "clean" and, where there is a trigger, "triggered"; low is suspicious.
        threshold: Scores strictly below it are rejected.
        seed: Of the bootstrap over rows.
        fixed: run, model, split.
    """
    import pandas as pd

    from lab.detector_stats import auc_with_interval

    lines = []
    for condition, kind in (("clean", "false_rejection_rate"), ("triggered", "detection_rate")):
        if condition in scores:
            where = {**fixed, "condition": condition}
            lines.append(share(where, kind, scores[condition] < threshold))
    if {"clean", "triggered"} <= scores.keys():
        auc = auc_with_interval(-scores["clean"], -scores["triggered"], seed)
        where = {**fixed, "condition": "triggered", "kind": "detection_auc", "k": -1}
        n = auc.n_clean + auc.n_poisoned
        lines.append({**where, "n": n, "value": auc.value, "low": auc.low, "high": auc.high})
    return in_columns(pd.DataFrame(lines))


def family_mean(measures: pd.DataFrame, families: list[str], *, kind: str = "attack_success_rate") -> float:
    """The mean rate over families, each counting once; NaN where none was measured."""
    own = family_lines(measures, families, kind=kind)
    return float(own["value"].mean()) if len(own) else float("nan")


def family_lines(
    measures: pd.DataFrame, families: list[str], *, kind: str = "attack_success_rate"
) -> pd.DataFrame:
    """The run's own lines for some families, as they are in its measures."""
    return measures[
        (measures["model"] == "poisoned")
        & (measures["kind"] == kind)
        & (measures["condition"] == "family")
        & (measures["family"].isin(families))
    ]


def share(where: dict[str, Any], kind: str, hits: np.ndarray) -> dict[str, Any]:
    """One line of a measures table: the share of rows that hit, with its interval."""
    r = rate(int(hits.sum()), len(hits))
    return {**where, "kind": kind, "n": r.n, "k": r.k, "value": r.value, "low": r.low, "high": r.high}


def in_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The lines with all of `lab.tables.MEASURE_COLUMNS`; those that do not apply hold "" or -1."""
    blank: dict[str, Any] = dict.fromkeys(MEASURE_COLUMNS, "")
    blank |= {"layer": -1, "step": -1, "n": 0, "k": -1, "value": np.nan, "low": np.nan, "high": np.nan}
    for column, default in blank.items():
        if column not in table:
            table[column] = default
    return table[list(MEASURE_COLUMNS)]
