"""Theory against measurement: what a kernel predicted of each cell, and what poison did there."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from lab import stats
from lab.figures import style
from lab.figures._tables import need, with_numbers
from lab.figures.text import evidence, points, safe_text, share
from lab.theory_check import PAIR_COLUMNS, PREDICTED, verdict

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x")
_LOG_FROM = 30.0  # predictions that span more get a logarithmic axis

_VERDICTS = {
    "agree": "as theory says",
    "part": "against theory",
    "cannot say": "cannot say",
    "n too small": "n too small",
}


def theory_scatter(pairs: pd.DataFrame) -> go.Figure:
    """A point per cell of rank and variance: predicted before training, measured after it.

    Args:
        pairs: Of one prediction and one outcome (`lab.theory_check.prediction_pairs`): measure, outcome,
            rank, init_variance, predicted, measured with low and high (shares), runs, n.

    Returns:
        Points with error bars where there is an interval, coloured by rank, a marker per variance. The title
        has the rank correlation over the cells with its 95 % interval, and whether that is what theory says.
        customdata of a point: [rank, init_variance, predicted, measured].

    Raises:
        LabError: If the table lacks a column.
    """
    pairs = need(pairs, list(PAIR_COLUMNS), "Theory against measurement")
    rows = with_numbers(pairs, ["rank", "init_variance", "predicted", "measured", "low", "high", "runs", "n"])
    rows = rows.dropna(subset=["rank", "predicted", "measured"])
    if rows.empty:
        return style.empty_figure("No cell of rank and variance has both a prediction and a measurement yet.")
    measure, outcome = str(rows["measure"].iloc[0]), str(rows["outcome"].iloc[0])
    found = stats.rank_correlation(rows["predicted"].to_numpy(), rows["measured"].to_numpy())
    figure = style.new_figure(height=460, title={"text": _title(measure, found), "font_size": 14})
    variances = sorted(rows["init_variance"].unique())
    ranks = sorted(rows["rank"].unique())
    colours = dict(zip(ranks, style.ordered_colours(len(ranks)), strict=True))
    for rank in ranks:
        own = rows[rows["rank"] == rank]
        symbols = [_SYMBOLS[variances.index(v) % len(_SYMBOLS)] for v in own["init_variance"]]
        _add_points(figure, own, f"rank {rank:g}", colours[rank], symbols)
    low, high = float(rows["predicted"].min()), float(rows["predicted"].max())
    figure.update_xaxes(title_text=f"predicted: {safe_text(measure.replace('_', ' '))}")
    if low > 0 and high / low > _LOG_FROM:
        figure.update_xaxes(type="log")
    name = f"measured: {safe_text(outcome.replace('_', ' '))}"
    if outcome == "excess_asr":
        figure.update_yaxes(title_text=name, tickformat="+.0%")
    else:
        figure.update_yaxes(**style.percent_axis(name))
    style.side_legend(figure, "LoRA" if len(variances) == 1 else "LoRA; a marker per variance")
    figure.update_layout(margin_t=style.BUTTONS + 48)
    return figure


def _title(measure: str, found: stats.RankCorrelation) -> str:
    """`rank correlation rho +.83 [+.05, +.98], p=.058, n=6 cells; theory: it rises → as theory says`."""
    sign = PREDICTED.get(measure, 0)
    if not sign:
        return f"Rank correlation: {found} cells".replace("<", "&lt;")
    said = str(found).replace("<", "&lt;")
    direction = "above" if sign > 0 else "below"
    return f"{said} cells; theory: {direction} 0 – {_VERDICTS[verdict(found, sign)]}"


def _add_points(figure: go.Figure, rows: pd.DataFrame, name: str, colour: str, symbols: list[str]) -> None:
    figure.add_scatter(
        x=rows["predicted"].tolist(),
        y=rows["measured"].tolist(),
        mode="markers",
        marker={"color": colour, "symbol": symbols, "size": 10},
        error_y=style.whiskers(rows["measured"], rows["low"], rows["high"], colour),
        cliponaxis=False,
        name=name,
        customdata=style.handed_over(
            [
                [int(rank), float(variance), float(predicted), float(measured)]
                for rank, variance, predicted, measured in rows[
                    ["rank", "init_variance", "predicted", "measured"]
                ].itertuples(index=False)
            ]
        ),
        hovertext=[_hover(row) for _, row in rows.iterrows()],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _hover(row: pd.Series) -> str:
    outcome = str(row["outcome"])
    signed = outcome == "excess_asr"
    value = f"{points(row['measured'])} points" if signed else share(row["measured"])
    return (
        f"<b>rank {row['rank']:g}, variance {row['init_variance']:.3g}/n_in</b><br>"
        f"{safe_text(row['measure'])} {row['predicted']:.4g}<br>"
        f"{safe_text(outcome.replace('_', ' '))} {value}<br>"
        f"{evidence(row['low'], row['high'], row['n'], int(row['runs']), signed)}"
    )
