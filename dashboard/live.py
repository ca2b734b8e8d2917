"""What is being trained, as it happens, and what it came to: the right side of the Bench."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import access
import links
import live_figures
import panels
import readers
import run_results
import streamlit as st
from text import plain, short

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.record import Run
    from lab.work_queue import Ticket

#: Seconds between looks at the events file; a person sees at most this and the drawing.
_EVERY = 1.0
_ACTIVE = ("waiting", "working")
_SIDE_BY_SIDE = 3

_STAGES = {
    "": "starting",
    "prepare": "reading the rows",
    "prepared": "starting",
    "load": "loading the base model",
    "train": "training",
    "resume": "going on from its checkpoint",
    "edit": "editing the weights",
    "guard": "letting guards learn from clean rows",
    "rejections": "counting what is rejected",
    "headline": "measuring the headline",
    "probe": "probing families and near-misses",
    "twin probe": "putting the same rows to the twin",
    "wait": "waiting for another process",
    "finished": "finishing",
}


def minutes(seconds: float) -> str:
    """A duration as people say it: "40 s", "2 min 30 s", "1 h 5 min"."""
    seconds = max(0, round(seconds))
    if seconds < 90:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds % 60 and seconds < 600 else "")
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def watch(*tickets: str) -> None:
    """Add to what is watched, newest first."""
    link = links.read()
    now = [t for t in link.view.get("watch", "").split(",") if t]
    held = ",".join(dict.fromkeys([*tickets, *now]))
    links.write(replace(link, view={**link.view, "watch": held}))


def watched() -> list[str]:
    """The tickets and runs that this page watches, newest first; a ticket whose run is known is that run."""
    from lab.work_queue import read_ticket

    link = links.read()
    waiting, runs = [], list(link.runs)
    for name in filter(None, link.view.get("watch", "").split(",")):
        ticket = _or_none(lambda name=name: read_ticket(name, readers.runs_folder()))
        if ticket is None:
            continue
        if ticket.run and readers.open_run(ticket.run):
            runs.insert(0, ticket.run)
        else:
            waiting.append(name)
    runs = [run for run in dict.fromkeys(runs) if readers.open_run(run)]
    links.write(replace(link, runs=tuple(runs), view={**link.view, "watch": ",".join(waiting)}))
    st.session_state["chosen_runs"] = tuple(runs)
    return [*waiting, *runs]


def _or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (LabError, OSError, ValueError):
        return None


def render(names: Sequence[str]) -> None:
    """Draw what is watched; while anything of it moves, look again every second.

    Only a run's end, or a ticket that has become a run, draws the whole page anew: its sidebar and preview
    are more work than all figures, which are sent as they were drawn last where nothing new was seen.
    """
    st.divider()
    _render_watchbar(names)
    shown = list(names)[:_SIDE_BY_SIDE]
    moving = _any_moving(shown, readers.tickets(now=True))
    st.fragment(_render_runs, run_every=_EVERY if moving else None)(shown, moving)
    for name in shown if len(shown) == 1 else []:
        run = readers.open_run(name)
        if run is not None and run.state == "finished":
            run_results.render(run)


def _render_watchbar(names: Sequence[str]) -> None:
    """What is watched, and what else could be."""
    options = [str(n) for n in dict.fromkeys([*names, *_recent_ids(30)])]
    key = f"watching-{hash(tuple(names))}"
    chosen = st.multiselect(
        "Watching", options, default=list(names), key=key, max_selections=_SIDE_BY_SIDE, format_func=_short
    )
    if list(chosen) != list(names):
        tickets = {t.id for t in readers.tickets()}
        link = links.read()
        runs = tuple(n for n in chosen if n not in tickets)
        held = ",".join(n for n in chosen if n in tickets)
        links.write(replace(link, runs=runs, view={**link.view, "watch": held}))
        st.session_state["chosen_runs"] = runs
        st.rerun()


def _short(name: str) -> str:
    """A run's slug, without the hash that makes its id unique; a ticket has a time for a name."""
    from lab.work_queue import read_ticket

    if readers.open_run(name) is None:
        ticket = _or_none(lambda: read_ticket(name, readers.runs_folder()))
        return (
            "waiting"
            if ticket is None
            else f"waiting: {short(ticket.experiment.get('name', '') or 'experiment')}"
        )
    return short(name.rpartition("-")[0] or name, 60)


def _recent_ids(count: int) -> list[str]:
    table = readers.runs_table()
    return [str(i) for i in table["id"].head(count)]


def render_recent() -> None:
    """The queue and the newest runs, to open with one click."""
    with panels.part("The queue"):
        for ticket in readers.tickets(now=True):
            doing = "waiting" if ticket.state == "waiting" else "training"
            if ticket.state in _ACTIVE and st.button(
                plain(f"Watch what is {doing}: {_short(ticket.run or ticket.id)}", 200),
                key=f"watch-{ticket.id}",
                icon=":material/visibility:",
            ):
                watch(ticket.id)
                st.rerun()
    ids = _recent_ids(6)
    if ids:
        st.markdown("## Or look at what is there")
        for name in ids:
            if st.button(_short(name), key=f"open-{name}", icon=":material/history:", type="tertiary"):
                links.remember_runs([name])
                st.rerun()


def _ticket_of(name: str, tickets: Sequence[Ticket]) -> Ticket | None:
    """The live ticket of a run or of itself; one that was just asked does not know its run's id yet."""
    living = [t for t in tickets if t.state in _ACTIVE]
    found = next((t for t in living if name in (t.id, t.run)), None)
    run = readers.open_run(name) if found is None and any(not t.run for t in living) else None
    if run is None:
        return found
    asked = _or_none(lambda: run.experiment.to_dict())
    return next((t for t in living if not t.run and t.experiment == asked), None)


def _any_moving(names: Sequence[str], tickets: Sequence[Ticket]) -> bool:
    """Whether any of these waits or is worked on, by the queue or by `lab run` in a terminal."""
    if any(_ticket_of(name, tickets) for name in names):
        return True
    return any(run.state == "running" for name in names if (run := readers.open_run(name)) is not None)


def _render_runs(names: Sequence[str], was_moving: bool) -> None:
    """State, rates and figures of each, side by side."""
    tickets = readers.tickets()
    for column, name in zip(st.columns(len(names), gap="large"), names, strict=True):
        with column, panels.part(f"The run {name}"):
            _render_one(name, tickets)
    for column, name in zip(st.columns(len(names), gap="large"), names, strict=True):
        run = readers.open_run(name)
        if run is not None:
            with column, panels.part(f"The figures of {name}"):
                live_figures.render(run, _twin_id(run, _ticket_of(name, tickets)), wide=len(names) == 1)
    named = any(t.id in names and t.run and readers.open_run(t.run) for t in tickets)
    if was_moving and (named or not _any_moving(names, tickets)):
        # the whole page once more: results, or the run that the ticket became
        st.rerun()


def _render_one(name: str, tickets: Sequence[Ticket]) -> None:
    ticket, run = _ticket_of(name, tickets), readers.open_run(name)
    if run is None:
        _render_waiting(name, tickets)
        return
    state = "running" if ticket and ticket.state == "working" else ("queued" if ticket else run.state)
    _render_head(run, state, ticket)
    head = readers.headline(run)
    own, note = _shown_rates(run, head.get("poisoned"))
    panels.rate_tiles(own, head.get("twin", {}), note)
    if not live_figures.has_looks(run):
        st.caption("Nothing has been measured yet.")


def _render_waiting(name: str, tickets: Sequence[Ticket]) -> None:
    ticket = next((t for t in tickets if t.id == name), None)
    if ticket is None:
        panels.nothing("This is neither a run nor waiting.", "It may have been deleted.")
        return
    if ticket.state == "waiting":
        ahead = [t for t in tickets if t.state in _ACTIVE and t.created < ticket.created]
        st.info(f"Waiting: {len(ahead)} before it." if ahead else "Waiting for a worker to take it up.")
    elif ticket.state == "working":
        st.info(f"{_STAGES.get(ticket.stage, ticket.stage)} …".capitalize(), icon=":material/hourglass_top:")
        if ticket.total:
            st.progress(min(1.0, ticket.done / ticket.total))
    else:
        st.error(plain(ticket.error or f"It is {ticket.state}.", 600), icon=":material/error:")
    if ticket.state in _ACTIVE:
        _stop_button(ticket)


def _render_head(run: Run, state: str, ticket: Ticket | None) -> None:
    left, right = st.columns([0.72, 0.28], vertical_alignment="center")
    with left, st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(_short(run.id))}**", width="content")
        panels.state_badge(state)
    if ticket is not None:
        with right:
            _stop_button(ticket)
        _render_progress(run, ticket)
        return
    sentence = panels.state_sentence(state, _reason(run, state))
    if sentence:
        st.warning(plain(sentence, 500), icon=":material/info:")
    if state in ("stopped", "killed", "failed") and right.button(
        "Go on",
        key=f"resume-{run.id}",
        icon=":material/play_arrow:",
        width="stretch",
        disabled=not access.may_write(),
    ):
        from lab.work_queue import ensure_worker, submit

        submit(run.experiment, runs=readers.runs_folder())
        ensure_worker(readers.runs_folder())
        st.rerun(scope="app")


def _reason(run: Run, state: str) -> str:
    from lab.files import read_json

    failure = (read_json(run.path / "failure.json") or {}) if state == "failed" else {}
    return str(failure.get("reason", ""))


def _stop_button(ticket: Ticket) -> None:
    from lab.work_queue import request_stop

    # not "Stop": Streamlit shows a button of that name in its header while a page takes long to draw
    if st.button(
        "Stop the run",
        key=f"stop-{ticket.id}",
        icon=":material/stop:",
        width="stretch",
        disabled=not access.may_write(),
        help="It keeps its last checkpoint, and can go on later.",
    ):
        request_stop(ticket.id, readers.runs_folder())
        st.toast("Asked to stop; it finishes its step first.")


def _render_progress(run: Run, ticket: Ticket) -> None:
    other = ticket.working and ticket.working != run.id
    whose = (
        "of the clean twin"
        if other and "clean" in ticket.working
        else ("of what it starts from" if other else "")
    )
    stage = f"{_STAGES.get(ticket.stage, ticket.stage)} {whose}".strip()
    share = min(1.0, ticket.done / ticket.total) if ticket.total else 0.0
    left = _seconds_left(run, ticket)
    said = f"{stage}, {ticket.done:,} of {ticket.total:,}" if ticket.total else stage
    st.progress(
        share, text=plain(said + (f" · about {minutes(left)} left in this stage" if left else ""), 200)
    )


def _seconds_left(run: Run, ticket: Ticket) -> float:
    """How long the rest of a training takes at the pace so far; 0 where that is not known."""
    source = readers.open_run(ticket.working) if ticket.working and ticket.working != run.id else run
    if source is None or ticket.stage != "train" or not ticket.total:
        return 0.0
    seen = readers.events(source, "train")
    if len(seen) < 2:
        return 0.0
    first, last = seen[0], seen[-1]
    steps = last["step"] - first["step"]
    pace = (last["time"] - first["time"]) / steps if steps > 0 else 0.0
    return max(0.0, pace * (ticket.total - last["step"]) - (time.time() - last["time"]))


def _shown_rates(run: Run, headline: Any) -> tuple[dict[str, Any], str]:
    """The rates to show large: the headline's, or the microscope's last ones while there is none."""
    looks = readers.events(run, "probe") if not headline else []
    if not looks:
        return headline or {}, ""
    last = looks[-1]
    n = last["measures"].get("clean_accuracy", {}).get("n", 0)
    return last["measures"], f"Step {last['step']}: on {n} validation rows only; test rows follow at the end."


def _twin_id(run: Run, ticket: Ticket | None) -> str:
    if ticket and ticket.working and ticket.working != run.id and "clean" in ticket.working:
        return ticket.working
    return readers.twin_id(run)
