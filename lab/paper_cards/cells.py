"""The cells of a source, and what they say: runs of a listing, or lines that a pass has left.

Nothing is trained and no model is loaded. Over seeds, a mean has the bootstrap interval of `lab.stats`; a
difference is taken seed by seed; a trend is a rank correlation over all cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import stats
from lab.paper_cards.claims import Quantity, Source
from lab.paper_cards.matching import Columns, matching_runs
from lab.paper_cards.probed import as_probed

if TYPE_CHECKING:
    import pandas as pd

HERE, COMMITTED, NOWHERE = "this machine", "committed", ""


@dataclass(frozen=True)
class Evidence:
    """A number with what it rests on.

    Attributes:
        value: A share, a difference of shares in [-1, 1], an AUC, or a rank correlation; NaN for nothing.
        low: Lower end of its 95 % interval, NaN where there is none.
        high: Upper end.
        n: Rows of all seeds together; of a trend, cells. 0 where that is not known.
        seeds: Which.
        held: `HERE`, `COMMITTED` or `NOWHERE`.
        machine: Where committed numbers were measured.
        runs: Ids of the runs, with commas.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    seeds: str = ""
    held: str = NOWHERE
    machine: str = ""
    runs: str = ""


NOTHING = Evidence()


class Cells:
    """Cells of a paper's sources from one place; each source's are looked for once.

    Args:
        sources: The paper's.
        find: Gives the cells of a source, as `finished_cells` does, by its name.
    """

    def __init__(self, sources: Mapping[str, Source], find: Callable[[str], pd.DataFrame]) -> None:
        self._sources, self._find = sources, find
        self._found: dict[str, pd.DataFrame] = {}

    def answer(self, quantity: Quantity) -> Evidence:
        """What they say of a quantity; nothing where a cell is missing."""
        if not self._sources[quantity.source].runs:
            return NOTHING
        if quantity.source not in self._found:
            self._found[quantity.source] = self._find(quantity.source)
        cells = self._found[quantity.source]
        if cells.empty or (quantity.trend and not self._is_whole(quantity, cells)):
            return NOTHING
        return from_cells(quantity, cells)

    def _is_whole(self, quantity: Quantity, cells: pd.DataFrame) -> bool:
        """Whether every point of a trend has the seeds that an interval needs: half a sweep has none."""
        values = self._sources[quantity.source].plan().over.get(quantity.trend, [])
        own = _at(cells, quantity.of)
        points = [_at(own, {quantity.trend: value}) for value in values]
        return all(len(point) and point["seed"].nunique() >= stats.FEWEST for point in points)


def finished_cells(source: Source, listing: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """The finished cells of a source's plan: the listing's lines with arm and swept keys as asked for.

    Args:
        source: A sweep or preset.
        listing: Runs as `lab.list_runs` lists them.
        runs: The folder that they lie in, which says how each was probed.

    Returns:
        Of every point and seed one line, with what the probing measured that the plan asks for; the keys of
        the point are in columns `point.<key>`.
    """
    import pandas as pd

    from lab.sweeps import grid_points

    plan = source.plan()
    free = list((plan.tune or {}).get("over", {}))
    # most folders hold nothing of a sweep, which a look at what all of its cells share finds out at once
    fits = listing[listing["state"] == "finished"]
    for key in ("data.name", "data.rows"):
        asked = plan.experiment.to_dict()["data"][key.partition(".")[2]]
        if key not in plan.over and key in fits:
            fits = fits[fits[key] == asked]
    if fits.empty:
        return fits
    # the other lines stay within reach: bases are among them, with other rows
    bases = listing[listing["id"].isin(set(fits["base.model"]))]
    table = Columns(pd.concat([fits, bases]).drop_duplicates("id"))
    parts = []
    for arm, keys in (plan.arms or {"": {}}).items():
        for point in grid_points(plan.over):
            asked = plan.experiment.with_(**{**keys, **point})
            probed = as_probed(matching_runs(table, asked, free), asked, runs, twin=source.twin)
            found = _one_a_seed(probed, free)
            shown = {**({"point.arm": arm} if arm else {}), **{f"point.{k}": v for k, v in point.items()}}
            parts.append(found.assign(**{k: [v] * len(found) for k, v in shown.items()}))
    return pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)


def _one_a_seed(found: pd.DataFrame, free: Sequence[str]) -> pd.DataFrame:
    """The runs of a cell, one for each seed; of several tuned values, those that most seeds share."""
    if found.empty:
        return found
    kept = [key for key in free if key in found]
    if kept:
        groups = [group for _, group in found.groupby(kept, dropna=False)]
        found = max(groups, key=lambda group: group["seed"].nunique())
    return found.sort_values("created", ascending=False).drop_duplicates("seed").sort_values("seed")


def from_cells(quantity: Quantity, cells: pd.DataFrame) -> Evidence:
    """What a table of finished cells says of a quantity.

    Args:
        quantity: What is asked.
        cells: As `finished_cells` gives them.

    Returns:
        Nothing where a measure or a point is missing.
    """
    if quantity.trend:
        return _trend(quantity, cells)
    first = _at(cells, quantity.of)
    if quantity.measure not in first or first[quantity.measure].isna().all():
        return NOTHING
    if quantity.minus is None and not quantity.minus_measure:
        own = first.dropna(subset=[quantity.measure])
        return _mean(own, own[quantity.measure].tolist(), quantity.measure)
    measure = quantity.minus_measure or quantity.measure
    second = first if quantity.minus is None else _at(cells, quantity.minus)
    if measure not in second:
        return NOTHING
    other = second[["seed", measure]].rename(columns={measure: "other"})
    both = first.merge(other, on="seed").dropna(subset=[quantity.measure, "other"])
    if both.empty:
        return NOTHING
    return _mean(both, (both[quantity.measure] - both["other"]).tolist(), quantity.measure)


def _mean(own: pd.DataFrame, values: list[float], measure: str) -> Evidence:
    mean = stats.bootstrap_mean(values, seed=0)
    counts = own.get(f"{measure}.n")
    rows = 0 if counts is None or counts.isna().any() else counts.sum()
    return Evidence(mean.value, mean.low, mean.high, int(rows), _seeds(own), HERE, "", _ids(own))


def _trend(quantity: Quantity, cells: pd.DataFrame) -> Evidence:
    own = _at(cells, quantity.of)
    key = f"point.{quantity.trend}"
    if key not in own or quantity.measure not in own:
        return NOTHING
    own = own.dropna(subset=[quantity.measure])
    if own[key].nunique() < stats.FEWEST:
        return NOTHING
    # the p-value would load scipy.stats, which takes longer than a page may take
    rho = float(own[key].astype(float).rank().corr(own[quantity.measure].astype(float).rank()))
    if math.isnan(rho):
        return NOTHING
    rho = min(max(rho, -1.0), 1.0)
    low, high = stats.correlation_interval(rho, len(own))
    return Evidence(rho, low, high, len(own), _seeds(own), HERE, "", _ids(own))


def _at(cells: pd.DataFrame, point: Mapping[str, Any]) -> pd.DataFrame:
    for key, value in point.items():
        column = f"point.{key}"
        if column not in cells:
            return cells.iloc[:0]
        cells = cells[[held == value for held in cells[column]]]
    return cells


def _seeds(own: pd.DataFrame) -> str:
    return " ".join(str(int(seed)) for seed in sorted(set(own["seed"])))


def _ids(own: pd.DataFrame) -> str:
    return ",".join(own["id"])
