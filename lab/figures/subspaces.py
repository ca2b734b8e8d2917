"""The alignment curve: how much of ΔW the strongest directions of W hold, as one takes more of them."""

from __future__ import annotations

import math
from itertools import cycle

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.errors import LabError
from lab.figures import style
from lab.figures._alignments import SIDES, alignment_rows
from lab.figures._modules import layer_name, module_kind
from lab.figures.text import safe_text, share

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x")
_LISTED = 6  # names in an error message: a model has hundreds of matrices


def alignment_curve(alignment: pd.DataFrame, module: str | None = None) -> go.Figure:
    """Share of ΔW in the span of W's top k singular vectors, over k; a panel per side.

    Both axes are logarithmic, so that "three times a random update's share" is the same height above the
    dashed line everywhere. A line on the dashed one: ΔW knows nothing of W's strong directions.

    Args:
        alignment: An alignment table, as for `alignment_map`: module, layer, side, k, share (in [0, 1]),
            uniform (in (0, 1]). Lines without a share are left out; shares of zero have no place on the
            axis.
        module: One matrix by its whole name. Without it, one line per kind of matrix, the mean over layers.

    Returns:
        Per panel: a line with a marker per k for each kind, and the random update's share as a dashed grey
        line for each width of matrix. customdata of a point: [kind or module, k].

    Raises:
        LabError: If the table lacks a column, or the module was not measured.
    """
    rows = alignment_rows(alignment, "The alignment curve")
    if rows.empty:
        return style.empty_figure("No alignment of ΔW with W was measured.")
    if module is not None:
        rows = _of_module(rows, module)
    names = [module_kind(str(m)) if module is None else str(m) for m in rows["module"]]
    rows = rows.assign(name=names)
    sides = sorted(map(str, rows["side"].unique()))
    figure = make_subplots(
        rows=1,
        cols=len(sides),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        x_title="k, number of singular vectors of W",
        subplot_titles=[SIDES.get(side, safe_text(side, 40)) for side in sides],
        figure=style.new_figure(height=420),
    )
    figure.update_annotations(font_size=12)
    looks = dict(zip(dict.fromkeys(names), zip(cycle(style.SERIES[:-1]), cycle(_SYMBOLS)), strict=False))
    for column, side in enumerate(sides, start=1):
        part = rows[rows["side"] == side]
        _add_random(figure, part, column)
        for name, of_name in part.groupby("name", sort=False):
            _add_line(figure, of_name, str(name), looks[str(name)], column)
    counts = sorted(rows["k"].unique())
    figure.update_xaxes(type="log", showgrid=False)
    if len(counts) <= 10:
        figure.update_xaxes(tickvals=counts, ticktext=[f"{count:g}" for count in counts])
    first, last = math.log10(counts[0]), math.log10(counts[-1])
    room = max(0.05, 0.05 * (last - first))
    named = any(trace.mode.endswith("+text") for trace in figure.data)
    figure.update_xaxes(range=[first - room, last + room * (5 if named else 1)])
    drawn = [y for trace in figure.data for y in trace.y]
    # Wide enough to hold a tick of 1, 2, 5, 10 even around one value.
    figure.update_yaxes(range=[math.log10(min(drawn) / 1.6), math.log10(max(drawn) * 1.6)])
    figure.update_yaxes(type="log", tickformat="~%", dtick="D2")
    figure.update_yaxes(title_text="share of ΔW in their span", col=1)
    figure.update_layout(margin_t=56)
    style.side_legend(figure)
    return figure


def _of_module(rows: pd.DataFrame, module: str) -> pd.DataFrame:
    own = rows[rows["module"] == module]
    if own.empty:
        modules = list(dict.fromkeys(map(str, rows["module"])))
        more = f" and {len(modules) - _LISTED} more" if len(modules) > _LISTED else ""
        raise LabError(f"module is {module!r}; measured: {', '.join(modules[:_LISTED])}{more}.")
    return own


def _add_line(figure: go.Figure, rows: pd.DataFrame, name: str, look: tuple[str, str], column: int) -> None:
    """One kind's mean over its matrices, or one matrix."""
    means = rows.groupby("k")["share"].agg(["mean", "min", "max", "size"])
    means = means[means["mean"] > 0]
    uniform = rows.groupby("k")["uniform"].mean()
    label = safe_text(name, 40)
    hover = []
    for k, mean, low, high, size in means.itertuples():
        times = f"{mean / uniform[k]:.2g} times random"
        said = f"<b>{safe_text(name)}</b>, k = {k:g}<br>share {share(mean)} · {times}"
        among = f"<br>mean of {size} matrices, {share(low)} to {share(high)}"
        only = f"<br>{layer_name(int(rows['layer'].iloc[0]))}"
        hover.append(said + (among if size > 1 else only))
    colour, symbol = look
    figure.add_scatter(
        x=means.index.tolist(),
        y=means["mean"].tolist(),
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"color": colour, "symbol": symbol, "size": 7},
        cliponaxis=False,
        name=label,
        legendgroup=name,
        showlegend=not any(trace.legendgroup == name for trace in figure.data),
        customdata=[[name, float(k)] for k in means.index],
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=column,
    )


def _add_random(figure: go.Figure, rows: pd.DataFrame, column: int) -> None:
    """The dashed lines: one per width, because a random update's share is k over the matrix' width."""
    widths = (rows["k"] / rows["uniform"]).round().astype(int)
    for width, part in rows.groupby(widths):
        line = part.groupby("k")["uniform"].mean()
        kinds = ", ".join(safe_text(name, 40) for name in dict.fromkeys(part["name"]))
        figure.add_scatter(
            x=line.index.tolist(),
            y=line.tolist(),
            mode=("lines" if len(line) > 1 else "markers") + ("+text" if widths.nunique() > 1 else ""),
            text=[*[""] * (len(line) - 1), f" k/{width}"],
            textposition="middle right",
            marker={"symbol": "line-ew", "size": 18, "line": {"width": 2, "color": style.COLOURS["quiet"]}},
            cliponaxis=False,
            textfont={"size": 11, "color": style.COLOURS["quiet"]},
            line={"color": style.COLOURS["quiet"], "width": 1.5, "dash": "dash"},
            name="random update, k / width",
            legendgroup=" random",
            showlegend=not any(trace.legendgroup == " random" for trace in figure.data),
            hovertext=[
                f"random update, k = {k:g}: {share(value)}<br>{kinds}, width {width}"
                for k, value in line.items()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=1,
            col=column,
        )
