"""One figure per run, in columns and on the same axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import links
import panels
import readers
import run_choice
import streamlit as st
from text import plain

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from lab.record import Run


def render_beside(
    runs: Sequence[Run],
    title: str,
    meaning: str,
    key: str,
    draw: Callable[[Run], Figure],
    *,
    table: Callable[[Run], pd.DataFrame],
    same: str,
    many: bool,
    reading: Callable[[Run], str] = lambda _run: "",
) -> None:
    """One figure per run in columns, on the same axes or colours; one that cannot be drawn says why.

    Args:
        runs: Whose figures.
        title: What each shows.
        meaning: What the measure is.
        key: Unique on the page.
        draw: Makes a run's figure.
        table: What is downloaded.
        same: "ranges" or "colours".
        many: Whether two runs are chosen, so that each title says which.
        reading: A line under the title.
    """
    from lab.figures.axes import same_colours, same_ranges

    drawn: dict[str, Figure | LabError] = {}
    for run in runs:
        try:
            drawn[run.id] = draw(run)
        except LabError as error:
            drawn[run.id] = error
    fine: list[Any] = [figure for figure in drawn.values() if not isinstance(figure, LabError)]
    (same_ranges if same == "ranges" else same_colours)(fine)
    for column, run in zip(st.columns(max(1, len(runs))), runs, strict=False):
        with column:
            panels.figure_panel(
                f"{letter(run, runs, many)}{title}",
                meaning,
                lambda run=run: _given(drawn[run.id]),
                key=f"{key}-{run.id}",
                table=table(run),
                reading=reading(run),
            )


def _given(drawn: Figure | LabError) -> Figure:
    if isinstance(drawn, LabError):
        raise drawn
    return drawn


def letter(run: Run, runs: Sequence[Run], many: bool) -> str:
    """Which of two runs a title speaks of; "" for one alone."""
    if not many:
        return ""
    chosen = links.chosen_runs()[:2]
    return f"{run_choice.LETTERS[chosen.index(run.id)]} · " if run.id in chosen else ""


def table_or_say(run: Run, part: str) -> pd.DataFrame | None:
    """A table of a run; where there is none, a sentence that says why."""
    try:
        return readers.table(run, part)
    except LabError as error:
        st.info(plain(error, 400), icon=":material/info:")
    except (OSError, ValueError, KeyError) as error:
        st.warning(
            plain(f"{run.id}: its {part.replace('_', ' ')} cannot be read ({type(error).__name__}).", 400),
            icon=":material/broken_image:",
        )
    return None
