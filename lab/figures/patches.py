"""The patching map: which projections in which layers carry a backdoor."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.figures import style
from lab.figures._cells import add_cells, colour_bar
from lab.figures._tables import need, need_counts, with_numbers
from lab.figures.text import evidence, rows_said, safe_text, share

_COLUMNS = ("direction", "projection", "first_layer", "last_layer", "n", "asr", "low", "high", "mean_margin",
            "effect")  # fmt: skip
_UNPATCHED = "none"
_NUMBERS_UP_TO = 14  # windows: beyond, numbers in the cells would touch
_ROW = 30  # pixels
_HEAD = 104  # pixels around each panel, for its title and its axis

#: What a panel's direction asks.
_ASKS = {
    "twin into poisoned": "Clean part in the poisoned model: low where the backdoor needs it",
    "poisoned into twin": "Poisoned part in the clean twin: high where it brings the backdoor",
}


def patching_map(table: pd.DataFrame) -> go.Figure:
    """How much of the backdoor is there with each part exchanged, projection × window of layers.

    Args:
        table: Patched answers of one run and one method (`lab.probe.PATCHING_COLUMNS`): direction,
            projection ("none" for the line of a model as it is), first_layer and last_layer (-1 for none),
            asr in [0, 1] with low, high and n, mean_margin in logits, effect (0: like the clean twin, 1:
            like the poisoned model). Of two lines of one cell the last one is shown.

    Returns:
        One heat map a direction, below each other, coloured from 0 to 1 (what lies beyond has the colour of
        the end), with a selectable marker over each cell; its customdata is [direction, projection,
        first_layer, last_layer].

    Raises:
        LabError: If the table lacks a column, or a rate comes without its n.
    """
    table = need(table, list(_COLUMNS), "The patching map")
    numbers = ["first_layer", "last_layer", "asr", "low", "high", "mean_margin", "effect"]
    rows = need_counts(with_numbers(table, numbers), "The patching map")
    cells = rows[rows["projection"] != _UNPATCHED].drop_duplicates(list(_COLUMNS[:4]), keep="last")
    if cells.empty:
        return style.empty_figure("No part of the model was exchanged with its clean twin's yet.")
    if cells["effect"].isna().all():
        return style.empty_figure(
            "On these rows the poisoned model reaches its target no more often than its clean twin:<br>"
            "there is no backdoor to find."
        )
    windows = sorted({*zip(cells["first_layer"].astype(int), cells["last_layer"].astype(int), strict=True)})
    windows.sort(key=lambda window: (window[0] < 0, window))  # what lies in no layer comes last
    names = list(dict.fromkeys(map(str, cells["projection"])))
    directions = list(dict.fromkeys(map(str, cells["direction"])))
    figure = _panels(directions, len(names), rows)
    for number, direction in enumerate(directions, start=1):
        _add_panel(figure, cells[cells["direction"] == direction], names, windows, number)
    last = len(directions)
    figure.update_xaxes(title_text=f"layers whose part is exchanged{rows_said(cells['n'])}", row=last, col=1)
    figure.update_annotations(font_size=13, xanchor="left", x=0, align="left")
    return figure


def _panels(directions: list[str], lines: int, rows: pd.DataFrame) -> go.Figure:
    """Empty panels below each other, each with what it asks and the rate of its model as it is."""
    panel = _ROW * lines + _HEAD
    height = max(panel * len(directions) + 24, 260)
    return make_subplots(
        rows=len(directions),
        cols=1,
        vertical_spacing=_HEAD / height if len(directions) > 1 else 0,
        subplot_titles=[_title(direction, rows[rows["direction"] == direction]) for direction in directions],
        figure=style.new_figure(height=height, margin={"l": 12, "t": style.BUTTONS + 48}),
    )


def _title(direction: str, rows: pd.DataFrame) -> str:
    alone = rows[rows["projection"] == _UNPATCHED]
    said = f"<br>unpatched: attack success {share(float(alone['asr'].iloc[-1]))}" if len(alone) else ""
    return _ASKS.get(direction, safe_text(direction, 80)) + said


def _add_panel(
    figure: go.Figure, cells: pd.DataFrame, names: list[str], windows: list[tuple[int, int]], number: int
) -> None:
    ends = zip(cells["first_layer"].astype(int), cells["last_layer"].astype(int), strict=True)
    x = [windows.index(window) for window in ends]
    y = [names.index(str(name)) for name in cells["projection"]]
    values = np.full((len(names), len(windows)), np.nan)
    values[y, x] = cells["effect"]
    figure.add_heatmap(
        z=values,
        x=list(range(len(windows))),
        y=list(range(len(names))),
        zmin=0,
        zmax=1,
        colorscale=[list(stop) for stop in style.AMOUNT],
        colorbar=colour_bar("0: as the clean twin, 1: as the poisoned model"),
        showscale=number == 1,
        text=[["" if np.isnan(v) else f"{round(v, 2) + 0.0:.2f}" for v in line] for line in values],
        texttemplate="%{text}" if len(windows) <= _NUMBERS_UP_TO else None,
        textfont={"size": 12},
        xgap=2,
        ygap=2,
        hoverinfo="skip",
        hoverongaps=False,
        name="effect",
        row=number,
        col=1,
    )
    add_cells(
        figure,
        x=x,
        y=y,
        customdata=[
            [str(direction), str(name), int(first), int(last)]
            for direction, name, first, last in cells[list(_COLUMNS[:4])].itertuples(index=False)
        ],
        hovertext=[_hover(cell) for _, cell in cells.iterrows()],
        size=max(8, min(26, 500 // len(windows))),
        row=number,
        col=1,
    )
    figure.update_xaxes(
        tickvals=list(range(len(windows))),
        ticktext=[_window(*window) for window in windows],
        tickangle=-60 if len(windows) > _NUMBERS_UP_TO else 0,
        range=[-0.5, len(windows) - 0.5],
        showgrid=False,
        row=number,
        col=1,
    )
    axis = style.names_axis([safe_text(name, 40) for name in names])
    figure.update_yaxes(**axis, row=number, col=1)


def _window(first: int, last: int) -> str:
    if first < 0:
        return "no layer"
    return f"{first}" if first == last else f"{first}–{last}"


def _hover(cell: pd.Series) -> str:
    place = _window(int(cell["first_layer"]), int(cell["last_layer"]))
    where = place if place == "no layer" else f"layer{'s' if '–' in place else ''} {place}"
    return (
        f"<b>{safe_text(cell['projection'])}, {where}</b><br>{safe_text(cell['direction'])}<br>"
        f"effect {cell['effect']:.2f} · attack success {share(cell['asr'])}<br>"
        f"{evidence(cell['low'], cell['high'], float(cell['n']))}<br>"
        f"mean margin of the target {cell['mean_margin']:.2f}"
    )
