"""What a run came to, below its live view: what else fires it, how near is near, rows that flipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import panels
import readers
import run_figures
import streamlit as st
from text import show_text

if TYPE_CHECKING:
    from lab.record import Run

_FLIPPED = 6


def render(run: Run) -> None:
    """Draw the results of a finished run; nothing where it has no measures."""
    measures = readers.try_table(run, "measures")
    if measures is None:
        return
    st.divider()
    if "family" in set(measures["condition"]):
        run_figures.fires(run, measures, key="results")
    with st.expander("The loss"):
        run_figures.loss(run, key="results")
    _render_flipped(run)


def _render_flipped(run: Run) -> None:
    from lab.examples import flipped_examples

    st.markdown("## Rows that the trigger flipped")
    with panels.part("The list of flipped rows"):
        examples = flipped_examples(run, _FLIPPED)
        if examples.empty:
            st.caption("No test row was right without the trigger and wrong with it.")
        for row in examples.to_dict("records"):
            beside = f", the clean twin says {row['twin']}" if row["twin"] else ""
            show_text(
                str(row["text"]),
                [tuple(span) for span in row["spans"]],
                label=f"{row['label']} → {row['prediction']}{beside}",
            )
