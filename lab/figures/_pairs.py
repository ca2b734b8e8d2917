"""Named lines with two dots each: the poisoned model's rate and the twin's on the same rows.

The stretch between the two is what the poison added, so it is drawn too. Families and near-miss rungs are
both shown this way, and read the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._tables import pick, summarise
from lab.figures.text import evidence, share

_ROW = 27  # pixels: close enough to compare, far enough to read


def pairs(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """One line per value of `key` that the poisoned model was tested on.

    Args:
        rows: Lines of a measures table, both models.
        key: "family" or "rung".

    Returns:
        The columns of `summarise` for the poisoned model, and the same with `_twin` behind for the twin, NaN
        where it was not tested; in order of appearance.
    """
    poisoned = summarise(pick(rows, model="poisoned"), [key])
    twin = summarise(pick(rows, model="twin"), [key])
    return poisoned.merge(twin, on=key, how="left", suffixes=("", "_twin"))


def canvas(labels: Sequence[str], axis: str) -> go.Figure:
    """A figure with one named line per label and a percent axis, tall enough for all of them."""
    figure = style.new_figure(height=130 + _ROW * max(len(labels), 2))
    figure.update_xaxes(**style.percent_axis(axis))
    figure.update_yaxes(**style.names_axis(labels))
    figure.update_layout(margin={"l": 12, "r": 112})
    return figure


def add_twin(figure: go.Figure, lines: pd.DataFrame, places: Sequence[int], heads: Sequence[str]) -> None:
    """Draw the stretch from twin to poisoned, and the twin's tick; nothing where no twin was tested."""
    known = [i for i, value in enumerate(lines["value_twin"]) if not math.isnan(value)]
    if not known:
        return
    value, twin = lines["value"].tolist(), lines["value_twin"].tolist()
    figure.add_scatter(
        x=[x for i in known for x in (twin[i], value[i], None)],
        y=[y for i in known for y in (places[i], places[i], None)],
        mode="lines",
        line={"color": "rgba(128,128,128,0.30)", "width": 5},
        hoverinfo="skip",
        showlegend=False,
        name="excess",
    )
    figure.add_scatter(
        x=[twin[i] for i in known],
        y=[places[i] for i in known],
        mode="markers",
        marker={
            "symbol": "line-ns",
            "size": 15,
            "line": {"width": 3, "color": style.COLOURS["twin"]},
            "color": style.COLOURS["twin"],
        },
        cliponaxis=False,
        name="clean twin, same rows",
        legendrank=1001,  # after the poisoned model, over which it must not be drawn
        hovertext=[_hover(heads[i], "clean twin", lines.iloc[i], "_twin") for i in known],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def add_poisoned(
    figure: go.Figure,
    lines: pd.DataFrame,
    places: Sequence[int],
    heads: Sequence[str],
    keys: Sequence[str],
    name: str = "poisoned model",
    colour: str = style.COLOURS["poisoned"],
    symbol: str = "circle",
    size: int = 10,
) -> None:
    """Draw the poisoned model's dots with whiskers; customdata carries the key and the run ids, unescaped.

    Args:
        figure: Where to draw.
        lines: Lines of `pairs`.
        places: Their heights.
        heads: Safe text, the first line of each hover.
        keys: Family or rung, as in the table, for what a click opens.
        name: Of the trace, in the legend.
        colour: Of marks and whiskers.
        symbol: Plotly marker; "-open" draws it hollow.
        size: In pixels.
    """
    if lines.empty:
        return
    figure.add_scatter(
        x=lines["value"].tolist(),
        y=list(places),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": size, "line": {"width": 2, "color": colour}},
        error_x=style.whiskers(lines["value"], lines["low"], lines["high"], colour),
        cliponaxis=False,
        name=name,
        customdata=[[key, run] for key, run in zip(keys, lines["run"], strict=True)],
        hovertext=[
            _hover(head, "poisoned model", row, "")
            for head, (_, row) in zip(heads, lines.iterrows(), strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def add_values(figure: go.Figure, lines: pd.DataFrame, places: Sequence[int]) -> None:
    """Write each rate and its n at the right edge, so that a printed figure can be read off."""
    for place, value, n in zip(places, lines["value"], lines["n"], strict=True):
        said = share(value, 0) if math.isnan(n) else f"{share(value, 0)} of {int(n)}"
        figure.add_annotation(
            text=said, x=1, xref="paper", xanchor="left", xshift=12, y=place, showarrow=False
        )


def _hover(head: str, model: str, line: pd.Series, suffix: str) -> str:
    value, low, high, n, runs = (float(line[c + suffix]) for c in ("value", "low", "high", "n", "runs"))
    return f"<b>{head}</b><br>{model}: {share(value)}<br>{evidence(low, high, n, int(runs))}"
