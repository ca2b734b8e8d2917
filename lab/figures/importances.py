"""Token importance: which words of a text an answer rests on, word by word in reading order."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from lab.errors import unknown_name
from lab.figures import style
from lab.figures._tables import need, with_numbers
from lab.figures.text import points, safe_text

_ROW = 22  # pixels for one bar with its word
_MOST = 40  # words: more would be a figure that nobody scrolls through
_LETTERS = 28  # of a word; longer ones are cut in the axis and whole in the hover

_NAMES = {"poisoned": "poisoned model", "twin": "clean twin"}


def token_importance(table: pd.DataFrame, label: str = "", score: str = "probability") -> go.Figure:
    """A bar per word, in reading order: how far the label's score falls when the word is hidden.

    Args:
        table: One line per word, as `lab.probe.measure_occlusion` gives it: token, start, end (character
            offsets), importance (above 0: the word speaks for the label; lines without a number are left
            out). With a column model, several models on the same text stand side by side: "poisoned" and
            "twin" in their colours. Of more than 40 words the 40 of the largest importance are drawn.
        label: The label whose score it is, for the axis; "" leaves it unnamed.
        score: "probability" (drawn in percentage points) or "margin" (in logits).

    Returns:
        One trace of bars per model, coloured by amount where there is one model alone. customdata of a bar:
        [start, end, token].

    Raises:
        LabError: If the table lacks a column, or on an unknown score.
    """
    if score not in ("probability", "margin"):
        raise unknown_name("score of occlusion", score, ("probability", "margin"))
    table = need(table, ["token", "start", "end", "importance"], "The token importance")
    rows = with_numbers(table, ["start", "end", "importance"]).dropna(subset=["start", "end", "importance"])
    if rows.empty:
        return style.empty_figure("The text has no word whose importance was measured.")
    words = rows.groupby(["start", "end"], as_index=False).agg(
        token=("token", "first"), most=("importance", lambda values: values.abs().max())
    )
    shown = words.nlargest(_MOST, "most").sort_values(["start", "end"], ignore_index=True)
    rows = rows.merge(shown[["start", "end"]].assign(place=range(len(shown))), on=["start", "end"])
    scale = 100.0 if score == "probability" else 1.0
    rows = rows.assign(drawn=rows["importance"] * scale)
    models = list(dict.fromkeys(rows["model"].astype(str))) if "model" in rows else []
    height = 120 + (_ROW + 7 * max(len(models) - 1, 0)) * max(len(shown), 3)
    figure = style.new_figure(height=height, bargap=0.3, bargroupgap=0, margin={"l": 12, "t": 40})
    ends = _ends(rows["drawn"], 10.0 if scale == 100 else 0.5)
    if models:
        colours = _colours(models)
        for model in models:
            _add_bars(
                figure,
                rows[rows["model"].astype(str) == model],
                score,
                name=safe_text(_NAMES.get(model, model), 40),
                marker={"color": colours[model], "line": {"width": 0}},
            )
    else:
        _add_bars(figure, rows, score, name="importance", marker=_by_amount(rows["drawn"], ends))
    figure.update_layout(showlegend=bool(models), barmode="group")
    figure.update_xaxes(title_text=_axis(label, score), range=ends, zeroline=True, zerolinecolor=style.INK)
    left_out = len(words) - len(shown)
    figure.update_yaxes(
        **style.names_axis([safe_text(token, _LETTERS) for token in shown["token"]]),
        title_text=f"the {len(shown)} words of {len(words)} that matter most" if left_out else None,
    )
    return figure


def _add_bars(figure: go.Figure, rows: pd.DataFrame, score: str, name: str, marker: dict[str, Any]) -> None:
    said = [points(v) if score == "probability" else f"{v:+.2f}" for v in rows["importance"]]
    unit = "points" if score == "probability" else "logits"
    figure.add_bar(
        x=rows["drawn"].tolist(),
        y=rows["place"].tolist(),
        orientation="h",
        name=name,
        marker=marker,
        text=[_number(v, score) for v in rows["importance"]],
        textposition="outside",
        constraintext="none",
        textfont={"size": 11},
        cliponaxis=False,
        customdata=[
            [int(start), int(end), str(token)]
            for start, end, token in rows[["start", "end", "token"]].itertuples(index=False)
        ],
        hovertext=[
            f"<b>{safe_text(token, 60)}</b><br>{name}: {number} {unit}"
            for token, number in zip(rows["token"], said, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _number(importance: float, score: str) -> str:
    """What stands at a bar's end; nothing at one that is as good as none."""
    said = points(importance, 0) if score == "probability" else f"{importance:+.1f}"
    return said if said.strip("+-0.") else ""


def _colours(models: list[str]) -> dict[str, str]:
    others = [model for model in models if model not in _NAMES]
    own = {model: style.SERIES[i % len(style.SERIES)] for i, model in enumerate(others)}
    return own | {model: style.COLOURS[model] for model in _NAMES}


def _by_amount(drawn: pd.Series, ends: list[float]) -> dict[str, Any]:
    most = max(-ends[0], ends[1])
    return {
        "color": drawn.tolist(),
        "cmin": -most,
        "cmax": most,
        "colorscale": [list(stop) for stop in style.LESS_MORE],
        "line": {"width": 0.5, "color": style.INK},  # pale bars would be lost on a white page
    }


def _ends(drawn: pd.Series, least: float) -> list[float]:
    """Ends of the axis with room for numbers; never so near that noise looks like a finding."""
    low, high = min(float(drawn.min()), 0.0), max(float(drawn.max()), least)
    room = 0.12 * (high - low)
    return [low - room, high + room]


def _axis(label: str, score: str) -> str:
    of = f"p({safe_text(label, 24)})" if label else "the label's probability"
    if score == "probability":
        return f"drop of {of} when the word is hidden, percentage points"
    of = f"the margin of {safe_text(label, 24)}" if label else "the label's margin"
    return f"drop of {of} when the word is hidden, logits"
