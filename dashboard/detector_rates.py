"""How often each detector is right: what was counted on cohorts, the lab's own and those of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import panels
import readers
import streamlit as st
from text import plain
from widgets import switch

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

_SHIPPED = "shipped"
_MEANING = (
    "Each line is a detector: how many poisoned adapters of a cohort's test part it finds, and at how many "
    "clean ones it alarms, both with 95 % intervals. Its threshold is where 5 % of the clean calibration "
    "adapters alarm; where the two intervals meet, its alarms have not been shown to say anything."
)


def render() -> None:
    """Draw the detectors that are registered, and how often each was right."""
    with st.expander("How often each detector is right"), panels.part("The detectors"):
        measured = _measured_here()
        chosen = _SHIPPED
        if measured:
            names = {_SHIPPED: "The lab's count"} | {name: plain(name, 40) for name in measured}
            chosen = switch("Counted on", "cohort", names, _SHIPPED)
        table = _shipped() if chosen == _SHIPPED else _judged(measured[chosen])
        panels.figure_panel(
            "Poisoned adapters found, and clean ones alarmed at",
            _MEANING,
            lambda: _figure(table),
            key="detector-rates",
            table=table,
            of=(chosen, readers.digest(table)),
        )
        _render_registered(set(table["detector"]))


def _figure(table: pd.DataFrame) -> Figure:
    from lab.figures import detector_rates

    return detector_rates(table)


@st.cache_data(max_entries=1, show_spinner=False)
def _shipped() -> pd.DataFrame:
    from lab.audit.counted import counted_detectors

    return counted_detectors()


def _measured_here() -> dict[str, Path]:
    """The cohorts beside this process that `lab cohort score` has measured, by name."""
    from lab.audit.cohort_builds import cohort_folder
    from lab.audit.cohort_scores import scores_folder
    from lab.audit.cohorts import COHORTS

    there = {name: cohort_folder(cohort) for name, cohort in COHORTS.items()}
    return {name: place for name, place in there.items() if any(scores_folder(place).glob("*.json"))}


def _judged(place: Path) -> pd.DataFrame:
    """The table of `lab cohort judge`, worked out again when a detector joins or an adapter is measured."""
    from lab.audit.cohort_scores import scores_folder
    from lab.audit.detectors import DETECTORS

    files = sorted(scores_folder(place).glob("*.json"))
    return _judge(str(place), len(files), max(f.stat().st_mtime_ns for f in files), tuple(DETECTORS))


@st.cache_data(max_entries=8, show_spinner="Counting…")
def _judge(place: str, files: int, newest: int, detectors: tuple[str, ...]) -> pd.DataFrame:
    from lab.audit.cohort_judging import judge_cohort

    return judge_cohort(Path(place).name, folder=place)


def _render_registered(counted: set[str]) -> None:
    from lab.audit.detectors import DETECTORS

    found = DETECTORS.values()
    columns = {
        "detector": [d.name for d in found],
        "looks at": [d.goal for d in found],
        "from": [d.paper for d in found],
        "counted above": ["yes" if d.name in counted else "no" for d in found],
    }
    st.dataframe(columns, hide_index=True, width="stretch")
    st.caption(
        "One of your own joins by `lab.register` in a file that LAB_PLUGINS names (lesson 06). It is counted "
        "on a cohort of this machine: `lab cohort build`, `lab cohort score`, then this page, "
        "started in the same folder."
    )
