"""Figures side by side: one range and one colour scale for all, so that they compare, and no width lost."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go


def same_ranges(figures: Sequence[go.Figure]) -> None:
    """Give the x axes of all figures one range, and the y axes one range, wide enough for each.

    Args:
        figures: Figures of one kind, changed in place; one without ranges (an empty figure) stays as it is.
            Ticks along x get twice the distance if there are several, as each has its share of the width.
    """
    if len(figures) < 2:
        return
    for name in ("xaxis", "yaxis"):
        axes = [figure.layout[a] for figure in figures for a in figure.layout if a.startswith(name)]
        axes = [axis for axis in axes if axis.range is not None]
        if not axes:
            continue
        wide = [min(axis.range[0] for axis in axes), max(axis.range[1] for axis in axes)]
        distance = max((axis.dtick for axis in axes if isinstance(axis.dtick, int | float)), default=0)
        for axis in axes:
            axis.range = wide
            if distance and name == "xaxis":
                axis.dtick = 2 * distance


def same_colours(figures: Sequence[go.Figure]) -> None:
    """Give the heat maps of all figures the colour scale of the one that reaches furthest.

    Args:
        figures: Figures of one kind, changed in place; one without a heat map stays as it is.
    """
    maps = [trace for figure in figures for trace in figure.data if trace.type == "heatmap"]
    if not maps:
        return
    furthest = max(maps, key=lambda trace: trace.zmax)
    bar = furthest.colorbar.to_plotly_json()
    low, high = min(trace.zmin for trace in maps), furthest.zmax
    for trace in maps:
        trace.update(zmin=low, zmax=high, colorbar=bar)


def legend_below(figure: go.Figure, lines: int = 4) -> go.Figure:
    """Put a legend that stands beside the panels under them: two figures side by side have no width to spare.

    Args:
        figure: Changed in place.
        lines: How many lines of legend there is room for.

    Returns:
        The same figure.
    """
    room = 24 * lines
    below = (figure.layout.margin.b or 60) + 4
    inner = figure.layout.height - (figure.layout.margin.t or 0) - below
    figure.update_layout(
        height=figure.layout.height + room,
        margin_b=below + room,
        legend={"orientation": "h", "x": 0, "y": -below / inner, "yref": "paper", "yanchor": "top"},
    )
    return figure
