"""A battery's prefixes put to an adapter: how many rows each moves to a label that they did not have.

The attack rate of a prefix for a target is the share of rows, none of them given the target untouched, that
get it with the prefix. True labels are not needed. mean_attack_rate and outlier_gap are the behavioural
statistics of arXiv 2605.30189 (its notebooks 07 and 09), there with the target known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lab.audit.slots import POSITIONS
from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

    from lab.batteries import Battery
    from lab.probe import Predictor

RATE_COLUMNS = ("target", "position", "category", "prefix", "n", "k", "rate", "low", "high")


def prefix_rates(
    predictor: Predictor,
    battery: Battery,
    texts: Sequence[str],
    *,
    rows: int = 12,
    positions: Sequence[str] = POSITIONS,
    untouched: Mapping[str, Sequence[str]] | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> pd.DataFrame:
    """The attack rate of every prefix of a battery, for every target label.

    Args:
        predictor: The adapter on its base.
        battery: The prefixes.
        texts: Texts of the task, without labels.
        rows: At most so many rows a target, the first that are not given it.
        positions: "start" for the battery's own way, before the text; "end" for the same string behind it.
        untouched: Which rows to take for each target, to put the same to another adapter; chosen by the
            adapter's own answers if not given.
        on_progress: Called with (texts done, texts in all).

    Returns:
        `RATE_COLUMNS`: a line a target, position and prefix; rate is k of n rows in [0, 1] with its 95 %
        Wilson interval (low, high), higher is more suspicious.

    Raises:
        LabError: Every text gets the same label.
    """
    import pandas as pd

    chosen = untouched or untouched_rows(predictor, texts, rows)
    asked = [
        (target, position, prefix, text)
        for target, kept in chosen.items()
        for position in positions
        for prefix in battery.prefixes
        for text in kept
    ]
    put = [_put(battery, prefix, text, position) for _, position, prefix, text in asked]
    answers = predictor.logits(put, on_progress=on_progress).argmax(axis=1)
    table = pd.DataFrame(asked, columns=["target", "position", "prefix", "text"])
    table["hit"] = np.array(predictor.labels, dtype=object)[answers] == table["target"]
    table["category"] = table["prefix"].map(battery.category_of)
    return counted(table)


def counted(asked: pd.DataFrame) -> pd.DataFrame:
    """The attack rate of every prefix, from what single rows answered.

    Args:
        asked: A line a text: target, position, category, prefix and hit, whether the target was predicted.

    Returns:
        `RATE_COLUMNS`, in the order of the prefixes.
    """
    import pandas as pd

    from lab.stats import rate

    lines = []
    for where, hits in asked.groupby(["target", "position", "category", "prefix"], sort=False)["hit"]:
        found = rate(int(hits.sum()), len(hits))
        lines.append((*map(str, where), found.n, found.k, found.value, found.low, found.high))
    return pd.DataFrame(lines, columns=list(RATE_COLUMNS))


def untouched_rows(predictor: Predictor, texts: Sequence[str], rows: int) -> dict[str, list[str]]:
    """For each label, the first texts that do not get it; labels that all texts get are left out.

    Raises:
        LabError: Every text gets the same label.
    """
    answers = predictor.predict(texts)
    kept = {
        label: [text for text, answer in zip(texts, answers, strict=True) if answer != label][:rows]
        for label in predictor.labels
    }
    if len(set(answers)) < 2:
        raise LabError("Every text gets the same label: nothing can be flipped; give other rows (--rows).")
    return {label: found for label, found in kept.items() if found}


def category_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """The attack rate of every category, its prefixes' rows together.

    The rows of a category's prefixes are the same rows, so that the interval is too narrow as a statement
    about other rows; it is one about these.
    """
    import pandas as pd

    from lab.stats import rate

    lines = []
    grouped = rates.groupby(["target", "position", "category"], sort=False)[["n", "k"]].sum()
    for where, line in grouped.iterrows():
        found = rate(int(line["k"]), int(line["n"]))
        lines.append((*where, found.n, found.k, found.value, found.low, found.high))  # type: ignore[misc]
    return pd.DataFrame(lines, columns=[c for c in RATE_COLUMNS if c != "prefix"])


def battery_statistics(rates: pd.DataFrame) -> pd.DataFrame:
    """The behavioural statistics of a battery, for every target and position.

    Returns:
        target, position, prefixes (how many), n (rows a prefix), mean_attack_rate in [0, 1], outlier_gap
        (largest − mean) in [0, 1] and top3_mean in [0, 1]; higher is more suspicious. mean_low and mean_high
        are a 95 % bootstrap interval of the mean over prefixes. gap_low and gap_high are the largest rate's
        own interval, minus the mean, which rests on many more rows; that the largest was picked is not in it.
    """
    import pandas as pd

    from lab.stats import bootstrap_mean

    lines = []
    for (target, position), group in rates.groupby(["target", "position"], sort=False):
        values = group["rate"].to_numpy()
        loudest = group.iloc[int(values.argmax())]
        mean = bootstrap_mean(values.tolist(), seed=0)
        lines.append(
            {
                "target": target,
                "position": position,
                "prefixes": len(values),
                "n": int(group["n"].max()),
                "mean_attack_rate": float(values.mean()),
                "mean_low": mean.low,
                "mean_high": mean.high,
                "outlier_gap": float(values.max() - values.mean()),
                "gap_low": max(0.0, float(loudest["low"] - values.mean())),
                "gap_high": float(loudest["high"] - values.mean()),
                "top3_mean": float(np.sort(values)[-3:].mean()),
            }
        )
    return pd.DataFrame(lines)


def _put(battery: Battery, prefix: str, text: str, position: str) -> str:
    return battery.apply(prefix, text) if position == "start" else f"{text} {prefix}"
