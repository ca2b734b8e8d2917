"""The threshold curve: at which scale of ΔW the backdoor is said to flip, and at which it does."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from lab.errors import LabError
from lab.figures import style
from lab.figures._tables import need, need_counts, with_numbers
from lab.figures.text import evidence, rows_said, safe_text, share

_NEXT_TO = 0.4  # of the axis' width: nearer marks have names that might touch
_REACH = 10  # a mark further off than this factor would squeeze the curves: it is named at the edge


def threshold_curve(table: pd.DataFrame, marks: Mapping[str, float] | None = None) -> go.Figure:
    """Share of triggered rows that no longer get the target over the scale s of ΔW: predicted and measured.

    The prediction linearises the model at one place (RoRA's s*, in the lab's own reading) and is a
    heuristic: where the lines part, believe the measured one.

    Args:
        table: One line per scale: scale (factor on ΔW, above 0), predicted (share in [0, 1]), measured
            (share in [0, 1]), low, high (95 % interval of measured), n (triggered rows, from 1). A missing
            predicted or measured breaks its own line only. Scales of zero and below have no place on the
            axis.
        marks: Name → scale of what deserves a vertical line, such as {"trained": 2.0, "s*": 7.3}. One that
            lies far beyond the curves is named at the edge; one that is NaN or infinite has no place.

    Returns:
        Three traces over a logarithmic axis: measured with its band, predicted as a dashed grey line.
        customdata of a measured point: [scale].

    Raises:
        LabError: If the table lacks a column, a measured share comes without its n, or a mark is not above
            zero.
    """
    columns = ["scale", "predicted", "measured", "low", "high", "n"]
    wrong = [name for name, scale in (marks or {}).items() if scale <= 0]
    if wrong:
        raise LabError(f"The mark {wrong[0]!r} is {(marks or {})[wrong[0]]:g}; allowed: a scale above 0.")
    rows = with_numbers(need(table, columns, "The threshold curve"), columns)
    rows = rows[rows["scale"] > 0].sort_values("scale")
    measured = need_counts(rows.dropna(subset=["measured"]), "The threshold curve")
    predicted = rows.dropna(subset=["predicted"])
    if measured.empty and predicted.empty:
        return style.empty_figure("The flips of triggered rows were not measured at any scale of ΔW.")
    figure = style.new_figure(margin_t=106)
    _add_measured(figure, measured)
    figure.add_scatter(
        x=predicted["scale"].tolist(),
        y=predicted["predicted"].tolist(),
        mode="lines+markers" if len(predicted) == 1 else "lines",
        line={"color": style.COLOURS["quiet"], "width": 2.5, "dash": "dash"},
        marker={"color": style.COLOURS["quiet"], "size": 8, "symbol": "diamond-open"},
        cliponaxis=False,
        name="predicted from the weights (a heuristic)",
        hovertext=[share(value) for value in predicted["predicted"]],
        hovertemplate="s = %{x:.3g}: predicted %{hovertext}, a heuristic<extra></extra>",
    )
    scales = pd.concat([measured["scale"], predicted["scale"]])
    ends = _add_marks(figure, dict(marks or {}), float(scales.min()), float(scales.max()))
    figure.update_xaxes(type="log", showgrid=False, tickformat="~g", dtick="D2")
    figure.update_xaxes(title_text="scale s of ΔW · the prediction is a heuristic, no bound")
    figure.update_xaxes(range=[math.log10(end) for end in ends])
    figure.update_yaxes(**style.percent_axis(f"triggered rows off the target{rows_said(measured['n'])}"))
    return figure


def _add_measured(figure: go.Figure, lines: pd.DataFrame) -> None:
    if lines.empty:
        return
    colour = style.SERIES[0]
    figure.add_trace(
        style.band(
            lines["scale"], lines["low"], lines["high"], colour, legendgroup="measured", name="measured"
        )
    )
    figure.add_scatter(
        x=lines["scale"].tolist(),
        y=lines["measured"].tolist(),
        mode="lines+markers",
        line={"color": colour, "width": 2.5},
        marker={"color": colour, "size": 7},
        error_y=style.whiskers(lines["measured"], lines["low"], lines["high"], colour)
        if len(lines) == 1
        else None,
        cliponaxis=False,
        name="measured",
        legendgroup="measured",
        customdata=[[scale] for scale in lines["scale"].tolist()],
        hovertext=[
            f"{share(value)} · {evidence(low, high, n)}"
            for value, low, high, n in lines[["measured", "low", "high", "n"]].to_numpy().tolist()
        ],
        hovertemplate="s = %{x:.3g}: measured %{hovertext}<extra></extra>",
    )


def _add_marks(figure: go.Figure, marks: dict[str, float], low: float, high: float) -> tuple[float, float]:
    """Draw the vertical lines with their names above the panel; return the ends of the axis."""
    near = [scale for scale in marks.values() if low / _REACH <= scale <= high * _REACH]
    left, right = min([low, *near]) / 1.15, max([high, *near]) * 1.15
    finite = sorted((one for one in marks.items() if math.isfinite(one[1])), key=lambda one: one[1])
    last, level = 0.0, 0
    for name, scale in finite:
        inside = scale in near
        at = min(max(scale, left), right)
        # Names of neighbours take three heights in turn, so that they do not touch.
        near_last = last > 0 and math.log(at / last) < _NEXT_TO * math.log(right / left)
        level = (level + 1) % 3 if near_last else 0
        last = at
        if inside:
            figure.add_shape(
                type="line",
                x0=scale,
                x1=scale,
                y0=0,
                y1=1,
                yref="paper",
                layer="below",
                line={"color": style.INK, "width": 1.5, "dash": "dot"},
            )
        said = f"{safe_text(name, 24)} = {scale:.3g}"
        figure.add_annotation(
            x=math.log10(at),
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=2 + 15 * level,
            # Names lean inwards, away from the edges.
            xanchor="left" if at < math.sqrt(left * right) else "right",
            text=said if inside else f"← {said}" if at == left else f"{said} →",
            showarrow=False,
            font_size=12,
        )
    return left, right
