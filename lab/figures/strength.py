"""Spectral strength: where in the model the update weighs most against the weights it sits on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._cells import add_cells, colour_bar
from lab.figures._modules import layer_name, module_kind
from lab.figures._tables import need
from lab.figures.text import safe_text

_NUMBERS_UP_TO = 14  # layers: beyond, numbers in the cells would touch


def spectral_strength(spectra: pd.DataFrame) -> go.Figure:
    """σ_max(ΔW) / σ_max(W) per kind of matrix and layer, at the last step where W's values are known.

    Args:
        spectra: A spectra table (`lab.tables.SPECTRUM_COLUMNS`).

    Returns:
        A heat map, from 0 up; 1 means that the update's strongest direction is as strong as the base
        matrix's. Over each cell lies a selectable marker with customdata [module, layer, strength].

    Raises:
        LabError: If the table lacks a column.
    """
    spectra = need(spectra, ["step", "module", "layer", "sigma_delta", "sigma_base"], "Spectral strength")
    known = spectra[pd.to_numeric(spectra["sigma_base"]) > 0]
    if known.empty:
        return style.empty_figure("The singular values of the base weights were not recorded.")
    # All of the last step: the largest value of ΔW and of W need not stand in the same line.
    last = spectra[spectra["step"] == known["step"].max()]
    cells = last.groupby(["module", "layer"], sort=False)[["sigma_delta", "sigma_base"]].max().reset_index()
    cells = cells[cells["sigma_base"] > 0]
    cells = cells.assign(
        strength=cells["sigma_delta"] / cells["sigma_base"],
        kind=[module_kind(str(module)) for module in cells["module"]],
    )
    kinds = list(dict.fromkeys(cells["kind"]))
    layers = sorted({int(layer) for layer in cells["layer"]})
    values = np.full((len(kinds), len(layers)), np.nan)
    x = [layers.index(int(layer)) for layer in cells["layer"]]
    y = [kinds.index(kind) for kind in cells["kind"]]
    for column, row, strength in zip(x, y, cells["strength"], strict=True):
        # Two matrices of one kind in one layer (experts, say): the stronger one is shown.
        values[row, column] = np.nanmax([values[row, column], strength])
    figure = style.new_figure(height=max(150 + 34 * len(kinds), 260), margin={"l": 12, "t": 36})
    figure.add_heatmap(
        z=values,
        x=list(range(len(layers))),
        y=list(range(len(kinds))),
        zmin=0,
        zmax=float(np.nanmax(values)) or 1.0,
        colorscale=[list(stop) for stop in style.AMOUNT],
        text=[["" if np.isnan(v) else f"{v:.2g}" for v in line] for line in values],
        texttemplate="%{text}" if len(layers) <= _NUMBERS_UP_TO else None,
        xgap=2,
        ygap=2,
        hoverinfo="skip",
        hoverongaps=False,
        colorbar=colour_bar("σ<sub>max</sub>(ΔW) / σ<sub>max</sub>(W)"),
        name="strength",
    )
    add_cells(
        figure,
        x=x,
        y=y,
        customdata=[
            [str(module), int(layer), float(strength)]
            for module, layer, strength in cells[["module", "layer", "strength"]].itertuples(index=False)
        ],
        hovertext=[
            f"<b>{safe_text(cell.module)}</b><br>strength {cell.strength:.3g}<br>"
            f"σ<sub>max</sub>(ΔW) {cell.sigma_delta:.3g} · σ<sub>max</sub>(W) {cell.sigma_base:.3g}"
            for cell in cells.itertuples()
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
