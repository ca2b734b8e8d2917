"""A paper's claims as a forest: what was measured with its interval, and the paper's number beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._tables import need, with_numbers
from lab.figures.text import safe_text

_COLUMNS = ["claim", "says", "verdict", "expected", "paper_value", "value", "low", "high", "n", "measured"]
#: Colour and marker of a verdict: never told by colour alone, for its word stands at the line's end too.
_LOOKS = {
    "agrees": (style.COLOURS["clean_accuracy"], "circle"),
    "direction only": (style.COLOURS["untriggered"], "square"),
    "disagrees": (style.COLOURS["poisoned"], "x"),
    "cannot say": ("#0072B2", "triangle-up"),
}
_LINE = 60  # pixels: two lines of text, and the markers below them
_LONGEST = 50  # characters of a claim in a line: what a phone has room for


def claim_forest(card: pd.DataFrame) -> go.Figure:
    """A line per claim that has a number here, or one of the paper's: ours with interval, theirs, joined.

    Args:
        card: A card's table, `lab.paper_cards.CARD_COLUMNS`. Values are shares, differences of shares in
            [-1, 1], AUCs and rank correlations: all on one axis from -1 to 1.

    Returns:
        Ours as filled markers by verdict, theirs as open diamonds, a grey line between the two, 0 marked.
        customdata of a point of ours: [claim, value].

    Raises:
        LabError: If the table lacks a column.
    """
    rows = with_numbers(
        need(card, _COLUMNS, "A paper's claims"), ["paper_value", "value", "low", "high", "n"]
    )
    rows = rows[rows["value"].notna()].reset_index(drop=True)
    if rows.empty:
        return style.empty_figure("Nothing of this paper is measured yet; lab reproduce runs it.")
    figure = style.new_figure(height=style.BUTTONS + 90 + _LINE * len(rows))
    _add_dumbbells(figure, rows)
    for name, (colour, symbol) in _LOOKS.items():
        own = rows[rows["verdict"] == name]
        if len(own):
            _add_ours(figure, own, name, colour, symbol)
    theirs = rows[rows["paper_value"].notna()]
    if len(theirs):
        _add_theirs(figure, theirs)
    _add_claims(figure, rows["says"])
    least = min(0.0, *(v for v in [*rows["value"], *rows["low"], *rows["paper_value"]] if not math.isnan(v)))
    low = -1.05 if least < -0.5 else -0.55 if least < -0.05 else -0.08
    figure.update_xaxes(range=[low, 1.08], title_text="measured, and the paper's", tickformat=".1f")
    figure.add_vline(x=0, line={"color": style.COLOURS["quiet"], "width": 1})
    margin = {"t": style.BUTTONS + 40, "r": 24, "l": 24}
    figure.update_layout(margin=margin, legend={"xref": "container", "x": 0})
    return figure


def _add_claims(figure: go.Figure, says: pd.Series[str]) -> None:
    """Each claim above its markers: beside the axis it would leave them no room on a phone."""
    figure.update_yaxes(range=[len(says) - 0.6, -0.8], showticklabels=False, showgrid=False)
    for place, text in enumerate(says):
        figure.add_annotation(
            text=_label(text),
            x=0,
            xref="paper",
            xanchor="left",
            y=place,
            yanchor="bottom",
            yshift=8,
            align="left",
            showarrow=False,
            font_size=12,
        )


def _add_dumbbells(figure: go.Figure, rows: pd.DataFrame) -> None:
    """A thin line from the paper's number to ours."""
    x: list[float | None] = []
    y: list[float | None] = []
    for place, (ours, theirs) in enumerate(zip(rows["value"], rows["paper_value"], strict=True)):
        if not math.isnan(theirs):
            x += [float(ours), float(theirs), None]
            y += [place, place, None]
    if x:
        line = {"color": style.translucent(style.COLOURS["quiet"], 0.6), "width": 2}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _add_ours(figure: go.Figure, own: pd.DataFrame, name: str, colour: str, symbol: str) -> None:
    figure.add_scatter(
        x=own["value"].tolist(),
        y=own.index.tolist(),
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 11},
        error_x=style.whiskers(own["value"], own["low"], own["high"], colour),
        cliponaxis=False,
        customdata=style.handed_over(
            [[c, float(v)] for c, v in zip(own["claim"], own["value"], strict=True)]
        ),
        hovertext=[_hover(line) for line in own.to_dict("records")],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _add_theirs(figure: go.Figure, theirs: pd.DataFrame) -> None:
    figure.add_scatter(
        x=theirs["paper_value"].tolist(),
        y=theirs.index.tolist(),
        mode="markers",
        name="the paper's",
        marker={"color": style.INK, "symbol": "diamond-open", "size": 11, "line": {"width": 2}},
        cliponaxis=False,
        hovertext=[f"the paper: {value:.3g}" for value in theirs["paper_value"]],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _label(text: Any) -> str:
    """A claim on at most two lines; all of it is in the hover."""
    words, lines = str(text).split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) >= _LONGEST and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    shown = lines[:2] if len(lines) <= 2 else [lines[0], f"{lines[1]} …"]
    return "<br>".join(safe_text(line) for line in shown)


def _hover(line: Mapping[Any, Any]) -> str:
    ends = "no interval" if math.isnan(line["low"]) else f"95 % [{line['low']:.3f}, {line['high']:.3f}]"
    n = f", n = {int(line['n']):,}" if line["n"] == line["n"] and line["n"] else ""
    return (
        f"<b>{safe_text(line['says'])}</b><br>{safe_text(line['measured'])}: {line['value']:.3f}<br>{ends}{n}"
        f"<br>claimed: {safe_text(line['expected'])}<br>{safe_text(line['verdict'])}"
    )
