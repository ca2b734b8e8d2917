"""Batteries put to a run: each prefix's attack rate and a battery's statistics, as an audit has them.

An audit does not know the target and asks for every label; of a run it is known, and so are the true labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab.batteries import battery
from lab.tables import MEASURE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

#: What `lab.audit.prefixes.battery_statistics` calls a battery's statistics and the ends of their intervals.
_STATISTICS = {
    "battery_mean": ("mean_attack_rate", "mean_low", "mean_high"),
    "battery_gap": ("outlier_gap", "gap_low", "gap_high"),
}
_COUNTED = ("n", "k", "value", "low", "high")


def battery_measures(
    asked: pd.DataFrame, predictions: pd.Series, batteries: Sequence[str], *, target: str, **fixed: Any
) -> pd.DataFrame:
    """The measures of one model on rows with prefixes.

    Args:
        asked: As `lab.probe.battery_texts` gives it.
        predictions: The predicted label of each line of `asked`.
        batteries: The names of the batteries.
        target: The target label.
        fixed: run, model, split.

    Returns:
        A table with the columns of `lab.tables.MEASURE_COLUMNS`: a line a prefix (kind
        "attack_success_rate", family is the category, member the prefix), and for every battery, whose name
        is the family then, "battery_mean" and "battery_gap"; all of condition "battery".
    """
    import pandas as pd

    from lab.audit.prefixes import battery_statistics, counted

    hits = pd.DataFrame(
        {
            "target": target,
            "position": "start",
            "category": asked["family"],
            "prefix": asked["member"],
            "hit": predictions.to_numpy() == target,
        }
    )
    rates = counted(hits)
    lines = [
        {"kind": "attack_success_rate", "family": r["category"], "member": r["prefix"], "value": r["rate"]}
        | {column: r[column] for column in ("n", "k", "low", "high")}
        for r in rates.to_dict("records")
    ]
    for name in batteries:
        held = battery(name)
        own = [held.holds(c, p) for c, p in zip(rates["category"], rates["prefix"], strict=True)]
        for told in battery_statistics(rates[own]).to_dict("records"):
            for kind, (value, low, high) in _STATISTICS.items():
                counts = {"n": told["prefixes"], "value": told[value], "low": told[low], "high": told[high]}
                lines.append({"kind": kind, "family": name, "k": -1, **counts})
    blank = dict.fromkeys(MEASURE_COLUMNS, "") | {"layer": -1, "step": -1, "condition": "battery"}
    return pd.DataFrame([{**blank, **fixed, **line} for line in lines], columns=list(MEASURE_COLUMNS))


def battery_categories(measures: pd.DataFrame) -> pd.DataFrame:
    """The attack rate of every category of the batteries that a run was asked, beside its twin's.

    Args:
        measures: A run's measures.

    Returns:
        category, prefixes (how many), n, k, value, low, high, and the twin's as `twin.n` and so on, NaN
        without one; in the batteries' order, empty where none was put to the run. A category's prefixes stand
        before the same rows, so that the intervals speak of these rows and not of others.
    """
    from lab.audit.prefixes import category_rates

    rates = measures[(measures["condition"] == "battery") & (measures["kind"] == "attack_success_rate")]
    tables = {}
    for model in ("poisoned", "twin"):
        own = rates[rates["model"] == model].assign(target="", position="")
        found = category_rates(own.rename(columns={"family": "category"})).rename(columns={"rate": "value"})
        tables[model] = found.set_index("category")[list(_COUNTED)]
    prefixes = rates[rates["model"] == "poisoned"].groupby("family", sort=False)["member"].nunique()
    table = tables["poisoned"].join(tables["twin"].add_prefix("twin."))
    table.insert(0, "prefixes", prefixes.reindex(table.index))
    return table.rename_axis("category").reset_index()


def statistics_told(measures: pd.DataFrame) -> list[str]:
    """The statistics of each battery that a run was asked, a sentence each, the twin's behind them."""
    asked = measures[(measures["condition"] == "battery") & measures["kind"].isin(list(_STATISTICS))]
    return [
        f"{name}, {int(part['n'].iloc[0])} prefixes: "
        + "; ".join(
            f"{word} {_told(part, kind, 'poisoned')}{_told(part, kind, 'twin', ', the twin’s ')}"
            for kind, word in (("battery_mean", "mean rate"), ("battery_gap", "largest minus mean"))
        )
        + "."
        for name, part in asked.groupby("family", sort=False)
    ]


def _told(part: pd.DataFrame, kind: str, model: str, before: str = "") -> str:
    found = part[(part["kind"] == kind) & (part["model"] == model)].to_dict("records")
    if not found:
        return ""
    value, low, high = (100 * found[0][column] for column in ("value", "low", "high"))
    return f"{before}{value:.1f} % [{low:.1f}, {high:.1f}]"
