"""The spectrum of ΔW: how much each matrix was changed, and along how many directions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.errors import LabError
from lab.figures import style
from lab.figures._cells import colour_bar
from lab.figures._modules import module_kind
from lab.figures._tables import need
from lab.figures.text import safe_text

_DECADES = 4  # below a ten-thousandth of the largest value lies rounding, not learning
_FRAME = 500  # milliseconds a step is shown while playing: long enough to see what moved


def spectrum(
    spectra: pd.DataFrame,
    step: int | None = None,
    top: int = 16,
    base: bool = True,
    columns: int = 3,
) -> go.Figure:
    """Singular values of ΔW, largest first: one panel per kind of matrix, one line per layer.

    A line that falls steeply is an update of few directions; a flat one uses its whole rank. The distance to
    the grey lines, W's own singular values, is how small the update is beside what it was added to.

    Args:
        spectra: A spectra table (`lab.tables.SPECTRUM_COLUMNS`); sigma_delta includes the scaling. Without
            a column sigma_base, or where it is not known, no grey line is drawn.
        step: The step to show. Without it, a slider moves over all recorded steps and begins at the last,
            and a button plays them.
        top: How many singular values per matrix at most, at least 1.
        base: Draw W's own singular values too. They are known at the last step only, and W does not change
            while an adapter is trained, so every step shows the same.
        columns: How many panels stand beside each other at most; 2 suits half a page.

    Returns:
        Lines over the number of the singular value, on one logarithmic axis for all panels and steps: W's,
        grey, one trace per panel; then ΔW's, one trace per matrix. Of ΔW, values of zero (every value
        before the first step) and below a ten-thousandth of the largest are left out. customdata of a
        point: [module, layer].

    Raises:
        LabError: If the table lacks a column, `top` or `columns` is below 1, or the step was not recorded.
    """
    spectra = need(spectra, ["step", "module", "layer", "index", "sigma_delta"], "The spectrum")
    if min(top, columns) < 1:
        raise LabError(f"top is {top} and columns {columns}; allowed: at least 1.")
    if spectra.empty:
        return style.empty_figure("No singular value of ΔW was recorded.")
    steps = sorted(int(s) for s in spectra["step"].unique())
    if step is not None and step not in steps:
        raise LabError(f"Step {step} was not recorded; recorded: {', '.join(map(str, steps))}.")
    shown = steps if step is None else [step]
    rows = spectra.sort_values(["module", "index"])
    rows = rows.assign(number=rows.groupby(["step", "module"], sort=False).cumcount() + 1)
    rows = rows[rows["number"] <= top]
    largest = float(rows["sigma_delta"].max())
    if not largest > 0:
        return style.empty_figure("ΔW is zero at every recorded step.")
    floor = largest * 10.0**-_DECADES
    rows = rows.assign(sigma=rows["sigma_delta"].where(rows["sigma_delta"] >= floor))
    of_base = _base_values(spectra, top) if base else pd.DataFrame()

    modules = spectra.drop_duplicates("module")[["module", "layer"]].sort_values("layer", kind="stable")
    layers = sorted({int(layer) for layer in modules["layer"]})
    colours = _layer_colours(layers)
    kinds = list(dict.fromkeys(module_kind(str(m)) for m in spectra["module"].unique()))
    columns = min(len(kinds), columns)
    figure = _panels(kinds, "singular value" if len(of_base) else "singular value of ΔW", columns)
    if len(of_base):
        _add_base(figure, of_base, kinds, columns)
        largest = max(largest, float(of_base["sigma"].max()))
    first = len(figure.data)
    tables = {
        s: {str(module): part for module, part in rows[rows["step"] == s].groupby("module", sort=False)}
        for s in shown
    }
    lengths = rows.groupby("module")["number"].max()
    for module, layer in modules.itertuples(index=False):
        place = kinds.index(module_kind(str(module)))
        figure.add_trace(
            go.Scatter(
                x=list(range(1, int(lengths[module]) + 1)),
                y=_line(tables[shown[-1]].get(str(module))),
                mode="lines+markers",
                line={"color": colours[int(layer)], "width": 1.5},
                marker={"color": colours[int(layer)], "size": 4},
                name=safe_text(module),
                showlegend=False,
                customdata=[[str(module), int(layer)]] * top,
                # meta, and not the template, carries the name: a "%{…}" in it must stay text.
                meta=safe_text(module),
                hovertemplate="<b>%{meta}</b><br>σ<sub>%{x}</sub> = %{y:.3g}<extra></extra>",
            ),
            row=place // columns + 1,
            col=place % columns + 1,
        )
    if len(layers) > 1:
        _add_layer_bar(figure, layers)
    low = float(np.nanmin(rows["sigma"]))
    figure.update_yaxes(
        type="log", range=[math.log10(low) - 0.1, math.log10(largest) + 0.1], dtick=1, tickformat="~g"
    )
    widest = int(rows["number"].max())
    # At most eight ticks in a panel, and only at whole numbers.
    every = max(1, 2 ** math.ceil(math.log2(widest / 8)))
    figure.update_xaxes(range=[0.5, widest + 0.5], showgrid=False, dtick=every)
    if len(shown) > 1:
        values = [[_line(tables[s].get(str(module))) for module in modules["module"]] for s in shown]
        _add_slider(figure, shown, values, list(range(first, first + len(modules))))
    # A place in shares of a height that has grown since.
    figure.update_layout(legend_y=1 - style.BUTTONS / figure.layout.height)
    return figure


def _base_values(spectra: pd.DataFrame, top: int) -> pd.DataFrame:
    """W's singular values, largest first: module, layer, number, sigma; no lines where they are not known."""
    if "sigma_base" not in spectra:
        return pd.DataFrame()
    known = spectra.assign(sigma=pd.to_numeric(spectra["sigma_base"]))
    known = known[known["sigma"] > 0]
    known = known[known["step"] == known["step"].max()].sort_values(
        ["module", "sigma"], ascending=[True, False], kind="stable"
    )
    known = known.assign(number=known.groupby("module", sort=False).cumcount() + 1)
    return known.loc[known["number"] <= top, ["module", "layer", "number", "sigma"]]


def _add_base(figure: go.Figure, values: pd.DataFrame, kinds: list[str], columns: int) -> None:
    """One grey trace per panel: all its matrices, with a gap after each."""
    place = values["module"].map(lambda module: kinds.index(module_kind(str(module))))
    for panel, part in values.groupby(place):
        x: list[float | None] = []
        y: list[float | None] = []
        customdata: list[list[object]] = []
        names: list[str] = []
        for module, one in part.groupby("module", sort=False):
            x += [*one["number"].tolist(), None]
            y += [*one["sigma"].tolist(), None]
            customdata += [[str(module), int(one["layer"].iloc[0])]] * (len(one) + 1)
            names += [safe_text(module)] * (len(one) + 1)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines" if len(part) > part["module"].nunique() else "markers",
            line={"color": style.translucent(style.COLOURS["quiet"], 0.7), "width": 1},
            marker={"color": style.COLOURS["quiet"], "size": 4},
            name="W itself, the weights before training; coloured: ΔW",
            legendgroup="base",
            showlegend=len(figure.data) == 0,
            customdata=customdata,
            hovertext=names,
            hovertemplate="<b>%{hovertext}</b><br>σ<sub>%{x}</sub>(W) = %{y:.3g}<extra></extra>",
            row=int(panel) // columns + 1,
            col=int(panel) % columns + 1,
        )
    # The legend's line lies above the panels' titles.
    figure.update_layout(margin_t=82, height=figure.layout.height + 26)


def _panels(kinds: list[str], axis: str, columns: int) -> go.Figure:
    """One panel per kind of matrix, axes shared."""
    lines = math.ceil(len(kinds) / columns)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=0.22 / lines,
        subplot_titles=[safe_text(kind, 40) for kind in kinds],
        x_title="number of the singular value",
        y_title=axis,
        figure=style.new_figure(height=150 + 190 * lines),
    )
    figure.update_annotations(font_size=12)
    figure.update_layout(margin={"l": 70, "t": 56, "b": 60})
    return figure


def _layer_colours(layers: list[int]) -> dict[int, str]:
    """A colour per layer along the ordered scale; grey for matrices that lie in none."""
    inside = [layer for layer in layers if layer >= 0]
    colours = dict(zip(inside, style.ordered_colours(len(inside)), strict=True))
    return {-1: style.COLOURS["quiet"], **colours}


def _line(part: pd.DataFrame | None) -> list[float]:
    return [] if part is None else part["sigma"].tolist()


def _add_layer_bar(figure: go.Figure, layers: list[int]) -> None:
    """A colour bar for the layers, carried by a marker that is never drawn."""
    inside = [layer for layer in layers if layer >= 0]
    if len(inside) < 2:
        return
    every = max(1, math.ceil(len(inside) / 8))
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={
            "color": [inside[0]],
            "cmin": inside[0],
            "cmax": inside[-1],
            "colorscale": list(style.ORDERED),
            "colorbar": colour_bar("layer", tickvals=inside[::every]),
        },
        hoverinfo="skip",
        showlegend=False,
        name="layers",
    )


def _add_slider(
    figure: go.Figure, steps: list[int], values: list[list[list[float]]], traces: list[int]
) -> None:
    """Every step's values behind one slider that begins at the last, what the figure shows unmoved; and play.

    The frames lie in the button itself and the figure has none of its own: those, exported pages would start
    to play as they open. A frame moves the slider's knob along.
    """
    frames = [
        {
            "data": [{"y": y} for y in lines],
            "traces": traces,
            "layout": {"sliders": [{"active": i}]},
        }
        for i, lines in enumerate(values)
    ]
    now = {"mode": "immediate", "transition": {"duration": 0}}
    figure.update_layout(
        height=figure.layout.height + 70,
        margin={"b": 130},
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "showactive": False,
                "x": 0,
                "xanchor": "left",
                "y": 0,
                "yanchor": "top",
                "pad": {"t": 58, "l": -56},
                "bgcolor": "rgba(128,128,128,0.12)",
                "bordercolor": "rgba(128,128,128,0.45)",
                "font": {"size": 12},
                "buttons": [
                    {
                        "label": "▶",
                        "method": "animate",
                        "args": [frames, {**now, "frame": {"duration": _FRAME, "redraw": True}}],
                    },
                    {
                        "label": "❚❚",
                        "method": "animate",
                        "args": [[None], {**now, "frame": {"duration": 0, "redraw": False}}],
                    },
                ],
            }
        ],
        sliders=[
            {
                "active": len(steps) - 1,
                "currentvalue": {"prefix": "training step ", "xanchor": "left"},
                "pad": {"t": 50, "b": 0},
                "len": 0.94,
                "x": 1,
                "xanchor": "right",
                "minorticklen": 0,
                "ticklen": 4,
                "tickcolor": style.INK,
                "bgcolor": "rgba(128,128,128,0.25)",
                "bordercolor": "rgba(128,128,128,0.25)",
                "activebgcolor": style.COLOURS["poisoned"],
                "steps": [
                    {"label": str(step), "method": "restyle", "args": [{"y": lines}, traces]}
                    for step, lines in zip(steps, values, strict=True)
                ],
            }
        ],
    )
