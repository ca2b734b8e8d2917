"""The fitted curve of a dose–response figure, and the count at which half of the effect is there."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab import stats
from lab.figures.text import safe_text

#: Points that a curve is drawn through.
_POINTS = 60
#: A fit is of successes among rows by how many rows were poisoned; no other measure or dose has its meaning.
_RATE, _DOSE = "attack_success_rate", "count"


def add_half_count(
    figure: go.Figure, part: pd.DataFrame, columns: tuple[str, str], label: str, colour: str
) -> None:
    """Add a fitted curve and its half count with the interval, where attack success was swept over counts.

    Args:
        figure: What it is added to; its x axis is in counts.
        part: The runs of one line: dose, attack_success_rate and its n, and where known the twin's rate.
        columns: Dose and response.
        label: The line's name.
        colour: Its colour.
    """
    fit = fitted(part, columns)
    if fit is None or fit.verdict not in ("fitted", "separated"):
        return
    doses = part[columns[0]].astype(float)
    if fit.verdict == "fitted":
        x = np.geomspace(doses[doses > 0].min(), doses.max(), _POINTS)
        figure.add_scatter(
            x=x.tolist(), y=[fit.rate(dose) for dose in x], mode="lines", hoverinfo="skip",
            line={"color": colour, "width": 1.5, "dash": "dot"}, name=label, legendgroup=label,
            showlegend=False,
        )  # fmt: skip
    ends = [end for end in (fit.low, fit.high) if 0 < end < math.inf]
    said = f"half of the effect at {fit.half:.3g} rows [{fit.low:.3g}, {fit.high:.3g}], n = {fit.n}"
    figure.add_scatter(
        x=[fit.half],
        y=[fit.background + (1 - fit.background) / 2],
        error_x={
            "type": "data", "symmetric": False, "color": colour,
            "array": [max(ends) - fit.half if fit.high < math.inf else 0.0],
            "arrayminus": [fit.half - min(ends) if fit.low > 0 else 0.0],
        },
        mode="markers",
        marker={"color": colour, "symbol": "diamond-open", "size": 11, "line": {"width": 2}},
        name=label,
        legendgroup=label,
        showlegend=False,
        hovertext=[f"<b>{safe_text(label)}</b><br>{said}" if label else said],
        hovertemplate="%{hovertext}<extra></extra>",
    )  # fmt: skip


def fitted(part: pd.DataFrame, columns: tuple[str, str]) -> stats.DoseFit | None:
    """The fit of one line; None where it has no counts of rows, or no counts of poison.

    The background is the mean of the twin's rates on the same rows, 0 where there is no twin.
    """
    x, y = columns
    rows = f"{y}.n"
    if y != _RATE or x.rpartition(".")[2] != _DOSE or rows not in part or part[rows].isna().any():
        return None
    twin = part.get(f"twin.{y}", pd.Series(dtype=float)).dropna()
    background = min(float(twin.mean()), 0.999) if len(twin) else 0.0
    k = (part[y] * part[rows]).round()
    return stats.fit_dose_response(
        part[x].to_numpy(dtype=float), k.to_numpy(), part[rows].to_numpy(), background=background
    )
