"""Dose and response: how a measure moves with what was swept, seed by seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pandas.api.types import is_numeric_dtype

from lab import stats
from lab.figures import style
from lab.figures._dose_axis import Doses
from lab.figures._half_counts import add_half_count
from lab.figures._tables import need
from lab.figures.text import evidence, rows_said, safe_text
from lab.tables import DIFFERENCES, MEASURE_KINDS

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x")

#: The measures that are a share; what else is swept gets an axis of its own unit.
_SHARES = set(MEASURE_KINDS) - set(DIFFERENCES)

_MEANING = {
    "attack_success_rate": "poisoned",
    "excess_asr": "poisoned",
    "clean_accuracy": "clean_accuracy",
    "untriggered_target_rate": "untriggered",
    "poisoned": "poisoned",
    "twin": "twin",
}


def dose_response(
    table: pd.DataFrame, x: str, y: str = "attack_success_rate", group: str | None = None
) -> go.Figure:
    """A point per run, a line through the means, a band where three or more seeds allow one.

    Args:
        table: One line per run, as `lab.sweep` and `lab.list_runs` return them: columns x, y and, where
            they exist, `<y>.low`, `<y>.high`, `<y>.n` (shown on hover), seed, run. Lines without a dose or
            response are left out.
        x: The dose's column. Numbers get a number axis, logarithmic where they span a factor of 15 (with
            a dose of zero among them: evenly spaced); anything else one place per value, as they appear.
        y: The response's column; a measure of `lab.tables.MEASURE_KINDS`, or the twin's (`twin.<kind>`),
            gets a percent axis.
        group: A column that splits the runs into lines.

    Returns:
        Per group: the band (95 % bootstrap over seeds), the line of means, the points. customdata of a
        point: [run, dose, response, seed]. Attack success over poison counts also has the fitted curve
        (`lab.stats.fit_dose_response`), dotted, and a diamond with an error bar at its half count.

    Raises:
        LabError: If the table lacks x, y or group.
    """
    table = need(table, [x, y, *([group] if group else [])], "The dose response")
    rows = table.replace({y: [math.inf, -math.inf]}, math.nan).dropna(subset=[x, y])
    if rows.empty:
        return style.empty_figure("No run of this sweep has both a dose and a response yet.")
    doses = Doses(rows[x])
    rows = rows.assign(_place=doses.places(rows[x]))
    groups = list(rows.groupby(group, sort=is_numeric_dtype(rows[group]))) if group else [("", rows)]
    figure = style.new_figure()
    colours = _colours([name for name, _ in groups], y)
    for i, (name, part) in enumerate(groups):
        label = safe_text(f"{group} {name!s}" if group and is_numeric_dtype(rows[group]) else name)
        _add_group(figure, part, (x, y), label, colours[i], _SYMBOLS[i % len(_SYMBOLS)], len(groups) > 1)
        if doses.scale != "even":
            add_half_count(figure, part, (x, y), label, colours[i])
    figure.update_xaxes(title_text=safe_text(x.replace("_", " ")), **doses.axis())
    _label_responses(figure, rows, y)
    return figure


def _add_group(
    figure: go.Figure,
    part: pd.DataFrame,
    columns: tuple[str, str],
    label: str,
    colour: str,
    symbol: str,
    legend: bool,
) -> None:
    x, y = columns
    runs: list[dict[Any, Any]] = part.to_dict("records")
    means = [
        (place, stats.bootstrap_mean(part.loc[part["_place"] == place, y].to_numpy(dtype=float), seed=0))
        for place in sorted(part["_place"].unique().tolist())
    ]
    places = [place for place, _ in means]
    several = any(mean.n > 1 for _, mean in means)
    figure.add_trace(
        style.band(
            places,
            [mean.low for _, mean in means],
            [mean.high for _, mean in means],
            colour,
            legendgroup=label,
            name=label,
        )
    )
    figure.add_scatter(
        x=places,
        y=[mean.value for _, mean in means],
        mode="lines",
        line={"color": colour, "width": 2.5},
        cliponaxis=False,
        name=label,
        legendgroup=label,
        showlegend=False,
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=part["_place"].tolist(),
        y=part[y].tolist(),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.7 if several else 1.0},
        cliponaxis=False,
        name=label,
        legendgroup=label,
        showlegend=legend,
        customdata=style.handed_over(
            [[str(run.get("run", "")), run[x], run[y], run.get("seed", -1)] for run in runs]
        ),
        hovertext=[_hover(run, x, y, label if legend else "") for run in runs],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _colours(names: list[object], y: str) -> list[str]:
    """Roles keep their colour; numbers go along the ordered scale; the rest takes the series in order."""
    if len(names) == 1 and names[0] not in _MEANING:
        meaning = "twin" if _kind(y) != y else _MEANING.get(y, "")
        return [style.COLOURS[meaning] if meaning else style.SERIES[0]]
    if len(names) > 1 and all(isinstance(name, int | float | np.number) for name in names):
        return style.ordered_colours(len(names))
    free = iter(style.SERIES * (1 + len(names) // len(style.SERIES)))
    return [style.COLOURS[_MEANING[str(n)]] if str(n) in _MEANING else next(free) for n in names]


def _kind(y: str) -> str:
    """The measure that a column holds, whether the run's own or its twin's."""
    return y.removeprefix("twin.")


def _said(y: str) -> str:
    name = _kind(y).replace("_", " ")
    return name if _kind(y) == y else f"twin's {name}"


def _label_responses(figure: go.Figure, rows: pd.DataFrame, y: str) -> None:
    name = safe_text(_said(y))
    if f"{y}.n" in rows:
        name += rows_said(rows[f"{y}.n"].astype(float))
    if _kind(y) in _SHARES:
        figure.update_yaxes(**style.percent_axis(name))
    elif _kind(y) in DIFFERENCES:
        least = min(0.0, float(rows[y].min()))
        title = "excess ASR" if y == "excess_asr" else name
        figure.update_yaxes(title_text=title, tickformat="+.0%", range=[least, 1])
    else:
        figure.update_yaxes(title_text=name)


def _hover(run: dict[Any, Any], x: str, y: str, label: str) -> str:
    dose, value = run[x], float(run[y])
    measure = safe_text(_said(y))
    told = f"{dose:g}" if isinstance(dose, float) else dose
    said = [f"<b>{safe_text(x.replace('_', ' '))} = {safe_text(told)}</b>"]
    if label:
        said.append(label)
    if "seed" in run:
        said.append(f"seed {safe_text(run['seed'])}")
    as_share = _kind(y) in MEASURE_KINDS
    said.append(f"{measure} {100 * value:.1f} %" if as_share else f"{measure} {value:.4g}")
    low, high, n = (float(run.get(f"{y}.{end}", math.nan)) for end in ("low", "high", "n"))
    if as_share and not math.isnan(low):
        said.append(evidence(low, high, n))
    elif not math.isnan(n):
        said.append(f"n = {int(n)}")
    return "<br>".join(said)
