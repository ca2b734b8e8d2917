"""What the heat maps share: marks over the cells that can be clicked and selected.

Plotly reports no selection on a heat map, so each cell carries an invisible marker; a selected one shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go


def add_cells(
    figure: go.Figure,
    x: Sequence[int],
    y: Sequence[int],
    customdata: Sequence[Sequence[object]],
    hovertext: Sequence[str],
    size: int = 26,
    **place: int,
) -> None:
    """Lay one transparent, selectable marker over each filled cell.

    Args:
        figure: The figure that holds the heat map.
        x: Column of each cell, from 0.
        y: Row of each cell, from 0.
        customdata: What a click hands over, unescaped, one list per cell.
        hovertext: Safe text, one per cell.
        size: Of a marker in pixels.
        **place: row and col, in a figure of several panels.
    """
    figure.add_scatter(
        x=list(x),
        y=list(y),
        mode="markers",
        marker={"symbol": "square", "size": size, "color": "#24292F", "opacity": 0},
        selected={"marker": {"opacity": 0.35}},
        unselected={"marker": {"opacity": 0}},
        customdata=[list(row) for row in customdata],
        hovertext=list(hovertext),
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        name="cells",
        **place,
    )


def colour_bar(title: str, **more: object) -> dict[str, object]:
    """A slim colour bar beside the cells."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": 12}},
        "tickfont": {"size": 12},
        "thickness": 12,
        "outlinewidth": 0,
        "len": 1,
        "xpad": 8,
        **more,
    }
