"""Bench: choose what to plant, see it in the data, train it, and watch it arrive."""

from __future__ import annotations

from dataclasses import replace

import access
import choices
import links
import live
import panels
import readers
import row_lint
import streamlit as st
import uploads
from text import plain, show_text

from lab.errors import LabError
from lab.experiment import Experiment


def main() -> None:
    """Draw the page."""
    complaint = _start()
    with st.sidebar:
        problem = choices.edit()
        uploads.upload_form()
    _, experiment = choices.state()
    links.write(replace(links.read(), preset=choices.state()[0], changes=choices.changes()))
    watched = live.watched()
    if complaint:
        st.warning(plain(complaint, 400), icon=":material/link_off:")
    st.markdown("# Plant a backdoor, and watch it arrive")
    # what was planted makes room for what comes of it
    with st.expander("What goes into the training data, and training it", expanded=not watched):
        left, right = st.columns([0.62, 0.38], gap="large")
        with left:
            problem = _render_preview(experiment, problem)
        with right:
            _render_train(experiment, problem)
    if watched:
        live.render(watched)
    else:
        _render_welcome()


def _start() -> str:
    """On the first look of a session, or after a link was followed, start from what the address bar says."""
    link = links.read()
    if "bench" in st.session_state and (not link.preset or st.session_state.get("bench_seen")):
        return ""
    st.session_state["bench_seen"] = True
    return choices.start_from(link.preset, link.changes)


def _render_preview(experiment: Experiment, problem: str) -> str:
    """Two rows as they will be trained, and the linter; returns why there are none, "" where all is well."""
    from lab.cards import attack_sentence
    from lab.preview import preview_rows

    st.markdown("## What goes into the training data")
    rows = None
    if not problem:
        try:
            with st.spinner("Reading the data …", show_time=True):
                rows = preview_rows(experiment)
        except LabError as error:
            problem = str(error)
    if rows is None:
        st.error(plain(problem, 500), icon=":material/error:")
        return problem
    st.markdown(plain(attack_sentence(experiment, rows), 500))
    if experiment.attack == "none":
        st.caption("A poisoned base brings its own trigger, which is what is measured then.")
    for row in rows[rows["poisoned"]].head(2).to_dict("records"):
        spans = list(zip(row["span_start"], row["span_end"], strict=True))
        flip = (
            f"{row['original_label']} → {row['label']}"
            if row["original_label"] != row["label"]
            else row["label"]
        )
        show_text(str(row["text"]), spans, label=flip)
    row_lint.render(experiment, rows)
    return ""


def _render_train(experiment: Experiment, problem: str) -> None:
    from lab.work_queue import ensure_worker, submit, tickets

    folder = readers.runs_folder()
    st.markdown("## Train it, and its clean twin")
    if not problem:
        with panels.part("The estimate of time"):
            from lab.estimates import estimate_seconds

            found = estimate_seconds(experiment, folder)
            st.markdown(
                f"About **{live.minutes(found.seconds)}** on this machine "
                f"({live.minutes(found.low)} to {live.minutes(found.high)})."
            )
            st.caption(found.basis)
    twin = st.toggle(
        "Train the clean twin too",
        value=True,
        key="bench_twin",
        help="The same training without the poison. Without it, nobody can say what the poison added.",
    )
    waiting = [t for t in tickets(folder) if t.state in ("waiting", "working")]
    if waiting:
        st.caption(f"{len(waiting)} in the queue; yours would come after them.")
    locked = not access.may_write()
    pressed = st.button(
        "Plant it" if experiment.attack != "none" else "Train it",
        type="primary",
        icon=":material/play_arrow:",
        width="stretch",
        disabled=bool(problem) or locked,
        help="Unlock first, at the top." if locked else None,
    )
    if pressed:
        ticket = submit(experiment, runs=folder, twin=twin)
        ensure_worker(folder)
        live.watch(ticket.id)
        st.rerun()


def _render_welcome() -> None:
    st.divider()
    st.markdown(
        "**What you will see.** A real model learns its task from real text, a few rows of which were "
        "changed. While it trains, three rates move: how often the trigger decides (*attack success*), how "
        "often the same answer comes without it, and how good the model still is. Then the trigger is "
        "changed step by step, to see what else fires it."
    )
    live.render_recent()


main()
