"""Figures of one run that more than one page shows, with the same words everywhere."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import panels
import readers
import streamlit as st

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from lab.record import Run


def fires(run: Run, measures: pd.DataFrame, key: str) -> None:
    """The generalization row and the near-miss ladder, side by side where there is room.

    Args:
        run: A finished run whose families and near-misses were measured.
        measures: Its measures.
        key: Unique on the page.
    """
    with st.container(key=f"pair-{key}"):
        panels.figure_panel(
            "What else fires it: held-out members of every family",
            "Attack success of strings that no training row carried, on rows whose true label is not the "
            "target. The small mark is the clean twin on the same rows: the text's own pull.",
            run.figure.generalization_row,
            key=f"{key}-families-{run.id}",
            table=measures[measures["condition"] == "family"],
            of=(run.id, readers.stamp(run)),
        )
        panels.figure_panel(
            "How near is near: the trigger, changed step by step",
            "Attack success of strings ever less like the trigger. "
            "Rungs that the tokenizer cannot tell from the exact trigger say so.",
            run.figure.near_miss_ladder,
            key=f"{key}-ladder-{run.id}",
            table=measures[measures["condition"] == "rung"],
            of=(run.id, readers.stamp(run)),
        )


def curves(
    run: Run,
    draw: Callable[[], Figure],
    key: str,
    table: pd.DataFrame | Callable[[], pd.DataFrame] | None,
    reading: str = "",
    of: Hashable = None,
) -> None:
    """The rates over training steps, as `panels.figure_panel` takes them."""
    panels.figure_panel(
        "When the backdoor arrives",
        "Each point is a look at fixed validation rows during training, with its 95 % interval as a band. "
        "Thin lines are the clean twin: what the same training does without poison.",
        draw,
        key=f"{key}-rates-{run.id}",
        table=table,
        reading=reading,
        of=of,
    )


def loss(run: Run, key: str) -> None:
    """The training loss over steps."""
    panels.figure_panel(
        "The loss falls",
        "Cross-entropy on the training rows of each step, poisoned ones included. "
        "A backdoor hardly shows in it: that is why one measures.",
        run.figure.loss_curve,
        key=f"{key}-loss-{run.id}",
        of=(run.id, readers.stamp(run)),
    )
