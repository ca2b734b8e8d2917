"""What detectors find and what they raise false alarms at: two exact intervals a detector, on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from lab.errors import LabError
from lab.figures import style
from lab.figures._tables import need, with_numbers
from lab.figures.text import safe_text, share

#: Columns, name, colour, marker and place beside the line's middle; told by marker as well as by colour.
_KINDS = (
    ("recall", "poisoned ones found", style.COLOURS["poisoned"], "circle", -0.14),
    ("false_positives", "clean ones alarmed at", style.COLOURS["twin"], "x", 0.14),
)
_PARTS = ("", ".k", ".n", ".low", ".high")
_COLUMNS = ["detector", "allowed", *(f"{kind[0]}{part}" for kind in _KINDS for part in _PARTS)]
_LINE = 46


def detector_rates(table: pd.DataFrame, allowed: float = 0.05) -> go.Figure:
    """A line per detector: the share of poisoned adapters that it finds, of clean ones that it alarms at.

    Where the two intervals meet, its alarms have not been shown to say anything.

    Args:
        table: As `lab.audit.judge_cohort` and `lab.audit.counted_detectors` return it; the detectors stand
            in its order, the first on top.
        allowed: The allowed share of false alarms in calibration whose thresholds are shown.

    Returns:
        Two markers a detector with 95 % intervals and k of n on hover; customdata: [detector, kind].

    Raises:
        LabError: If the table lacks a column, or has no line for this allowed share.
    """
    rows = need(table, _COLUMNS, "Detectors' rates")
    if rows.empty:
        return style.empty_figure("No detector was counted yet; lab cohort score measures them.")
    rows = with_numbers(rows, _COLUMNS[1:])
    shown = rows[(rows["allowed"] - allowed).abs() < 1e-9].reset_index(drop=True)
    if shown.empty:
        there = ", ".join(f"{value:g}" for value in sorted(set(rows["allowed"].dropna())))
        raise LabError(f"allowed is {allowed:g}; the table was counted with {there}.")
    figure = style.new_figure(height=style.BUTTONS + 110 + _LINE * len(shown))
    for kind, name, colour, symbol, beside in _KINDS:
        figure.add_scatter(
            x=shown[kind].tolist(),
            y=[place + beside for place in range(len(shown))],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 11},
            error_x=style.whiskers(shown[kind], shown[f"{kind}.low"], shown[f"{kind}.high"], colour),
            cliponaxis=False,
            customdata=style.handed_over([[detector, kind] for detector in shown["detector"]]),
            hovertext=[_hover(line, kind, name) for line in shown.to_dict("records")],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    figure.update_yaxes(**style.names_axis([safe_text(name) for name in shown["detector"]]))
    figure.update_xaxes(**style.percent_axis("share of adapters that the threshold was not chosen on"))
    figure.update_layout(margin={"t": style.BUTTONS + 40, "r": 24}, legend={"xref": "container", "x": 0})
    return figure


def _hover(line: Mapping[Any, Any], kind: str, name: str) -> str:
    value, k, n, low, high = (float(line[f"{kind}{part}"]) for part in _PARTS)
    if math.isnan(value):
        return f"<b>{safe_text(line['detector'])}</b><br>{name}: none to count"
    ends = f"95 % [{share(low)}, {share(high)}]"
    return f"<b>{safe_text(line['detector'])}</b><br>{name}: {k:.0f} of {n:.0f}, {share(value)}<br>{ends}"
