"""The loss over the steps of training: the first thing to look at when a model did not learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._tables import need

_SMOOTH_FROM = 40  # steps: a shorter curve shows its own shape


def loss_curve(events: pd.DataFrame) -> go.Figure:
    """Training loss per step; from forty steps on with a smoothed line over it.

    Args:
        events: One line per logged step: step, loss (nats per row, from 0 up). Lines whose column `model`
            says "twin", where there is one, become a curve of their own.

    Returns:
        The loss as it was logged, thin, and its exponential average over about a twentieth of the steps.
        Lines without a loss, or with one that is not finite, are left out.

    Raises:
        LabError: If the table lacks a column.
    """
    events = need(events, ["step", "loss"], "The loss curve")
    events = events[np.isfinite(pd.to_numeric(events["loss"], errors="coerce"))]
    if events.empty:
        return style.empty_figure("No loss was logged.")
    figure = style.new_figure(height=320)
    twins = events["model"] == "twin" if "model" in events else pd.Series(False, index=events.index)
    for is_twin, part in events.groupby(twins):
        name, colour = ("clean twin's loss", "twin") if is_twin else ("loss", "poisoned")
        _add_loss(figure, part.sort_values("step"), name, style.COLOURS[colour])
    figure.update_xaxes(title_text="training step", showgrid=False, rangemode="tozero")
    figure.update_yaxes(title_text="loss", rangemode="tozero")
    return figure


def _add_loss(figure: go.Figure, part: pd.DataFrame, name: str, colour: str) -> None:
    step, loss = part["step"].to_numpy(dtype=float), part["loss"].to_numpy(dtype=float)
    smooth = len(loss) >= _SMOOTH_FROM
    figure.add_scatter(
        x=step,
        y=loss,
        mode="lines" if len(loss) > 1 else "markers",
        line={"color": style.translucent(colour, 0.35) if smooth else colour, "width": 1 if smooth else 2},
        marker={"color": colour},
        name=name,
        showlegend=not smooth,
        hovertemplate="step %{x}: %{y:.3f}<extra></extra>",
    )
    if smooth:
        average = pd.Series(loss).ewm(span=len(loss) / 20).mean()
        figure.add_scatter(
            x=step,
            y=average.to_numpy(),
            mode="lines",
            line={"color": colour, "width": 2.5},
            name=f"{name}, smoothed",
            hoverinfo="skip",
        )
