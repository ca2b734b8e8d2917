"""The heat map of the weights: one column per layer, one row per kind of matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._cells import add_cells
from lab.figures._modules import layer_name, module_kind
from lab.figures.text import safe_text

_NUMBERS_UP_TO = 14  # layers: beyond, numbers in the cells would touch


def layer_map(
    cells: pd.DataFrame,
    number: Callable[[float], str],
    shade: Callable[[np.ndarray], np.ndarray] = lambda values: values,
    **heat: object,
) -> go.Figure:
    """A heat map with a number in every cell and a selectable marker over it.

    Args:
        cells: One line per matrix, at least one: module (its name), layer (-1 for none), value (finite, any
            unit), hover (safe text below the name). Of two matrices of one kind in one layer (experts, say)
            the cell shows the larger value; both can be hovered.
        number: How a value is written in its cell.
        shade: From values, shape [kinds, layers], NaN where there is no matrix, to what the colour scale
            reads; same shape.
        **heat: Further properties of the heat map: name, zmin, zmax, colorscale, colorbar.

    Returns:
        Two traces, heat map and markers; customdata of a marker: [module, layer, value].
    """
    kind_of = [module_kind(str(module)) for module in cells["module"]]
    kinds = list(dict.fromkeys(kind_of))
    layers = sorted({int(layer) for layer in cells["layer"]})
    values = np.full((len(kinds), len(layers)), np.nan)
    x = [layers.index(int(layer)) for layer in cells["layer"]]
    y = [kinds.index(kind) for kind in kind_of]
    for column, row, value in zip(x, y, cells["value"], strict=True):
        values[row, column] = np.nanmax([values[row, column], value])
    figure = style.new_figure(height=max(150 + 34 * len(kinds), 260), margin={"l": 12, "t": 36})
    figure.add_heatmap(
        z=shade(values),
        x=list(range(len(layers))),
        y=list(range(len(kinds))),
        text=[["" if np.isnan(v) else number(v) for v in line] for line in values],
        texttemplate="%{text}" if len(layers) <= _NUMBERS_UP_TO else None,
        xgap=2,
        ygap=2,
        hoverinfo="skip",
        hoverongaps=False,
        **heat,
    )
    add_cells(
        figure,
        x=x,
        y=y,
        customdata=[
            [str(module), int(layer), float(value)]
            for module, layer, value in cells[["module", "layer", "value"]].itertuples(index=False)
        ],
        hovertext=[
            f"<b>{safe_text(module)}</b><br>{hover}"
            for module, hover in cells[["module", "hover"]].itertuples(index=False)
        ],
        size=max(8, min(26, 500 // len(layers))),
    )
    figure.update_xaxes(
        tickvals=list(range(len(layers))),
        ticktext=[layer_name(layer) if layer < 0 else str(layer) for layer in layers],
        title_text="layer",
        range=[-0.5, len(layers) - 0.5],
        showgrid=False,
    )
    figure.update_yaxes(**style.names_axis([safe_text(kind, 40) for kind in kinds]))
    return figure
