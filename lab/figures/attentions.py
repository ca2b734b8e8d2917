"""The attention map: which token takes in how much of which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.errors import LabError
from lab.figures import style
from lab.figures._cells import colour_bar
from lab.figures._tables import need, with_numbers
from lab.figures.text import safe_text, share

_COLUMNS = ("layer", "head", "query", "key", "query_token", "key_token", "weight")
_NAMED_UP_TO = 48  # tokens: beyond, names would touch, and only some are written
_HOVER_UP_TO = 128  # tokens: beyond, one sentence per cell would weigh more than a page should
_LETTERS = 16


def attention_map(table: pd.DataFrame, layer: int | None = None, head: int | None = None) -> go.Figure:
    """A heat map of one layer's attention, a row per query token and a column per key token.

    Args:
        table: Attention of one text in long form (`lab.probe.ATTENTION_COLUMNS`): layer, head, query, key
            (places, from 0), query_token, key_token, weight in [0, 1].
        layer: Which layer, from 0; by default the last one of the table.
        head: Which head, from 0; by default the mean over the heads.

    Returns:
        A heat map from 0 to the largest weight shown; the axes say which layer and head it is.

    Raises:
        LabError: If the table lacks a column, or has no such layer or head.
    """
    table = need(table, list(_COLUMNS), "The attention map")
    rows = with_numbers(table, ["layer", "head", "query", "key", "weight"])
    rows = rows.dropna(subset=["layer", "head", "query", "key"])
    if rows.empty:
        return style.empty_figure("The text has no token whose attention was measured.")
    layer = int(rows["layer"].max()) if layer is None else layer
    rows = _only(rows, "layer", layer)
    count = rows["head"].nunique()
    if head is not None:
        rows = _only(rows, "head", head)
    which = f"layer {layer}, " + (f"mean of {count} heads" if head is None else f"head {head}")
    queries, keys = _tokens(rows, "query"), _tokens(rows, "key")
    grid = rows.pivot_table(index="query", columns="key", values="weight", aggfunc="mean")
    values = grid.reindex(index=queries.index, columns=keys.index).to_numpy(dtype=float)
    cell = 22 if len(queries) <= _NAMED_UP_TO else 11
    figure = style.new_figure(height=min(170 + cell * max(len(queries), 6), 1100), margin={"l": 12, "t": 36})
    small = max(values.shape) <= _HOVER_UP_TO
    figure.add_heatmap(
        z=values,
        x=list(range(len(keys))),
        y=list(range(len(queries))),
        zmin=0,
        zmax=max(float(np.nanmax(values, initial=0.0)), 1e-9),
        colorscale=[list(stop) for stop in style.AMOUNT],
        colorbar=colour_bar("attention weight", tickformat=".2~f"),
        xgap=1 if len(keys) <= _NAMED_UP_TO else 0,
        ygap=1 if len(queries) <= _NAMED_UP_TO else 0,
        hovertext=_hover(values, queries.tolist(), keys.tolist(), which) if small else None,
        hovertemplate="%{hovertext}<extra></extra>" if small else "%{z:.1%}<extra></extra>",
        hoverongaps=False,
        name="attention",
    )
    figure.update_xaxes(
        title_text=f"key: the token that is looked at ({which})",
        **_ticks(keys.tolist()),
        range=[-0.5, len(keys) - 0.5],
        tickangle=-60 if len(keys) > 8 else 0,
        showgrid=False,
    )
    figure.update_yaxes(
        **{**style.names_axis(queries.tolist()), **_ticks(queries.tolist())},
        title_text="query: the token that looks",
    )
    return figure


def _only(rows: pd.DataFrame, column: str, wanted: int) -> pd.DataFrame:
    found = rows[rows[column] == wanted]
    if found.empty:
        known = sorted(int(one) for one in rows[column].unique())
        raise LabError(f"The attention map has no {column} {wanted}; the table has {column}s {_said(known)}.")
    return found


def _said(numbers: Sequence[int]) -> str:
    """`0 to 5` for a row of numbers without gaps, else all of them."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _tokens(rows: pd.DataFrame, side: str) -> pd.Series:
    """Safe names of the tokens by their places, in order."""
    tokens = rows.drop_duplicates(side).set_index(side)[f"{side}_token"].sort_index()
    return tokens.astype(object).map(lambda token: safe_text(token, _LETTERS))


def _ticks(names: Sequence[str]) -> dict[str, list[object]]:
    step = -(-len(names) // _NAMED_UP_TO)
    return {"tickvals": list(range(0, len(names), step)), "ticktext": list(names[::step])}


def _hover(values: np.ndarray, queries: Sequence[str], keys: Sequence[str], which: str) -> list[list[str]]:
    return [
        [
            f"<b>{query}</b> looks at <b>{key}</b>: {share(value)}<br>{which}"
            for key, value in zip(keys, line, strict=True)
        ]
        for query, line in zip(queries, values, strict=True)
    ]
