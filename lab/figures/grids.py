"""The rate map: one rate over a grid of two settings, such as rank × poison count."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab import stats
from lab.errors import LabError, unknown_name
from lab.figures import style
from lab.figures._cells import add_cells, colour_bar
from lab.figures._dose_axis import Doses
from lab.figures._tables import need, with_numbers
from lab.figures.text import evidence, points, rows_said, safe_text, share
from lab.tables import DIFFERENCES

#: The rates of a run and, under `twin.`, of its twin: name, and the colour from none to all of it.
_PALE = style.AMOUNT[0][1]
_RATES = {
    "attack_success_rate": ("attack success rate", style.AMOUNT),
    "excess_asr": ("excess ASR", style.LESS_MORE),
    "reliance": ("accuracy lost by the trigger", style.LESS_MORE),
    "triggered_accuracy": (
        "accuracy with the trigger",
        ((0.0, _PALE), (1.0, style.COLOURS["clean_accuracy"])),
    ),
    "untriggered_target_rate": (
        "untriggered target rate",
        ((0.0, _PALE), (1.0, style.COLOURS["untriggered"])),
    ),
    "clean_accuracy": ("clean accuracy", ((0.0, _PALE), (1.0, style.COLOURS["clean_accuracy"]))),
}
_OF_TWIN = ((0.0, _PALE), (1.0, style.COLOURS["twin"]))
_TWIN = ("attack_success_rate", "reliance", "triggered_accuracy", "untriggered_target_rate", "clean_accuracy")


def rate_map(
    table: pd.DataFrame,
    x: str = "adapter.rank",
    y: str = "poison.count",
    value: str = "attack_success_rate",
) -> go.Figure:
    """A rate for every pair of two settings; runs of one cell are averaged.

    Args:
        table: One line per run, as `lab.sweep` and `lab.list_runs` return them: columns x, y, the rate and,
            where they exist, `<value>.low`, `<value>.high`, `<value>.n`, seed (shown on hover) and run, or
            id. A run that stands in several lines of a cell counts once; lines without x or y are left out.
        x: The setting of the columns. Numbers rise from left to right, anything else stands as it appears.
        y: The setting of the lines. Numbers rise upwards, names begin on top.
        value: One of "attack_success_rate", "excess_asr" (percentage points over the twin),
            "reliance" (points of accuracy lost), "triggered_accuracy", "untriggered_target_rate",
            "clean_accuracy"; `twin.` before it is the twin's.

    Returns:
        A heat map with a number in every cell that was measured and "no run" or "no rate" in the others, and
        a selectable marker over every cell with customdata [x, y, run ids with commas].

    Raises:
        LabError: If the table lacks x, y or the rate, both settings are one, or the value is no rate.
    """
    allowed = [*_RATES, *[f"twin.{kind}" for kind in _TWIN]]
    if value not in allowed:
        raise unknown_name("rate", value, allowed)
    if x == y:
        raise LabError(f"x and y are both {x!r}; a map needs two settings.")
    if table.empty:
        return style.empty_figure("There is no run to show yet.")
    rows = with_numbers(need(table, [x, y, value], "The rate map"), [value])
    rows = rows.dropna(subset=[x, y])
    if rows[value].isna().all():
        return style.empty_figure("No run has both settings and this rate yet.")
    rows = rows.assign(**{key: _plain(rows[key]) for key in (x, y)}, _run=_ids(rows))
    across, up = Doses(rows[x]), Doses(rows[y])
    lines: dict[tuple[Any, Any], list[_Line]] = {}
    for place, line in zip(zip(rows[x], rows[y], strict=True), _lines(rows, value), strict=True):
        lines.setdefault(place, []).append(line)
    cells = {
        (i, j): _cell(lines.get((column, line), []))
        for j, line in enumerate(up.values)
        for i, column in enumerate(across.values)
    }
    figure = _heat_map(cells, across, up, value)
    add_cells(
        figure,
        x=[column for column, _ in cells],
        y=[line for _, line in cells],
        customdata=[[across.values[i], up.values[j], cell["runs"]] for (i, j), cell in cells.items()],
        hovertext=[
            _hover(cell, f"{_said(x)} {_label(across, i)}, {_said(y)} {_label(up, j)}", value)
            for (i, j), cell in cells.items()
        ],
    )
    _label_axes(figure, (x, across), (y, up))
    return figure


def _plain(column: pd.Series) -> pd.Series:
    """Numbers as they are; lists of defenses and the like as words, so that they can be told apart."""
    return column if pd.api.types.is_numeric_dtype(column) else column.map(str)


def _ids(rows: pd.DataFrame) -> pd.Series:
    """The runs' ids; lines of a table without them count as runs of their own."""
    for column in ("run", "id"):
        if column in rows:
            return rows[column].fillna("").astype(str)
    return pd.Series("", index=rows.index)


class _Line(NamedTuple):
    """What a cell needs of a line; NaN where it does not say."""

    run: str
    seed: Any
    value: float
    low: float
    high: float
    n: float


def _lines(rows: pd.DataFrame, value: str) -> Iterator[_Line]:
    """Every line, taken out of the table once: a look at a part of a table for each cell takes far longer."""
    nothing = pd.Series(math.nan, index=rows.index)
    numbers = [
        pd.to_numeric(rows.get(name, nothing), errors="coerce").astype(float).tolist()
        for name in (value, f"{value}.low", f"{value}.high", f"{value}.n")
    ]
    seeds = rows["seed"].tolist() if "seed" in rows else [None] * len(rows)
    return itertools.starmap(_Line, zip(rows["_run"], seeds, *numbers, strict=True))


def _cell(lines: Sequence[_Line]) -> dict[str, Any]:
    """What a cell shows: value, low, high, n, counts of runs and seeds, ids; NaN where there is none."""
    firsts: dict[str, _Line] = {}
    for line in lines:
        firsts.setdefault(line.run, line)
    # a failed run has no id, and there is nothing to open
    lines = [line for line in lines if not line.run or firsts[line.run] is line]
    known = [line for line in lines if not math.isnan(line.value)]
    cell = {"value": math.nan, "low": math.nan, "high": math.nan, "n": math.nan}
    if len(known) == 1:
        [one] = known
        ends = {part: getattr(one, part) for part in ("low", "high", "n")}
        cell |= {part: end if math.isfinite(end) else math.nan for part, end in ends.items()}
        cell["value"] = one.value
    elif known:
        mean = stats.bootstrap_mean([line.value for line in known], seed=0, resamples=4000)
        cell |= {"value": mean.value, "low": mean.low, "high": mean.high}
        counts = [line.n for line in known if not math.isnan(line.n)]
        cell["n"] = sum(counts) if counts else math.nan
    seeds = {line.seed for line in known if line.seed is not None and line.seed == line.seed}
    ids = ",".join(run for run in firsts if run)
    return {**cell, "lines": len(lines), "measured": len(known), "seeds": len(seeds), "runs": ids}


def _heat_map(
    cells: Mapping[tuple[int, int], Mapping[str, Any]], across: Doses, up: Doses, value: str
) -> go.Figure:
    """The colours with their numbers, and words where there is nothing to colour."""
    shape = (len(up.values), len(across.values))
    values = np.full(shape, math.nan)
    for (column, line), cell in cells.items():
        values[line, column] = cell["value"]
    excess = value.removeprefix("twin.") in DIFFERENCES
    name, scale = _RATES[value.removeprefix("twin.")]
    scale = _OF_TWIN if value.startswith("twin.") else scale
    figure = style.new_figure(height=max(190 + 44 * shape[0], 300), margin={"l": 12, "t": 36})
    form = (lambda v: points(v, 0)) if excess else (lambda v: share(v, 0).removesuffix(" %"))
    figure.add_heatmap(
        z=values,
        x=list(range(shape[1])),
        y=list(range(shape[0])),
        zmin=-1 if excess else 0,
        zmax=1,
        colorscale=[list(stop) for stop in scale],
        text=[["" if np.isnan(v) else form(v) for v in row] for row in values],
        texttemplate="%{text}",
        textfont={"size": 12},
        xgap=2,
        ygap=2,
        hoverinfo="skip",
        hoverongaps=False,
        colorbar=_bar(f"{_owner(value)}{name}", [cell["n"] for cell in cells.values()], excess),
        name="map",
    )
    empty = [place for place, cell in cells.items() if not cell["measured"]]
    figure.add_scatter(
        x=[column for column, _ in empty],
        y=[line for _, line in empty],
        mode="text",
        text=["no rate" if cells[place]["lines"] else "no run" for place in empty],
        textfont={"size": 11, "color": style.INK},
        hoverinfo="skip",
        showlegend=False,
        name="missing",
    )
    return figure


def _bar(name: str, n: list[float], excess: bool) -> dict[str, object]:
    title = f"{name}{', points' if excess else ''}{rows_said(n)}"
    if not excess:
        return colour_bar(title, tickformat=".0%")
    ends = [-1, -0.5, 0, 0.5, 1]
    return colour_bar(title, tickvals=ends, ticktext=[points(end, 0) for end in ends])


def _hover(cell: Mapping[str, Any], place: str, value: str) -> str:
    head = f"<b>{place}</b>"
    if not cell["measured"]:
        said = "run, but without this rate" if cell["lines"] else "no run here"
        return f"{head}<br>{said}"
    name = f"{_owner(value)}{_RATES[value.removeprefix('twin.')][0]}"
    excess = value.removeprefix("twin.") in DIFFERENCES
    told = f"{points(cell['value'])} points" if excess else share(cell["value"])
    based = evidence(cell["low"], cell["high"], cell["n"], cell["measured"], signed=excess)
    lines = [head, f"{name} {told}", based]
    runs, seeds = cell["measured"], cell["seeds"]
    if seeds:
        lines.append(f"{seeds} seed{'s' if seeds > 1 else ''}")
        if runs > seeds:
            lines[-1] += f", {runs} runs: they differ in more than the seed"
    return "<br>".join(lines)


def _owner(value: str) -> str:
    return "clean twin's " if value.startswith("twin.") else ""


def _said(key: str) -> str:
    """`poison count` for `poison.count`."""
    return safe_text(key.replace(".", " ").replace("_", " "))


def _label(doses: Doses, place: int) -> str:
    dose = doses.values[place]
    return safe_text(f"{dose:g}" if isinstance(dose, float) else dose, 32)


def _label_axes(figure: go.Figure, x: tuple[str, Doses], y: tuple[str, Doses]) -> None:
    """Every cell is named: places are numbers and names mere labels, evenly spaced."""
    (x_key, across), (y_key, up) = x, y
    columns, lines = len(across.values), len(up.values)
    figure.update_xaxes(
        title_text=_said(x_key),
        tickvals=list(range(columns)),
        ticktext=[_label(across, i) for i in range(columns)],
        range=[-0.5, columns - 0.5],
        tickangle=-40 if not across.numbers and columns > 6 else 0,
        showgrid=False,
        zeroline=False,
    )
    names = style.names_axis([_label(up, i) for i in range(lines)])
    if up.numbers:
        names["range"] = [-0.5, lines - 0.5]
    figure.update_yaxes(title_text=_said(y_key), **names)
