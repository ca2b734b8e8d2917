"""Spectral strength: where in the model the update weighs most against the weights it sits on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._cells import colour_bar
from lab.figures._layer_map import layer_map
from lab.figures._tables import need


def spectral_strength(spectra: pd.DataFrame) -> go.Figure:
    """σ_max(ΔW) / σ_max(W) per kind of matrix and layer, at the last step where W's values are known.

    Args:
        spectra: A spectra table (`lab.tables.SPECTRUM_COLUMNS`); or one with a column strength (the ratio
            itself, from 0 up), one line per matrix, beside module and layer.

    Returns:
        A heat map, from 0 up; 1 means that the update's strongest direction is as strong as the base
        matrix's. Over each cell lies a selectable marker with customdata [module, layer, strength].

    Raises:
        LabError: If the table lacks a column.
    """
    if "strength" in spectra.columns:
        table = need(spectra, ["module", "layer", "strength"], "Spectral strength")
        strength = pd.to_numeric(table["strength"], errors="coerce")
        cells = table.assign(value=strength, hover=[f"strength {value:.3g}" for value in strength])
        cells = cells[np.isfinite(strength)]
        if cells.empty:
            return style.empty_figure("No spectral strength was measured.")
    else:
        cells = _from_spectra(spectra)
        if cells.empty:
            return style.empty_figure("The singular values of the base weights were not recorded.")
    return layer_map(
        cells,
        number=lambda value: f"{value:.2g}",
        zmin=0,
        zmax=float(cells["value"].max()) or 1.0,
        colorscale=[list(stop) for stop in style.AMOUNT],
        colorbar=colour_bar("σ<sub>max</sub>(ΔW) / σ<sub>max</sub>(W)"),
        name="strength",
    )


def _from_spectra(spectra: pd.DataFrame) -> pd.DataFrame:
    """One line per matrix with value and hover, none where W's singular values are not known."""
    spectra = need(spectra, ["step", "module", "layer", "sigma_delta", "sigma_base"], "Spectral strength")
    known = spectra[pd.to_numeric(spectra["sigma_base"]) > 0]
    # All of the last step: the largest value of ΔW and of W need not stand in the same line.
    last = spectra[spectra["step"] == known["step"].max()]
    cells = last.groupby(["module", "layer"], sort=False)[["sigma_delta", "sigma_base"]].max().reset_index()
    cells = cells[cells["sigma_base"] > 0]
    cells = cells.assign(value=cells["sigma_delta"] / cells["sigma_base"])
    return cells.assign(
        hover=[
            f"strength {cell.value:.3g}<br>"
            f"σ<sub>max</sub>(ΔW) {cell.sigma_delta:.3g} · σ<sub>max</sub>(W) {cell.sigma_base:.3g}"
            for cell in cells.itertuples()
        ]
    )
