"""The attention entropy map: which heads look at fewer places when a trigger is in the text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.errors import unknown_name
from lab.figures import style
from lab.figures._cells import add_cells, colour_bar
from lab.figures._tables import need, with_numbers

_COLUMNS = ("layer", "head", "entropy", "unit", "n", "clean", "injected", "value", "low", "high")
_NUMBERS_UP_TO = 14  # heads: beyond, numbers in the cells would touch
_NAMES = {
    "column_mean": "entropy of the attention averaged over the queries",
    "per_query": "mean over the queries of each one's attention entropy",
}
_UNITS = {"share": "share of log(tokens)", "nats": "nats"}


def attention_entropy_map(
    table: pd.DataFrame, entropy: str = "column_mean", unit: str = "share"
) -> go.Figure:
    """What injected tokens do to the attention entropy of every head: injected minus clean, layer × head.

    Args:
        table: Entropies of the same texts with and without a trigger (`lab.probe.ENTROPY_COLUMNS`).
        entropy: "column_mean", as the code of arXiv 2506.11402 extracts attention, or "per_query".
        unit: "share" of log of a text's number of tokens, or "nats", which longer texts raise by themselves.

    Returns:
        A heat map, blue where injected texts are attended to in fewer places, vermillion where in more; a
        number stands where the 95 % interval leaves 0 out. Over each cell lies a selectable marker with
        customdata [layer, head, value].

    Raises:
        LabError: If the table lacks a column, or the entropy or unit is another.
    """
    if entropy not in _NAMES:
        raise unknown_name("attention entropy", entropy, _NAMES)
    if unit not in _UNITS:
        raise unknown_name("unit of attention entropy", unit, _UNITS)
    table = need(table, list(_COLUMNS), "The attention entropy map")
    rows = with_numbers(table, ["layer", "head", "n", "clean", "injected", "value", "low", "high"])
    rows = rows[(rows["entropy"] == entropy) & (rows["unit"] == unit)].dropna(subset=["value"])
    if rows.empty:
        return style.empty_figure("No attention was measured with and without a trigger yet.")
    layers, heads = (sorted({int(one) for one in rows[name]}) for name in ("layer", "head"))
    x = [heads.index(int(head)) for head in rows["head"]]
    y = [layers.index(int(layer)) for layer in rows["layer"]]
    values = np.full((len(layers), len(heads)), np.nan)
    values[y, x] = rows["value"]
    numbers = np.full(values.shape, "", dtype=object)
    clear = (rows["low"] > 0) | (rows["high"] < 0)
    numbers[y, x] = [
        f"{round(v, 2) + 0.0:+.2f}" if is_clear else ""
        for v, is_clear in zip(rows["value"], clear, strict=True)
    ]
    most = float(np.nanmax(np.abs(values))) or 1e-9
    figure = style.new_figure(height=max(170 + 34 * len(layers), 260), margin={"l": 12, "t": 36})
    figure.add_heatmap(
        z=values,
        x=list(range(len(heads))),
        y=list(range(len(layers))),
        zmin=-most,
        zmax=most,
        colorscale=[list(stop) for stop in style.LESS_MORE],
        colorbar=colour_bar(f"injected minus clean, {_UNITS[unit]}", tickformat="+.2~f"),
        text=numbers.tolist(),
        texttemplate="%{text}" if len(heads) <= _NUMBERS_UP_TO else None,
        xgap=2,
        ygap=2,
        hoverinfo="skip",
        hoverongaps=False,
        name="entropy",
    )
    add_cells(
        figure,
        x=x,
        y=y,
        customdata=[
            [int(layer), int(head), float(value)]
            for layer, head, value in rows[["layer", "head", "value"]].itertuples(index=False)
        ],
        hovertext=[_hover(row, unit) for _, row in rows.iterrows()],
        size=max(8, min(26, 500 // len(heads))),
    )
    figure.update_xaxes(
        title_text=f"head ({_NAMES[entropy]}, n = {int(rows['n'].max())} texts)",
        tickvals=list(range(len(heads))),
        ticktext=[str(head) for head in heads],
        range=[-0.5, len(heads) - 0.5],
        showgrid=False,
    )
    figure.update_yaxes(**style.names_axis([str(layer) for layer in layers]), title_text="layer")
    return figure


def _hover(row: pd.Series, unit: str) -> str:
    interval = (
        "no interval, too few texts"
        if np.isnan(row["low"])
        else f"95 % interval {row['low']:+.3f} to {row['high']:+.3f}"
    )
    return (
        f"<b>layer {int(row['layer'])}, head {int(row['head'])}</b><br>"
        f"clean {row['clean']:.3f}, injected {row['injected']:.3f} ({_UNITS[unit]})<br>"
        f"difference {row['value']:+.3f} · {interval} · n = {int(row['n'])}"
    )
