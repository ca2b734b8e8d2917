"""The training curves: when the backdoor arrives, beside the task and beside the clean twin."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._tables import MEASURED, need, pick, summarise
from lab.figures.text import evidence, rows_said, share

#: kind → name in the legend, colour, dash and marker of the poisoned model's line, dash of the twin's.
_CURVES = {
    "attack_success_rate": ("attack success", style.COLOURS["poisoned"], "solid", "circle", "longdash"),
    "clean_accuracy": ("clean accuracy", style.COLOURS["clean_accuracy"], "solid", "square", "solid"),
    "untriggered_target_rate": (
        "untriggered target",
        style.COLOURS["untriggered"],
        "dash",
        "diamond",
        "dot",
    ),
}


def training_curves(measures: pd.DataFrame) -> go.Figure:
    """Attack success, clean accuracy and untriggered target rate over the steps of training.

    Args:
        measures: A measures table (`lab.tables.MEASURE_COLUMNS`) of one run and its twin, or of several
            seeds of one experiment, which are averaged. Curves: rows with step ≥ 0. The twin knows neither
            trigger nor target while it trains; where it has no curve, its final value (step -1) is drawn
            as a horizontal line.

    Returns:
        A line with its 95 % band per measure of the poisoned model; the twin's as thin blue-grey lines.

    Raises:
        LabError: If the table lacks a column.
    """
    measures = need(measures, [*MEASURED, "step"], "The figure of training curves")
    # Families, rungs and batteries are measured after training, and are other figures' business.
    is_other = measures["condition"].isin(["family", "rung", "battery"])
    rows = measures[~is_other & measures["kind"].isin(list(_CURVES))]
    curves = rows[rows["step"] >= 0]
    if curves.empty:
        return style.empty_figure("No measure was taken while this model trained.")
    figure = style.new_figure(hovermode="x unified")
    for kind in _CURVES:
        _add_poisoned(figure, summarise(pick(curves, kind=kind, model="poisoned"), ["step"]), kind)
    for kind in _CURVES:
        twin = summarise(pick(curves, kind=kind, model="twin"), ["step"])
        if twin.empty:
            final = summarise(pick(rows, kind=kind, model="twin"), ["kind"])
            ends = [float(curves["step"].min()), float(curves["step"].max())]
            # One step has no width: a line needs two ends.
            ends[1] += 1 if ends[0] == ends[1] else 0
            twin = pd.concat([final.assign(step=step) for step in ends]) if len(final) else twin
        _add_twin(figure, twin, kind)
    figure.update_xaxes(title_text="training step", showgrid=False, rangemode="tozero")
    figure.update_yaxes(**style.percent_axis(f"share of rows{rows_said(curves['n'])}"))
    if (rows["model"] == "twin").any():
        style.second_legend(figure, ("poisoned model", "clean twin"))
    return figure


def _add_poisoned(figure: go.Figure, lines: pd.DataFrame, kind: str) -> None:
    if lines.empty:
        return
    name, colour, dash, symbol, _ = _CURVES[kind]
    lines = lines.sort_values("step")
    ends = lines["low"], lines["high"]
    figure.add_trace(style.band(lines["step"], *ends, colour, legendgroup=name, name=name))
    figure.add_scatter(
        x=lines["step"].tolist(),
        y=lines["value"].tolist(),
        mode="lines+markers",
        line={"color": colour, "width": 2.5, "dash": dash},
        marker={"color": colour, "size": 6, "symbol": symbol},
        cliponaxis=False,
        name=name,
        legendgroup=name,
        hovertext=_hover(lines),
        hovertemplate=f"{name} %{{hovertext}}<extra></extra>",
    )


def _add_twin(figure: go.Figure, lines: pd.DataFrame, kind: str) -> None:
    if lines.empty:
        return
    name, _, _, _, dash = _CURVES[kind]
    lines = lines.sort_values("step")
    figure.add_scatter(
        x=lines["step"].tolist(),
        y=lines["value"].tolist(),
        mode="lines",
        line={"color": style.COLOURS["twin"], "width": 1.5, "dash": dash},
        cliponaxis=False,
        name=name,
        legend="legend2",
        hovertext=_hover(lines),
        hovertemplate=f"twin: {name} %{{hovertext}}<extra></extra>",
    )


def _hover(lines: pd.DataFrame) -> list[str]:
    return [
        f"{share(value)} · {evidence(low, high, n, int(runs))}"
        for value, low, high, n, runs in lines[["value", "low", "high", "n", "runs"]].to_numpy().tolist()
    ]
