"""The number that answers a claim: from finished runs of this machine's folder, else from committed lines.

Nothing is trained and no model is loaded. Over seeds, a mean has the bootstrap interval of `lab.stats`; a
difference is taken seed by seed; a trend is a rank correlation over all cells. A committed line has its own
interval; of the difference of two of them, whose seeds were not kept, the two are put together by the method
of variance estimates recovery (Zou and Donner, Statistics in Medicine 27 (2008), 1693), as if independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import stats
from lab.errors import LabError
from lab.files import read_json
from lab.paper_cards.claims import FAMILY_MEASURES, Claim, PaperClaims, Quantity, Source
from lab.paper_cards.matching import Columns, matching_runs
from lab.paths import data_dir

if TYPE_CHECKING:
    import pandas as pd

    from lab.experiment import Experiment

HERE, COMMITTED, NOWHERE = "this machine", "committed", ""
#: One line per claim: what answers it, where it was measured, on which seeds; `result_table` makes it.
RESULT_COLUMNS = ("claim", "value", "low", "high", "n", "seeds", "held", "machine", "runs")


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


def result_table(claims: PaperClaims, listing: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """What is known of every claim of a paper: one line each, `RESULT_COLUMNS`.

    Args:
        claims: The paper's.
        listing: Its runs, as `lab.list_runs` lists them.
        runs: The folder they lie in, for measures that no listing has.
    """
    import pandas as pd

    here = _Here(claims.sources, listing, runs)
    lines = committed_lines(claims.paper.arxiv)
    table = []
    for claim in claims.claims:
        found = _answer(claim, claims.sources, here, lines)
        own = [getattr(found, name) for name in RESULT_COLUMNS[1:]]
        table.append([claim.id, *own])
    return pd.DataFrame(table, columns=list(RESULT_COLUMNS))


def committed_lines(arxiv: str) -> dict[str, Evidence]:
    """The committed numbers of a paper, `data/reference/<arxiv>.csv`, by claim id; {} without such a file."""
    import pandas as pd

    path = data_dir() / "reference" / f"{arxiv}.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path, dtype={"seeds": str, "claim_id": str, "machine": str})
    table = table.assign(n=table["n"].fillna(0).astype(int)).fillna({"seeds": "", "machine": ""})
    return {str(line["claim_id"]): _committed(line) for line in table.to_dict("records")}


def _committed(line: Mapping[Any, Any]) -> Evidence:
    value, low, high = (float(line[name]) for name in ("value", "low", "high"))
    return Evidence(value, low, high, int(line["n"]), str(line["seeds"]), COMMITTED, str(line["machine"]))


def line_names(quantity: Quantity, source: Source) -> list[str]:
    """The committed lines that answer a quantity, as `benchmarks/sweep_table.py` names them."""
    if quantity.lines:
        return list(quantity.lines)
    start = source.lines or quantity.source
    if quantity.trend:
        arm = str(quantity.of.get("arm", ""))
        return [".".join(filter(None, [start, arm, f"trend of {quantity.measure} with {quantity.trend}"]))]
    first = ".".join([start, *_words(quantity.of)])
    if quantity.minus_measure:
        return [f"{first}.{quantity.measure}", f"{first}.{quantity.minus_measure}"]
    names = [f"{first}.{quantity.measure}"]
    if quantity.minus is not None:
        names.append(".".join([start, *_words(quantity.minus), quantity.measure]))
    return names


def _words(point: Mapping[str, Any]) -> list[str]:
    arm = [str(point["arm"])] if "arm" in point else []
    return arm + [f"{key.rpartition('.')[2]}={value}" for key, value in point.items() if key != "arm"]


def _answer(
    claim: Claim, sources: Mapping[str, Source], here: _Here, lines: Mapping[str, Evidence]
) -> Evidence:
    if claim.quantity is None:
        return NOTHING
    found = here.answer(claim.quantity)
    if not math.isnan(found.low):
        return found
    committed = from_lines(claim.quantity, sources[claim.quantity.source], lines)
    # one or two seeds of one's own say less than a committed interval, and more than nothing
    return found if math.isnan(committed.value) else committed


def from_lines(quantity: Quantity, source: Source, lines: Mapping[str, Evidence]) -> Evidence:
    """What committed lines say of a quantity; nothing where one of them is missing."""
    names = line_names(quantity, source)
    if any(name not in lines for name in names):
        return NOTHING
    first = lines[names[0]]
    if quantity.trend:
        low, high = stats.correlation_interval(first.value, first.n)
        return replace(first, low=low, high=high)
    if len(names) == 1:
        return first
    pairs = [_by_base(name, lines) for name in names]
    shared = [seed for seed in pairs[0] if seed in pairs[1]]
    if len(shared) >= stats.FEWEST:
        mean = stats.bootstrap_mean([pairs[0][s] - pairs[1][s] for s in shared], seed=0)
        return replace(first, value=mean.value, low=mean.low, high=mean.high)
    return difference(first, lines[names[1]])


def _by_base(name: str, lines: Mapping[str, Evidence]) -> dict[str, float]:
    """The single seeds' numbers of a line, where they were kept."""
    start = f"{name}.base"
    return {key.removeprefix(start): line.value for key, line in lines.items() if key.startswith(start)}


def difference(one: Evidence, other: Evidence) -> Evidence:
    """One number minus another, their intervals put together as if they were independent."""
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return replace(one, value=value, low=low, high=high, n=min(one.n, other.n))


class _Here:
    """What the runs folder holds for the sources of a paper; each source's cells are looked for once."""

    def __init__(self, sources: Mapping[str, Source], listing: pd.DataFrame, runs: Path) -> None:
        self._sources, self._listing, self._runs = sources, listing, runs
        self._cells: dict[str, pd.DataFrame] = {}

    def answer(self, quantity: Quantity) -> Evidence:
        """What finished runs say of a quantity; nothing where a cell is missing."""
        source = self._sources[quantity.source]
        if not source.runs or self._listing.empty:
            return NOTHING
        if quantity.source not in self._cells:
            self._cells[quantity.source] = finished_cells(source, self._listing)
        cells = self._cells[quantity.source]
        if cells.empty:
            return NOTHING
        if quantity.trend and not self._is_whole(quantity, cells):
            return NOTHING
        if quantity.measure in FAMILY_MEASURES or quantity.minus_measure in FAMILY_MEASURES:
            cells = _with_families(cells, self._runs)
        return from_cells(quantity, cells)

    def _is_whole(self, quantity: Quantity, cells: pd.DataFrame) -> bool:
        """Whether every point of a trend has the seeds that an interval needs: half a sweep has none."""
        values = self._sources[quantity.source].plan().over.get(quantity.trend, [])
        own = _at(cells, quantity.of)
        points = [_at(own, {quantity.trend: value}) for value in values]
        return all(len(point) and point["seed"].nunique() >= stats.FEWEST for point in points)


def finished_cells(source: Source, listing: pd.DataFrame) -> pd.DataFrame:
    """The finished cells of a source's plan: the listing's lines with arm and swept keys as asked for.

    Args:
        source: A sweep or preset.
        listing: Runs as `lab.list_runs` lists them.

    Returns:
        Of every point and seed one line; the keys of the point are in columns `point.<key>`.
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
            found = _one_a_seed(table, asked, free)
            shown = {**({"point.arm": arm} if arm else {}), **{f"point.{k}": v for k, v in point.items()}}
            parts.append(found.assign(**{k: [v] * len(found) for k, v in shown.items()}))
    return pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)


def _one_a_seed(table: Columns, asked: Experiment, free: Sequence[str]) -> pd.DataFrame:
    """The runs of a cell, one for each seed; of several tuned values, those that most seeds share."""
    found = matching_runs(table, asked, free)
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
    rows = own[f"{measure}.n"].sum() if f"{measure}.n" in own else 0
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


def _with_families(cells: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """The cells with what their results say of other strings than the trained one."""
    told = [(read_json(runs / str(name) / "result.json") or {}) for name in cells["id"]]
    means = [_families(result) for result in told]
    columns = {kind: [mean.get(kind, math.nan) for mean in means] for kind in FAMILY_MEASURES}
    return cells.assign(**columns)


def _families(result: Mapping[str, Any]) -> dict[str, float]:
    """Of the probes on test rows, the last that looked at other strings."""
    found: dict[str, float] = {}
    for probe in result.get("probes", {}).values():
        if isinstance(probe, dict) and probe.get("split") == "test" and probe.get("families"):
            found = {k: float(v) for k, v in probe["families"].items()}
    return found


def check_quantity(quantity: Quantity, source: Source) -> None:
    """Refuse a quantity that its source cannot answer.

    Raises:
        LabError: An unknown measure, arm, key or value.
    """
    from lab.errors import unknown_name
    from lab.tables import MEASURE_KINDS

    if not source.runs:
        return
    plan = source.plan()
    for measure in filter(None, (quantity.measure, quantity.minus_measure)):
        known = [*MEASURE_KINDS, *(f"twin.{kind}" for kind in MEASURE_KINDS), *FAMILY_MEASURES]
        if measure not in known:
            raise unknown_name("measure", measure, known)
    if quantity.trend and quantity.trend not in plan.over:
        raise unknown_name(f"swept key of {quantity.source}", quantity.trend, plan.over)
    for point in (quantity.of, quantity.minus or {}):
        for key, value in point.items():
            allowed = list(plan.arms or {}) if key == "arm" else plan.over.get(key)
            if not allowed or value not in allowed:
                raise LabError(f"{quantity.source}: {key} = {value!r}; allowed: {allowed or 'nothing'}.")
