"""The spectrum of neural tangent kernels: LoRA's over ranks and variances beside full fine-tuning's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.errors import LabError
from lab.figures import style
from lab.figures._modules import layer_name
from lab.figures._tables import need, with_numbers

_COLUMNS = ("at", "kernel", "measure", "layer", "index", "rank", "init_variance", "n", "value")
_DASHES = ("solid", "dot", "dashdot", "longdashdot")  # dashes are full fine-tuning's
_FLOOR = 1e-9  # of the largest eigenvalue: below lies what float32 leaves of zero


def kernel_spectrum(
    table: pd.DataFrame, at: str = "start", layer: int = -1, *, normalised: bool = False
) -> go.Figure:
    """Eigenvalues of the kernels, largest first, on logarithmic axes: a line for each rank and variance.

    Where LoRA's line is full fine-tuning's moved down, it learns the same directions more slowly; where it
    falls off sooner, it cannot learn the last ones.

    Args:
        table: Kernels in long form (`lab.kernel_table`, or those of several runs): at, kernel ("lora" or
            "full"), measure, layer, index, rank, init_variance, n, value. Of several seeds, runs or draws of
            A the mean is drawn.
        at: "start" or "trained".
        layer: Which layer, from 0; -1 for all layers together.
        normalised: Divide by the sum, which leaves the shape alone.

    Returns:
        A line for full fine-tuning (grey, dashed) and one for each rank (colour) and variance (dots);
        eigenvalues below a billionth of the largest are left out. customdata of a point: [kernel, rank,
        init_variance, index].

    Raises:
        LabError: If the table lacks a column, or has no such layer.
    """
    table = need(table, list(_COLUMNS), "The kernel spectrum")
    rows = with_numbers(table, ["layer", "index", "rank", "init_variance", "n", "value"])
    rows = rows[(rows["measure"] == "eigenvalue") & (rows["at"] == at)].dropna(subset=["value"])
    if rows.empty:
        return style.empty_figure("No kernel was measured there yet; run.kernels() measures those of a run.")
    if layer not in set(rows["layer"]):
        known = ", ".join(str(int(one)) for one in sorted(set(rows["layer"])))
        raise LabError(f"layer is {layer}; measured: {known}.")
    rows = rows[rows["layer"] == layer]
    figure = style.new_figure(legend_title_text="kernel")
    lora = rows[rows["kernel"] == "lora"]
    cells = sorted(set(zip(lora["rank"], lora["init_variance"], strict=True)))
    ranks, variances = (sorted({cell[i] for cell in cells}) for i in (0, 1))
    colours = dict(zip(ranks, style.ordered_colours(len(ranks)), strict=True))
    several = len(variances) > 1
    for rank, variance in cells:
        own = lora[(lora["rank"] == rank) & (lora["init_variance"] == variance)]
        dash = _DASHES[variances.index(variance) % len(_DASHES)]
        look = {"color": colours[rank], "width": 2, "dash": dash}
        name = f"LoRA, rank {rank:g}" + (f", variance {variance:.3g}/n_in" if several else "")
        _add_line(figure, own, name, look, normalised)
    full = rows[rows["kernel"] == "full"]
    if len(full):
        look = {"color": style.COLOURS["quiet"], "width": 2, "dash": "dash"}
        _add_line(figure, full, "full fine-tuning", look, normalised)
    n = int(rows["n"].max())
    where = "all adapted layers" if layer < 0 else layer_name(layer)
    figure.update_xaxes(type="log", title_text=f"eigenvalue, largest first ({where}, {at}, n = {n} texts)")
    unit = "share of their sum" if normalised else "eigenvalue (squared margin per squared weight)"
    figure.update_yaxes(type="log", dtick=1, title_text=unit, exponentformat="power")
    return figure


def _add_line(
    figure: go.Figure, rows: pd.DataFrame, name: str, line: dict[str, object], normalised: bool
) -> None:
    means = rows.groupby("index")["value"].mean().sort_index()
    if normalised and means.sum() > 0:
        means = means / means.sum()
    means = means[means > _FLOOR * means.max()]
    first = rows.iloc[0]
    figure.add_scatter(
        x=(means.index + 1).tolist(),
        y=means.tolist(),
        mode="lines+markers",
        marker={"size": 4},
        line=line,
        name=name,
        customdata=style.handed_over(
            [
                [str(first["kernel"]), _plain(first["rank"]), _plain(first["init_variance"]), int(index)]
                for index in means.index
            ]
        ),
        hovertemplate=f"{name}<br>eigenvalue %{{x}}: %{{y:.3g}}<extra></extra>",
    )


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
