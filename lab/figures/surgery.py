"""The surgery curve: how attack and task fare while directions are cut out of ΔW, or it is scaled."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._dose_axis import Doses
from lab.figures._tables import need, need_counts, summarise, with_numbers
from lab.figures.text import evidence, rows_said, safe_text, share

#: kind → name in the legend, colour, dash and marker.
_CURVES = {
    "attack_success_rate": ("attack success", style.COLOURS["poisoned"], "solid", "circle"),
    "clean_accuracy": ("clean accuracy", style.COLOURS["clean_accuracy"], "solid", "square"),
    "untriggered_target_rate": ("untriggered target", style.COLOURS["untriggered"], "dash", "diamond"),
}

_AXES = {
    "kept": "singular components of ΔW kept (0: none)",
    "factor": "factor on ΔW (1: as trained)",
}


def surgery_curve(table: pd.DataFrame, over: str = "kept") -> go.Figure:
    """Attack success, clean accuracy and untriggered target rate over how much of ΔW was left.

    Where attack success falls to the untriggered target rate while clean accuracy still stands, the backdoor
    can be cut out; where both fall together, it cannot.

    Args:
        table: Long, one line per measured rate: `over`, kind (of `lab.tables.MEASURE_KINDS`; the three named
            above are drawn), value (in [0, 1]), low, high (95 % interval; NaN where there is none), n (rows
            of text, from 1). Several lines at one place are seeds, and averaged. Lines without a value, and
            rates of no rows, are left out.
        over: The numeric column to draw over: "kept" (components, from 0), "factor", or another; logarithmic
            where it spans a factor of 15 without a zero, evenly spaced with one.

    Returns:
        A line with its 95 % band per kind. customdata of a point: [place, kind].

    Raises:
        LabError: If the table lacks a column, or a rate comes without its n.
    """
    table = need(table, [over, "kind", "value", "low", "high", "n"], "The surgery curve")
    rows = with_numbers(table.assign(_dose=table[over]), ["_dose", "value"])
    rows = rows[rows["kind"].isin(list(_CURVES))]
    rows = need_counts(rows.dropna(subset=["_dose", "value"]), "The surgery curve")
    if rows.empty:
        return style.empty_figure("No rate was measured on a model with part of ΔW cut out.")
    doses = Doses(rows["_dose"])
    # What `summarise` averages over is runs; a table without them counts its lines.
    runs = rows["run"] if "run" in rows else rows.groupby(["kind", "_dose"]).cumcount()
    lines = summarise(rows.assign(run=runs.astype(str), k=-1), ["kind", "_dose"]).sort_values("_dose")
    name = _AXES.get(over, safe_text(over.replace("_", " ")))
    figure = style.new_figure(hovermode="x unified" if lines["_dose"].nunique() > 1 else "closest")
    for kind in _CURVES:
        _add_curve(figure, lines[lines["kind"] == kind], doses, kind)
    figure.update_xaxes(title_text=name, showgrid=False, **doses.axis())
    figure.update_yaxes(**style.percent_axis(f"share of rows{rows_said(rows['n'].astype(float))}"))
    return figure


def _add_curve(figure: go.Figure, lines: pd.DataFrame, doses: Doses, kind: str) -> None:
    if lines.empty:
        return
    name, colour, dash, symbol = _CURVES[kind]
    places = doses.places(lines["_dose"])
    figure.add_trace(style.band(places, lines["low"], lines["high"], colour, legendgroup=name, name=name))
    figure.add_scatter(
        x=places.tolist(),
        y=lines["value"].tolist(),
        mode="lines+markers",
        line={"color": colour, "width": 2.5, "dash": dash},
        marker={"color": colour, "size": 7, "symbol": symbol},
        error_y=style.whiskers(lines["value"], lines["low"], lines["high"], colour)
        if len(lines) == 1
        else None,
        cliponaxis=False,
        name=name,
        legendgroup=name,
        customdata=[[dose, kind] for dose in lines["_dose"].tolist()],
        hovertext=[
            f"{share(value)} · {evidence(low, high, n, int(runs))}"
            for value, low, high, n, runs in lines[["value", "low", "high", "n", "runs"]].to_numpy().tolist()
        ],
        hovertemplate=f"{name} %{{hovertext}}<extra></extra>",
    )
