"""The defense frontier: what a defense takes from the attack, and what it costs in clean accuracy."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab import stats
from lab.errors import LabError
from lab.figures import style
from lab.figures._spots import label_spots
from lab.figures._tables import need, with_numbers
from lab.figures.text import evidence, points, rows_said, safe_text, share

_RATES = {"excess_asr": "excess ASR", "attack_success_rate": "attack success rate"}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x")
_QUARTERS = (0, 0.25, 0.5, 0.75, 1)
_COLUMNS = 2  # panels side by side at most: in narrower ones the arms' names would touch

#: Rough pixels of one panel in a page of ordinary width, to judge which labels would touch.
_PANEL = {1: (640, 330), 2: (310, 330)}


def defense_frontier(
    table: pd.DataFrame,
    rate: str = "excess_asr",
    reference: str = "lora",
    target_rate: float = 0.05,
    accuracy_drop: float = 0.02,
) -> go.Figure:
    """Attack over clean accuracy, a colour per arm: down is safer, right is better at the task.

    A good defense lies in the shaded corner: the attack almost gone, the task almost as good as undefended.
    An arm low on the left bought its safety with accuracy.

    Args:
        table: One line per run, as `lab.sweep` returns them: arm (what was done), seed, clean_accuracy and
            the rate (shares; excess_asr in [-1, 1]); where they exist, `<measure>.low` and `.high` become
            error bars, `<measure>.n` is said, trigger splits the runs into panels, run is handed on. Lines
            without an accuracy or a rate are left out.
        rate: "excess_asr" or "attack_success_rate".
        reference: The arm whose mean clean accuracy, panel by panel, the corner starts from.
        target_rate: Top of the corner, in [0, 1].
        accuracy_drop: How far below the reference's accuracy the corner begins, in [0, 1].

    Returns:
        Per panel and arm: a small marker per run, customdata [arm, seed, run], and a large labelled one for
        the mean over the runs, customdata [arm, -1, run ids with commas]; the corner as a shape, in panels
        that have the reference arm.

    Raises:
        LabError: If the table lacks a column, or the rate is another.
    """
    if rate not in _RATES:
        raise LabError(f"rate is {rate!r}; allowed: {', '.join(_RATES)}.")
    table = need(table, ["arm", "seed", "clean_accuracy", rate], "The defense frontier")
    rows = with_numbers(table, ["clean_accuracy", rate])
    rows = rows.dropna(subset=["arm", "clean_accuracy", rate])
    if rows.empty:
        return style.empty_figure("No run of this sweep has both a clean accuracy and an attack rate yet.")
    rows = rows.assign(arm=rows["arm"].astype(str))
    triggers = list(dict.fromkeys(rows["trigger"].astype(str))) if "trigger" in rows else [""]
    figure, columns = _panels(triggers)
    ranges = _ranges(rows, rate, reference, target_rate, accuracy_drop)
    looks = _looks(list(dict.fromkeys(rows["arm"])), reference)
    cornered = False
    for i, trigger in enumerate(triggers):
        part = rows[rows["trigger"].astype(str) == trigger] if "trigger" in rows else rows
        cell = {"row": i // columns + 1, "col": i % columns + 1}
        own = part.loc[part["arm"] == reference, "clean_accuracy"]
        if len(own):
            cornered = True
            _add_corner(figure, float(own.mean()) - accuracy_drop, target_rate, ranges, cell)
        _add_arms(figure, part, rate, looks, ranges, columns, cell)
    _add_corner_name(figure, cornered, reference, target_rate, accuracy_drop)
    _label_axes(figure, rows, rate, ranges, len(triggers), columns)
    style.side_legend(figure)
    return figure


def _panels(triggers: list[str]) -> tuple[go.Figure, int]:
    """One panel per trigger, axes shared, and the number of columns."""
    columns = min(len(triggers), _COLUMNS)
    lines = math.ceil(len(triggers) / columns)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=0.14 / lines,
        subplot_titles=[safe_text(trigger, 40) for trigger in triggers],
        figure=style.new_figure(height=130 + 330 * lines),
    )
    figure.update_annotations(font_size=12)
    figure.update_layout(margin_t=56)
    return figure, columns


def _looks(arms: list[str], reference: str) -> dict[str, tuple[str, str]]:
    """Colour and marker of each arm; the reference is grey, being what the others are held against."""
    series = style.SERIES[:-1]
    others = [arm for arm in arms if arm != reference]
    looks = {
        arm: (series[i % len(series)], _SYMBOLS[(i + 1) % len(_SYMBOLS)]) for i, arm in enumerate(others)
    }
    return {**looks, reference: (style.COLOURS["quiet"], _SYMBOLS[0])}


def _ranges(
    rows: pd.DataFrame, rate: str, reference: str, target_rate: float, accuracy_drop: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ends of both axes: accuracy close around the runs, where points matter; the rate whole, to compare."""
    x = rows["clean_accuracy"]
    corner = rows.loc[rows["arm"] == reference, "clean_accuracy"].mean() - accuracy_drop
    ends = [float(x.min()), float(x.max()), *([float(corner)] if math.isfinite(corner) else [])]
    room = max(0.02, 0.12 * (max(ends) - min(ends)))
    least = min(0.0, float(rows[rate].min()))
    return (min(ends) - room, max(ends) + room), (least - 0.04, max(1.0, target_rate) + 0.04)


def _add_corner(
    figure: go.Figure,
    accuracy: float,
    target_rate: float,
    ranges: tuple[tuple[float, float], tuple[float, float]],
    cell: dict[str, int],
) -> None:
    figure.add_shape(
        type="rect",
        x0=accuracy,
        x1=ranges[0][1],
        y0=ranges[1][0],
        y1=target_rate,
        layer="below",
        fillcolor=style.translucent(style.COLOURS["clean_accuracy"], 0.18),
        line={"color": style.COLOURS["clean_accuracy"], "width": 1, "dash": "dot"},
        **cell,
    )


def _add_corner_name(
    figure: go.Figure, cornered: bool, reference: str, target_rate: float, accuracy_drop: float
) -> None:
    """What the corner is, or why there is none, as a line of the legend."""
    arm = safe_text(reference, 24)
    name = (
        f"target: at most {100 * target_rate:g} %, and no more<br>"
        f"than {100 * accuracy_drop:g} points less accurate<br>than {arm}"
        if cornered
        else f"no target corner:<br>no run of the arm {arm}"
    )
    green = style.COLOURS["clean_accuracy"]
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={
            "symbol": "square",
            "size": 12,
            "color": style.translucent(green, 0.18 if cornered else 0),
            "line": {"width": 1 if cornered else 0, "color": green},
        },
        name=name,
        hoverinfo="skip",
    )


def _add_arms(
    figure: go.Figure,
    rows: pd.DataFrame,
    rate: str,
    looks: dict[str, tuple[str, str]],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    columns: int,
    cell: dict[str, int],
) -> None:
    arms = list(dict.fromkeys(rows["arm"]))
    means = [
        tuple(float(rows.loc[rows["arm"] == arm, name].mean()) for name in ("clean_accuracy", rate))
        for arm in arms
    ]
    spots = label_spots(means, [arm[:24] for arm in arms], ranges, _PANEL[columns])
    for arm in arms:
        _add_runs(figure, rows[rows["arm"] == arm], rate, arm, looks[arm], cell)
    for arm, mean, spot in zip(arms, means, spots, strict=True):
        colour, symbol = looks[arm]
        part = rows[rows["arm"] == arm]
        figure.add_scatter(
            x=[mean[0]],
            y=[mean[1]],
            mode="markers+text",
            marker={
                "color": colour,
                "symbol": symbol,
                "size": 15,
                "line": {"width": 1.5, "color": "#FFFFFF"},
            },
            text=[safe_text(arm, 24)],
            textposition=spot,
            textfont={"size": 12},
            cliponaxis=False,
            name=safe_text(arm, 40),
            legendgroup=arm,
            showlegend=not any(trace.legendgroup == arm and trace.showlegend for trace in figure.data),
            customdata=[[arm, -1, _ids(part)]],
            hovertext=[_hover_mean(part, rate, arm)],
            hovertemplate="%{hovertext}<extra></extra>",
            **cell,
        )


def _add_runs(
    figure: go.Figure,
    rows: pd.DataFrame,
    rate: str,
    arm: str,
    look: tuple[str, str],
    cell: dict[str, int],
) -> None:
    colour, symbol = look
    runs: list[dict[Any, Any]] = rows.to_dict("records")
    figure.add_scatter(
        x=rows["clean_accuracy"].tolist(),
        y=rows[rate].tolist(),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.6},
        error_x=_bars(rows, "clean_accuracy", colour),
        error_y=_bars(rows, rate, colour),
        cliponaxis=False,
        name=safe_text(arm, 40),
        legendgroup=arm,
        showlegend=False,
        customdata=style.handed_over([[arm, run["seed"], str(run.get("run", ""))] for run in runs]),
        hovertext=[_hover_run(run, rate, arm) for run in runs],
        hovertemplate="%{hovertext}<extra></extra>",
        **cell,
    )


def _bars(rows: pd.DataFrame, measure: str, colour: str) -> dict[str, Any] | None:
    """Thin error bars; none where the table has no intervals."""
    if f"{measure}.low" not in rows or f"{measure}.high" not in rows:
        return None
    bars = style.whiskers(rows[measure], rows[f"{measure}.low"], rows[f"{measure}.high"], colour)
    return {**bars, "color": style.translucent(colour, 0.35), "thickness": 1}


def _ids(rows: pd.DataFrame) -> str:
    return ",".join(dict.fromkeys(map(str, rows["run"]))) if "run" in rows else ""


def _hover_run(run: dict[Any, Any], rate: str, arm: str) -> str:
    said = [f"<b>{safe_text(arm)}</b>, seed {safe_text(run['seed'])}"]
    for measure in (rate, "clean_accuracy"):
        low, high, n = (float(run.get(f"{measure}.{end}", math.nan)) for end in ("low", "high", "n"))
        told = _told(measure, run[measure])
        said.append(f"{told} · {evidence(low, high, n, signed=measure == 'excess_asr')}")
    return "<br>".join(said)


def _hover_mean(rows: pd.DataFrame, rate: str, arm: str) -> str:
    said = [f"<b>{safe_text(arm)}</b>"]
    for measure in (rate, "clean_accuracy"):
        mean = stats.bootstrap_mean(rows[measure].to_numpy(dtype=float), seed=0, resamples=4000)
        n = float(rows[f"{measure}.n"].sum()) if f"{measure}.n" in rows else math.nan
        signed = measure == "excess_asr"
        based = evidence(mean.low, mean.high, n, len(rows), signed) if len(rows) > 1 else "one run"
        said.append(f"{_told(measure, mean.value)} · {based}")
    return "<br>".join(said)


def _told(measure: str, value: float) -> str:
    name = _RATES.get(measure, "clean accuracy")
    return f"{name} {points(value)} points" if measure == "excess_asr" else f"{name} {share(value)}"


def _label_axes(
    figure: go.Figure,
    rows: pd.DataFrame,
    rate: str,
    ranges: tuple[tuple[float, float], tuple[float, float]],
    panels: int,
    columns: int,
) -> None:
    def counted(measure: str) -> str:
        return rows_said(rows[f"{measure}.n"].astype(float)) if f"{measure}.n" in rows else ""

    figure.update_xaxes(range=list(ranges[0]), tickformat="~%", nticks=8 if columns == 1 else 5)
    figure.update_yaxes(range=list(ranges[1]), tickvals=list(_QUARTERS))
    plus = "+" if rate == "excess_asr" else ""
    figure.update_yaxes(
        ticktext=[f"{plus}{tick:.0%}".replace("%", " %") if tick else "0 %" for tick in _QUARTERS]
    )
    figure.update_yaxes(title_text=f"{_RATES[rate]}{counted(rate)} (up is worse)", col=1)
    for i in range(max(0, panels - columns), panels):
        # Under the lowest panel of each column.
        figure.update_xaxes(
            title_text=f"clean accuracy{counted('clean_accuracy')}",
            showticklabels=True,
            row=i // columns + 1,
            col=i % columns + 1,
        )
