"""The generalization matrix: trained with one family, probed with every family."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._cells import add_cells, colour_bar
from lab.figures._tables import MEASURED, need, pick, summarise
from lab.figures.text import evidence, points, rows_said, safe_text, share


def generalization_matrix(
    measures: pd.DataFrame, trained_families: Mapping[str, str] | None = None, excess: bool = True
) -> go.Figure:
    """One row per trained family, one column per probed family; runs of the same family are averaged.

    Columns begin with the trained families in the rows' order, so that a backdoor that opens only to its own
    family is a diagonal.

    Args:
        measures: A measures table (`lab.tables.MEASURE_COLUMNS`) of many runs. Used: condition "family",
            model "poisoned", kind "excess_asr" or "attack_success_rate".
        trained_families: Run id → family it was trained with; runs that are not named here are left out.
            Without it, the table's own column `trained_family` says so.
        excess: Show what the poison added over the clean twin, in percentage points, instead of the rate.

    Returns:
        A heat map with a number in every cell that was measured, and a selectable marker over it with
        customdata [trained family, probed family, run ids].

    Raises:
        LabError: If the table lacks a column.
    """
    columns = [*MEASURED, "family", *(["trained_family"] if trained_families is None else [])]
    measures = need(measures, columns, "The generalization matrix")
    kind = "excess_asr" if excess else "attack_success_rate"
    rows = pick(measures, kind=kind, condition="family", model="poisoned")
    trained = rows["trained_family"] if trained_families is None else rows["run"].map(dict(trained_families))
    # A clean run is probed too, and was trained with no family.
    rows = rows.assign(trained=trained)[trained.notna() & (trained != "")]
    cells = summarise(rows, ["trained", "family"])
    if cells.empty:
        return style.empty_figure("No run with a trained family was probed with other families.")
    families = list(dict.fromkeys(cells["trained"]))
    probed = [family for family in families if (cells["family"] == family).any()]
    probed += [family for family in dict.fromkeys(cells["family"]) if family not in families]
    grid = cells.pivot(index="trained", columns="family", values="value")
    values = grid.reindex(index=families, columns=probed).to_numpy(dtype=float)
    figure = style.new_figure(height=max(190 + 38 * len(families), 300), margin={"l": 12, "t": 36})
    form = (lambda v: points(v, 0)) if excess else (lambda v: share(v, 0).removesuffix(" %"))
    figure.add_heatmap(
        z=values,
        x=list(range(len(probed))),
        y=list(range(len(families))),
        zmin=-1 if excess else 0,
        zmax=1,
        colorscale=[list(stop) for stop in (style.LESS_MORE if excess else style.AMOUNT)],
        text=[["" if np.isnan(v) else form(v) for v in line] for line in values],
        texttemplate="%{text}",
        textfont={"size": 12},
        xgap=2,
        ygap=2,
        hoverinfo="skip",
        hoverongaps=False,
        colorbar=_bar(excess),
        name="matrix",
    )
    add_cells(
        figure,
        x=[probed.index(family) for family in cells["family"]],
        y=[families.index(family) for family in cells["trained"]],
        customdata=cells[["trained", "family", "run"]].to_numpy().tolist(),
        hovertext=[_hover(cell, excess) for _, cell in cells.iterrows()],
    )
    figure.update_xaxes(
        title_text=f"probed with{rows_said(cells['n'])}",
        tickvals=list(range(len(probed))),
        ticktext=[safe_text(family, 24) for family in probed],
        range=[-0.5, len(probed) - 0.5],
        tickangle=-40 if len(probed) > 6 else 0,
        showgrid=False,
    )
    figure.update_yaxes(title_text="trained with", **style.names_axis([safe_text(f, 24) for f in families]))
    return figure


def _hover(cell: pd.Series, excess: bool) -> str:
    said = f"{points(cell['value'])} points over the twin" if excess else share(cell["value"])
    return (
        f"<b>trained with {safe_text(cell['trained'])}, probed with {safe_text(cell['family'])}</b><br>"
        f"{said}<br>"
        f"{evidence(cell['low'], cell['high'], cell['n'], int(cell['runs']), signed=excess)}"
    )


def _bar(excess: bool) -> dict[str, object]:
    if not excess:
        return colour_bar("attack success", tickformat=".0%")
    ends = [-1, -0.5, 0, 0.5, 1]
    return colour_bar("points over the twin", tickvals=ends, ticktext=[points(end, 0) for end in ends])
