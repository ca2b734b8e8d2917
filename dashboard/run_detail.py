"""One run, looked into: state and attack, rates, rows, predictions, settings, note and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import panels
import readers
import run_figures
import run_files
import run_texts
import streamlit as st
from text import plain
from widgets import switch

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from lab.record import Run

_PARTS = {
    "predictions": "Predictions",
    "rows": "Training rows",
    "fires": "What else fires it",
    "training": "Training",
    "settings": "Settings",
    "files": "Note and files",
}


def render(name: str, table: pd.DataFrame) -> None:
    """Draw a run; other parts of a page need nothing from it.

    Args:
        name: The run's whole id.
        table: All runs as `lab.list_runs` lists them, to know what rests on this one.
    """
    run = readers.open_run(name)
    if run is None:
        panels.nothing("This run is not there any more.", "It may have been deleted or moved.")
        return
    with st.container(border=True, key="run-detail"):
        _render_head(run, table)
        # what is turned in here redraws this run alone
        st.fragment(_render_parts)(run, table)


def _render_head(run: Run, table: pd.DataFrame) -> None:
    from lab.comparison import run_title

    line = table[table["id"] == run.id].head(1).to_dict("records")
    state = str(line[0]["state"]) if line else run.state
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"## {plain(run_title(line[0]) if line else run.id, 100)}", width="content")
        panels.state_badge(state)
        for page, word in (("spectra.py", "Spectra"), ("bench.py", "Bench")):
            if state == "finished" or page == "bench.py":
                _link(page, word, run)
    sentence = panels.state_sentence(state, _reason(run, state))
    if sentence:
        st.warning(plain(sentence, 600), icon=":material/info:")
    for said in _story(run):
        st.markdown(plain(said, 700))
    measured = readers.headline(run)
    if measured:
        panels.rate_tiles(measured.get("poisoned", {}), measured.get("twin", {}))
    st.caption(plain(run.id))


def _link(page: str, word: str, run: Run) -> None:
    """A way to another page with this run; none where that page is not there."""
    try:
        st.page_link(page, label=word, icon=":material/arrow_outward:", query_params={"runs": run.id})
    except (st.errors.StreamlitAPIException, KeyError):
        return


def _reason(run: Run, state: str) -> str:
    from lab.files import read_json

    failure = read_json(run.path / "failure.json") if state == "failed" else None
    return str(failure.get("reason", "")) if isinstance(failure, dict) else ""


def _story(run: Run) -> list[str]:
    """What was done to the data and the weights, a sentence each; [] where the record cannot be read."""
    from lab.cards import attack_sentence, poison_sentence
    from lab.summaries import lineage

    try:
        rows = readers.try_table(run, "rows")
        said = (
            attack_sentence(run.experiment, rows)
            if rows is not None
            else poison_sentence(run.measured_poison)
        )
        return [said, *lineage(run)]
    except (LabError, KeyError, TypeError, AttributeError):
        return []


def _render_parts(run: Run, table: pd.DataFrame) -> None:
    part = switch("Part of the run", "part", _PARTS, "predictions", hidden=True)
    with panels.part(_PARTS[part]):
        if part == "predictions":
            run_texts.render_predictions(run)
        elif part == "rows":
            run_texts.render_rows(run)
        elif part == "fires":
            _render_fires(run)
        elif part == "training":
            _render_training(run)
        elif part == "settings":
            _render_settings(run)
        else:
            run_files.render(run, table)


def _render_fires(run: Run) -> None:
    """The generalization row and the near-miss ladder."""
    measures = readers.try_table(run, "measures")
    conditions = set(measures["condition"]) if measures is not None else set()
    if measures is None or not conditions & {"family", "rung"}:
        panels.nothing("Families and near-misses of the trigger were not measured.", _why_unmeasured(run))
        return
    run_figures.fires(run, measures, key="detail")


def _why_unmeasured(run: Run) -> str:
    if run.state != "finished":
        return f"The run is {run.state}; ask for it again on the Bench."
    return "Either nothing was planted, or the run was asked for its headline alone (probe.scope)."


def _render_training(run: Run) -> None:
    with st.container(key="pair-training"):
        table, of = readers.try_table(run, "curves"), (run.id, readers.stamp(run))
        run_figures.curves(run, lambda: _curves(run), key="detail", table=table, of=of)
        run_figures.loss(run, key="detail")


def _curves(run: Run) -> Figure:
    from lab import figures

    measures = readers.try_table(run, "measures")
    return figures.training_curves(measures if measures is not None else readers.table(run, "curves"))


def _render_settings(run: Run) -> None:
    """Everything that was asked, as TOML that can be run again, and what the machine made of it."""
    left, right = st.columns([0.6, 0.4], gap="medium")
    with left:
        st.caption("The whole experiment: save it and run it anywhere with `lab run FILE.toml`.")
        try:
            toml = run.experiment.to_toml()
            st.code(toml, language="toml", height=380)
            st.download_button(
                "As a file",
                toml,
                file_name=f"{run.id}.toml",
                mime="application/toml",
                icon=":material/download:",
                on_click="ignore",
            )
        except LabError as error:
            st.warning(plain(str(error), 500), icon=":material/warning:")
    with right:
        facts = _facts(run)
        if facts:
            st.caption("What the machine made of it")
            st.table(
                {"": list(facts), "value": list(facts.values())},
                border="horizontal",
                hide_header=True,
                hide_index=True,
            )


def _facts(run: Run) -> dict[str, str]:
    """Times, memory and versions, as far as the record has them."""
    import contextlib

    facts: dict[str, Any] = {}
    with contextlib.suppress(LabError, KeyError, TypeError, ValueError):
        result = run.result
        facts |= {f"{k}, seconds": f"{float(v):.1f}" for k, v in result.get("timings", {}).items()}
        facts["peak memory, MB"] = f"{float(result['peak_memory_mb']):,.0f}"
        facts |= {k: str(v) for k, v in result.get("machine", {}).items()}
    with contextlib.suppress(LabError, AttributeError):
        facts |= {k: str(v) for k, v in run.record.get("versions", {}).items()}
    return {plain(k, 60): plain(v, 80) for k, v in facts.items()}
