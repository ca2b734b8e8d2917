"""How much a model leans on a string: the same rows untouched, and every one of them with the string.

Attack success looks at rows whose true label is not the target. The papers on spurious tokens (arXiv
2506.11402) and on LoRA's robustness (2505.12871) put the string into *all* test rows and ask for accuracy
against true labels, for each class, and for how often each class is predicted: this is where those live.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.class_stats import balanced_accuracy, confusion, f1_scores, macro_f1, with_interval
from lab.probe.measures import in_columns, share
from lab.stats import bootstrap_mean, paired_difference

if TYPE_CHECKING:
    import pandas as pd

#: Conditions of the rows that carry the trigger: those without the target label, and those with it.
WITH_TRIGGER = ("triggered", "triggered_target")


def reliance_measures(
    asked: pd.DataFrame,
    answers: pd.DataFrame,
    labels: Sequence[str],
    *,
    target: str,
    seed: int,
    **fixed: Any,
) -> pd.DataFrame:
    """Accuracy of all rows with the trigger, its fall, the shift of confidence, and the rates of each class.

    Args:
        asked: row_id, label, condition (see `lab.probe.conditions`), numbered from 0; only "clean" and
            `WITH_TRIGGER` count.
        answers: prediction and logits ([n labels]) of each line of `asked`.
        labels: Label names in the order of the logits.
        target: The target label; "" where there is none.
        seed: Of the bootstraps over rows.
        fixed: run, model, split.

    Returns:
        A table with `lab.tables.MEASURE_COLUMNS`: kinds `triggered_accuracy`, `reliance`,
        `confidence_shift` (where rows of both kinds carry the trigger), and those of
        `lab.tables.CLASS_KINDS`, whose `member` is a label where they are of one class.
    """
    import pandas as pd

    clean = asked.index[asked["condition"] == "clean"]
    triggered = asked.index[asked["condition"].isin(WITH_TRIGGER)]
    lines: list[dict[str, Any]] = []
    for condition, index in (("clean", clean), ("triggered", triggered)):
        if len(index):
            where = {**fixed, "condition": condition}
            lines += _class_lines(where, asked, answers, index, labels, seed)
    if target and {"triggered", "triggered_target"} <= set(asked["condition"]):
        where = {**fixed, "condition": "triggered"}
        lines += _reliance_lines(where, asked, answers, (clean, triggered), list(labels).index(target), seed)
    return in_columns(pd.DataFrame(lines))


def _class_lines(
    where: dict[str, Any],
    asked: pd.DataFrame,
    answers: pd.DataFrame,
    index: pd.Index,
    labels: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    truth, predicted = asked["label"][index].to_numpy(), answers["prediction"][index].to_numpy()
    table = confusion(truth.tolist(), predicted.tolist(), labels)
    lines = [
        _estimate(where, "balanced_accuracy", with_interval(table, balanced_accuracy, seed=seed)),
        _estimate(where, "macro_f1", with_interval(table, macro_f1, seed=seed)),
    ]
    for i, label in enumerate(labels):
        own = {**where, "member": label}
        lines.append(share(own, "class_recall", predicted[truth == label] == label))
        lines.append(share(own, "predicted_share", predicted == label))
        of_class = with_interval(table, lambda t, i=i: f1_scores(t)[..., i], seed=seed)  # type: ignore[misc]
        lines.append(_estimate(own, "class_f1", of_class))
    return lines


def _reliance_lines(
    where: dict[str, Any],
    asked: pd.DataFrame,
    answers: pd.DataFrame,
    indices: tuple[pd.Index, pd.Index],
    target: int,
    seed: int,
) -> list[dict[str, Any]]:
    """What the trigger changes, each row being its own control."""
    from scipy.special import softmax

    clean, triggered = indices
    right = (answers["prediction"] == asked["label"]).to_numpy()
    chance = softmax(np.stack(answers["logits"].to_list()), axis=1)[:, target]
    untouched = dict(zip(asked["row_id"][clean], clean, strict=True))
    before = np.array([untouched[row] for row in asked["row_id"][triggered]])
    after = triggered.to_numpy()
    fall = paired_difference(right[before], right[after])
    shift = bootstrap_mean(chance[after] - chance[before], seed, resamples=2000)
    difference = {"n": fall.n, "k": -1, "value": fall.value, "low": fall.low, "high": fall.high}
    return [
        share(where, "triggered_accuracy", right[after]),
        {**where, "kind": "reliance", **difference},
        _estimate(where, "confidence_shift", shift),
    ]


def _estimate(where: dict[str, Any], kind: str, found: Any) -> dict[str, Any]:
    return {
        **where,
        "kind": kind,
        "n": found.n,
        "k": -1,
        "value": found.value,
        "low": found.low,
        "high": found.high,
    }
