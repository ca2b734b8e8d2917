"""What takes longer than a slider: rates over components kept, and the threshold over the scale of ΔW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import moves as move_texts
import panels
import streamlit as st
import surgery_answers
from widgets import on_demand

if TYPE_CHECKING:
    from moves import Move

    from lab.surgery import Surgery

_NAMES = {"kept": "Rates over components kept", "threshold": "Threshold over the scale of ΔW"}
_HELP = "Asks the model about ten times, which takes about ten times as long as a slider."

_KEPT = (
    "Both rates while ever fewer singular components of ΔW are kept, the largest first. "
    "Where attack success falls while clean accuracy stands, the backdoor can be cut out; "
    "where both fall together, it cannot."
)
_THRESHOLD = (
    "The share of triggered rows that no longer get the target as ΔW is scaled: as the model answers, and as "
    "its weights predict. The prediction is linear around the trained scale and a heuristic: where the lines "
    "part, believe the measured one."
)


def render(opened: Surgery, rows: int, made: Sequence[Move]) -> None:
    """A button for each curve that is not there yet, and those that were asked for.

    Args:
        opened: The run, opened.
        rows: How many rows it was opened with.
        made: The moves so far; the sliders have no part in the curves.
    """
    st.markdown("## From none to all" + (" of it, after the moves so far" if made else ""))
    shown = on_demand("surgery.curves", _NAMES, icon=":material/timeline:", help=dict.fromkeys(_NAMES, _HELP))
    text = move_texts.to_text(made)
    for column, name in zip(st.columns(max(1, len(shown))), shown, strict=False):
        with column, panels.part("The curve"):
            operated = surgery_answers.operate(opened, rows, text)
            (_render_kept if name == "kept" else _render_threshold)(operated, rows, text)


def _render_kept(operated: Surgery, rows: int, text: str) -> None:
    import pandas as pd

    from lab.figures import surgery_curve

    # DoRA's components are those of the part that factors
    widest = max(int(getattr(u, "inner", u).rank_bound) for u in operated.weights.updates.values())
    counts, parts = move_texts.counts_to_keep(widest), []
    bar = st.progress(0.0, "Asking the model …")
    for number, count in enumerate(counts):
        bar.progress(number / len(counts), f"{count} of {widest} components kept …")
        parts.append(surgery_answers.kept(operated, rows, text, count))
    bar.empty()
    table = pd.concat(parts, ignore_index=True)
    panels.figure_panel(
        "Both rates over the components of ΔW that are kept",
        _KEPT,
        lambda: surgery_curve(table),
        key=f"kept-{operated.run.id}",
        table=table,
        reading="On validation rows.",
    )


def _render_threshold(operated: Surgery, rows: int, text: str) -> None:
    from lab.figures import threshold_curve

    with st.spinner("Asking the model at each scale …", show_time=True):
        found = surgery_answers.threshold(operated, rows, text)
    panels.figure_panel(
        "Triggered rows off the target over the scale of ΔW",
        _THRESHOLD,
        lambda: threshold_curve(found.flips, marks={"as it is": 1.0, "s*": found.s_star}),
        key=f"threshold-{operated.run.id}",
        table=found.flips,
        reading=f"{found.rows} triggered validation rows; scale 1 is ΔW as it is after the moves so far.",
    )
