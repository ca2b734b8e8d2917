"""The number that answers a claim: from finished runs of this machine's folder, else a committed one.

Nothing is trained and no model is loaded. Of committed numbers, the cells of a pass (`passes`) are read as
runs are. What no pass holds may be a line of `data/reference/`, which has its own interval; of the difference
of two of them, whose seeds were not kept, the two are put together by the method of variance estimates
recovery (Zou and Donner, Statistics in Medicine 27 (2008), 1693), as if independent.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import stats
from lab.errors import LabError
from lab.paper_cards.cells import COMMITTED, NOTHING, Cells, Evidence, finished_cells
from lab.paper_cards.claims import FAMILY_MEASURES, PaperClaims, Quantity, Source
from lab.paper_cards.passes import read_pass
from lab.paths import data_dir

if TYPE_CHECKING:
    import pandas as pd

#: One line per claim: what answers it, where it was measured, on which seeds; `result_table` makes it.
RESULT_COLUMNS = ("claim", "value", "low", "high", "n", "seeds", "held", "machine", "runs")


def result_table(claims: PaperClaims, listing: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """What is known of every claim of a paper: one line each, `RESULT_COLUMNS`.

    Args:
        claims: The paper's.
        listing: Its runs, as `lab.list_runs` lists them.
        runs: The folder they lie in, for measures that no listing has.
    """
    import pandas as pd

    here = Cells(claims.sources, functools.partial(_cells_here, claims, listing, runs))
    committed = _Committed(claims)
    table = []
    for claim in claims.claims:
        found = _answer(claim.quantity, here, committed) if claim.quantity else NOTHING
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


def _cells_here(claims: PaperClaims, listing: pd.DataFrame, runs: Path, name: str) -> pd.DataFrame:
    """The cells of a source among the runs of a folder, with all that claims ask of it."""
    if listing.empty:
        return listing
    return finished_cells(claims.sources[name], listing, runs)


def _answer(quantity: Quantity, here: Cells, committed: _Committed) -> Evidence:
    found = here.answer(quantity)
    if not math.isnan(found.low):
        return found
    kept = committed.answer(quantity)
    # one or two seeds of one's own say less than a committed interval, and more than nothing
    return found if math.isnan(kept.value) else kept


class _Committed:
    """The committed numbers of a paper: a pass where one holds what is asked, else lines."""

    def __init__(self, claims: PaperClaims) -> None:
        import pandas as pd

        self._sources = claims.sources
        self._passed = read_pass(claims.paper.arxiv)
        self._cells = Cells(claims.sources, lambda name: self._passed.get(name, pd.DataFrame()))
        self._lines = committed_lines(claims.paper.arxiv)

    def answer(self, quantity: Quantity) -> Evidence:
        """What they say of a quantity."""
        found = self._cells.answer(quantity)
        if math.isnan(found.low):
            return from_lines(quantity, self._sources[quantity.source], self._lines)
        machine = str(self._passed[quantity.source]["machine"].iloc[0])
        return replace(found, held=COMMITTED, machine=machine, runs="")


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
