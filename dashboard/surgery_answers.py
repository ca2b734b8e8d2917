"""What the model says after some moves, asked once and kept.

Every answer is kept under the run, its files' stamps, the rows and the moves, which name the weights whole.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import models
import moves as move_texts
import readers
import streamlit as st

if TYPE_CHECKING:
    import pandas as pd

    from lab.surgery import Surgery
    from lab.threshold import Threshold

Rates = dict[str, dict[str, float]]


def operate(opened: Surgery, rows: int, moves: str) -> Surgery:
    """A run after some moves.

    Args:
        opened: The run as `models.surgery` gives it.
        rows: How many rows it was opened with.
        moves: The moves, as `moves.to_text` writes them.

    Raises:
        LabError: A move does not fit these weights.
    """
    with models.at_work():
        return _operated(opened.run.id, rows, moves, readers.stamp(opened.run), opened)


def rates(operated: Surgery, rows: int, moves: str) -> tuple[Rates, float]:
    """Each rate with value, low, high and n by its kind, and how many seconds the model took for them."""
    with models.at_work():
        return _rates(operated.run.id, rows, moves, readers.stamp(operated.run), operated)


def kept(operated: Surgery, rows: int, moves: str, count: int) -> pd.DataFrame:
    """One place of the surgery curve: the rates with so many components kept."""
    with models.at_work():
        return _kept(operated.run.id, rows, moves, readers.stamp(operated.run), count, operated)


def threshold(operated: Surgery, rows: int, moves: str) -> Threshold:
    """The threshold s* with what the model does at each scale.

    Raises:
        LabError: There is no trigger, or ΔW is not linear in its scale (DoRA).
    """
    with models.at_work():
        return _threshold(operated.run.id, rows, moves, readers.stamp(operated.run), operated)


# full matrices take a second to cut, so the last few operated weights stay
@st.cache_resource(show_spinner=False, max_entries=4)
def _operated(name: str, rows: int, moves: str, of: readers.Stamp, _opened: Surgery) -> Surgery:
    operated = _opened
    for move in move_texts.from_text(moves):
        operated = operated.apply(
            move["name"], **{key: value for key, value in move.items() if key != "name"}
        )
    return operated


@st.cache_data(show_spinner=False, max_entries=500)
def _rates(name: str, rows: int, moves: str, of: readers.Stamp, _operated: Surgery) -> tuple[Rates, float]:
    since = time.perf_counter()
    table = _operated.measures()
    seconds = time.perf_counter() - since
    lines = table.set_index("kind")[["value", "low", "high", "n"]].to_dict("index")
    return {str(kind): dict(line) for kind, line in lines.items()}, seconds


@st.cache_data(show_spinner=False, max_entries=500)
def _kept(
    name: str, rows: int, moves: str, of: readers.Stamp, count: int, _operated: Surgery
) -> pd.DataFrame:
    return _operated.curve([count])


@st.cache_data(show_spinner=False, max_entries=50)
def _threshold(name: str, rows: int, moves: str, of: readers.Stamp, _operated: Surgery) -> Threshold:
    return _operated.threshold()
