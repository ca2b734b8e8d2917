"""The audits of this runs folder: one that is watched, and the list of those there are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import access
import links
import panels
import readers
import streamlit as st
from text import plain, short

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.audit.jobs import AuditJob

_EVERY = 1.0
_STAGES = {
    "weights": "measure the weights",
    "load": "load the base model",
    "references": "train clean references",
    "battery": "put the battery to it",
    "search": "search for triggers",
}
#: Stages that not every audit has: they are listed once they begin.
_SOME = ("references",)
_LISTED = 8


def watched() -> AuditJob | None:
    """The audit that the address bar names; None where it names none."""
    from lab.audit.jobs import read_audit

    name = links.choose("card")
    if not name:
        return None
    try:
        return read_audit(name, readers.runs_folder())
    except LabError as error:
        st.warning(plain(str(error), 300), icon=":material/link_off:")
        links.remember(card="")
        return None


def render(job: AuditJob) -> None:
    """Draw an audit: how far it is, why it has no card, or its card."""
    st.divider()
    if job.state == "running":
        st.fragment(_render_progress, run_every=_EVERY)(job.id)
    elif job.state == "finished":
        import audit_card

        from lab.audit.jobs import read_card

        with panels.part("The card"):
            audit_card.render(read_card(job), job.id)
    else:
        _render_failure(job)


def render_list(job: AuditJob | None) -> None:
    """The newest audits, to open with one click, and the way to delete the one that is open."""
    from lab.audit.jobs import KEPT, list_audits, remove_audit

    others = [j for j in list_audits(readers.runs_folder()) if job is None or j.id != job.id][:_LISTED]
    ended = job is not None and job.state != "running"
    if others or ended:
        st.divider()
    if ended and st.button(
        "Delete this audit", icon=":material/delete:", key="audit_delete", disabled=not access.may_write()
    ):
        remove_audit(job.id, readers.runs_folder())
        links.remember(card="")
        st.rerun()
    if others:
        st.markdown("## Other audits" if job else "## Audits that are there")
        for other in others:
            said = f"{short(other.name, 60)} · {_when(other.created)} · {other.state}"
            if st.button(
                plain(said, 120), key=f"audit-{other.id}", icon=":material/policy:", type="tertiary"
            ):
                links.remember(card=other.id)
                st.rerun()
        st.caption(f"The newest {KEPT} are kept in the runs folder's .audits.")


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _render_progress(name: str) -> None:
    from lab.audit.jobs import read_audit, stop_audit

    try:
        job = read_audit(name, readers.runs_folder())
    except LabError:
        st.rerun(scope="app")
    if job.state != "running":
        st.rerun(scope="app")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"## {plain(job.name)}", width="content")
        panels.state_badge("running")
    begun = [stage for stage, _ in job.stages]
    lines = [_line(s, said, begun) for s, said in _STAGES.items() if s in begun or s not in _SOME]
    st.markdown("  \n".join(lines))
    share = min(1.0, job.done / job.total) if job.total else 0.0
    said = job.stages[-1][1] if job.stages else "starting"
    st.progress(share, text=plain(f"{said}{_how_far(job)}", 200))
    if (job.path / "stop").exists():
        st.caption("Asked to stop; it ends within seconds.")
    elif st.button(
        "Stop the audit", icon=":material/stop:", key=f"stop-{job.id}", disabled=not access.may_write()
    ):
        stop_audit(job.id, readers.runs_folder())
        st.rerun(scope="app")


def _how_far(job: AuditJob) -> str:
    """What is done of the last stage, and how long the rest will take."""
    from lab.console.progress import time_left

    return f", {job.done:,} of {job.total:,}{time_left(job.left)}" if job.total else ""


def _line(stage: str, said: str, begun: list[str]) -> str:
    """A stage as a line of a list, with a sign for done, under way and to come."""
    if stage not in begun:
        return f":material/radio_button_unchecked: {said}"
    is_last = begun[-1] == stage
    return f":material/{'hourglass_top' if is_last else 'check'}: {'**' + said + '**' if is_last else said}"


def _render_failure(job: AuditJob) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"## {plain(job.name)}", width="content")
        panels.state_badge(job.state)
    code = f" (exit code {job.exit_code})" if job.exit_code else ""
    draw = st.info if job.state == "stopped" else st.error
    draw(plain(job.reason or "It failed.", 600) + code, icon=":material/info:")
    if job.state == "failed":
        st.caption("There is no card: what cannot be read is never called clean.")
