"""A measure of the kernels over the layers: LoRA's beside full fine-tuning's, at the start and as trained."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from lab.errors import LabError
from lab.figures import style
from lab.figures._tables import need, with_numbers
from lab.figures.text import safe_text

_COLUMNS = ("at", "kernel", "measure", "layer", "rank", "n", "value", "low", "high")
_LOG_FROM = 30.0  # values that span more get a logarithmic axis
_LOOKS = {"start": ("dot", "circle-open"), "trained": ("solid", "circle")}


def kernel_by_layer(table: pd.DataFrame, measure: str = "full_cka") -> go.Figure:
    """One measure of the kernels of every layer: a line for each kernel where training starts and as trained.

    Args:
        table: Kernels in long form, of one run (`lab.Run.kernels`) or of several ranks: at, kernel ("lora" or
            "full"), measure, layer, rank, n, value, low, high. Of several seeds or draws of A the mean is
            drawn, without an interval.
        measure: One of `lab.probe.KERNEL_MEASURES` that layers have.

    Returns:
        Lines over the layers from 0, full fine-tuning's grey; dotted at the start, solid as trained. A
        measure that compares LoRA with full fine-tuning has no grey line. Values above zero that span a
        factor of 30 get a logarithmic axis. customdata of a point: [kernel, at, layer, value].

    Raises:
        LabError: If the table lacks a column, or no layer has this measure.
    """
    table = need(table, list(_COLUMNS), "The figure of kernels by layer")
    rows = with_numbers(table, ["layer", "rank", "n", "value", "low", "high"])
    rows = rows[(rows["layer"] >= 0) & (rows["measure"] != "eigenvalue")].dropna(subset=["value"])
    if rows.empty:
        return style.empty_figure(
            "No layer's kernel was measured yet; run.kernels() measures those of a run."
        )
    if measure not in set(rows["measure"]):
        known = ", ".join(dict.fromkeys(rows["measure"]))
        raise LabError(f"measure is {safe_text(measure)!r}; layers have {known}.")
    rows = rows[rows["measure"] == measure]
    figure = style.new_figure(legend_title_text="kernel")
    ranks = sorted(rows.loc[rows["kernel"] == "lora", "rank"].unique())
    colours = dict(zip(ranks, style.ordered_colours(len(ranks)), strict=True)) if ranks else {}
    for rank in ranks:
        own = rows[(rows["kernel"] == "lora") & (rows["rank"] == rank)]
        _add_lines(figure, own, f"LoRA, rank {rank:g}", colours[rank])
    full = rows[rows["kernel"] == "full"]
    _add_lines(figure, full, "full fine-tuning", style.COLOURS["quiet"])
    low, high = float(rows["value"].min()), float(rows["value"].max())
    figure.update_xaxes(title_text=f"layer (n = {int(rows['n'].max())})", dtick=1, showgrid=False)
    figure.update_yaxes(title_text=safe_text(measure.replace("_", " ")))
    if low > 0 and high / low > _LOG_FROM:
        figure.update_yaxes(type="log", exponentformat="power")
    return figure


def _add_lines(figure: go.Figure, rows: pd.DataFrame, name: str, colour: str) -> None:
    """A line for each place where it was measured."""
    for at, (dash, symbol) in _LOOKS.items():
        own = rows[rows["at"] == at]
        if own.empty:
            continue
        lines = own.groupby("layer").agg(
            value=("value", "mean"), low=("low", "first"), high=("high", "first"), count=("value", "size")
        )
        # the interval of one draw is not that of a mean
        lines.loc[lines["count"] > 1, ["low", "high"]] = float("nan")
        figure.add_scatter(
            x=lines.index.tolist(),
            y=lines["value"].tolist(),
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": dash},
            marker={"color": colour, "size": 7, "symbol": symbol},
            error_y=style.whiskers(lines["value"], lines["low"], lines["high"], colour),
            name=f"{name}, {'as trained' if at == 'trained' else 'start'}",
            customdata=style.handed_over(
                [
                    [str(own["kernel"].iloc[0]), at, layer, float(value)]
                    for layer, value in zip(lines.index.tolist(), lines["value"], strict=True)
                ]
            ),
            hovertemplate=f"{name}, {at}<br>layer %{{x}}: %{{y:.3g}}<extra></extra>",
        )
