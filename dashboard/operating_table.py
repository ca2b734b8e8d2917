"""Surgery on a run: sliders cut and scale ΔW, and both rates answer at once.

Only this part reruns when a slider moves. Moves are in the address bar, so that a surgery can be shared;
nothing on disk changes until it is saved as a run of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import access
import links
import models
import moves as move_texts
import panels
import readers
import run_choice
import streamlit as st
import surgery_answers
import surgery_curves
import surgery_sliders
from knobs import knob_widgets
from moves import Move
from text import plain
from widgets import one_of, switch

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.record import Run
    from lab.surgery import Surgery

#: Rows that are asked; half of them untouched, half with the trigger.
_ROWS = {"100": "100", "200": "200", "400": "400"}


def render(runs: Sequence[Run]) -> None:
    """Draw the operating table for one of the chosen runs."""
    run = _patient(runs)
    st.caption(
        "Every number in this part is measured on **validation rows**; nothing is chosen on test rows. "
        "The run on disk stays as it is."
    )
    st.fragment(_render_table)(run)


def _patient(runs: Sequence[Run]) -> Run:
    """The run that is operated on."""
    if len(runs) < 2:
        return runs[0]
    letters = dict(zip(run_choice.LETTERS, runs, strict=False))
    names = {letter: f"Run {letter}" for letter in letters}
    return letters[switch("Operate on", "surgery.run", names, run_choice.LETTERS[0])]


def _render_table(run: Run) -> None:
    with panels.part("Surgery"):
        left, right = st.columns([0.44, 0.56], gap="large")
        with right:
            answers = st.container()
            rows = int(switch("Rows to ask", "surgery.rows", _ROWS, "200"))
        opened = models.surgery(run.id, rows)
        made = _moves_so_far()
        with left:
            for sentence in _limits(run):
                st.caption(sentence)
            drafted = surgery_sliders.render(opened).moves()
        with answers:
            operated = _render_rates(opened, rows, [*made, *drafted])
        with right:
            _render_moves(made, drafted)
        _render_other_edit(opened, rows, [*made, *drafted])
        surgery_curves.render(opened, rows, made)
        _render_save(run, operated)


def _moves_so_far() -> list[Move]:
    """The moves of the link; one that makes no sense is said, and the surgery starts anew."""
    try:
        return move_texts.from_text(links.choose("moves"))
    except LabError as error:
        st.warning(plain(error, 400), icon=":material/link_off:")
        return []


def _limits(run: Run) -> list[str]:
    """What is different or cannot be done with this run, a sentence each."""
    e, said = run.experiment, []
    if run.parent is not None:
        said.append(
            f"This run is an edit of {plain(run.parent.id)}: its own edits are made first, yours after them."
        )
    if e.adapter.kind == "full":
        said.append(
            "Full fine-tuning: ΔW is the whole difference to the base, so cutting it takes a second longer."
        )
    elif e.adapter.variant == "dora":
        said.append(
            "DoRA: ΔW does not factor, so what is cut and scaled is the B·A inside it, and there is no "
            "threshold to estimate."
        )
    if run.record.get("measured_poison", {}).get("attack") == "none":
        said.append("This run knows no trigger, so only clean accuracy is measured.")
    return said


def _render_rates(opened: Surgery, rows: int, asked: Sequence[Move]) -> Surgery | None:
    """The rates after the moves beside those before; the operated weights, None where a move does not fit."""
    text = move_texts.to_text(asked)
    try:
        before, _ = surgery_answers.rates(opened, rows, "")
        operated = surgery_answers.operate(opened, rows, text)
        after, seconds = surgery_answers.rates(operated, rows, text)
    except LabError as error:
        st.warning(plain(error, 400), icon=":material/warning:")
        return None
    panels.rate_tiles(after, before, beside="unedited")
    rows_said = f"{after['clean_accuracy']['n']:.0f} untouched"
    if "attack_success_rate" in after:
        rows_said += f" and {after['attack_success_rate']['n']:.0f} triggered"
    st.caption(f"{rows_said} validation rows, answered in {seconds:.1f} s.")
    return operated


def _render_moves(made: Sequence[Move], drafted: Sequence[Move]) -> None:
    """The moves so far, in their order, with undo and reset."""
    with st.container(border=True):
        st.markdown("**Moves so far**" if made else "**No move yet**: the sliders only try.")
        lines = [
            f"{number}. {plain(move_texts.told(move), 160)}" for number, move in enumerate(made, start=1)
        ]
        lines += [f"- :gray[on the sliders: {plain(move_texts.told(move), 160)}]" for move in drafted]
        if lines:
            st.markdown("\n".join(lines))
        with st.container(horizontal=True):
            st.button(
                "Keep these as moves",
                icon=":material/add:",
                disabled=not drafted,
                on_click=_set_moves,
                args=([*made, *drafted],),
                help="The sliders go back, and the next moves come on top.",
            )
            st.button(
                "Undo",
                icon=":material/undo:",
                disabled=not made,
                on_click=_set_moves,
                args=(list(made[:-1]), False),
            )
            st.button(
                "Reset",
                icon=":material/restart_alt:",
                disabled=not (made or drafted),
                on_click=_set_moves,
                args=([],),
            )


def _set_moves(made: Sequence[Move], clear: bool = True) -> None:
    """Take these as the moves so far; with `clear`, the sliders go back to where they change nothing."""
    # curves belong to the moves that they were asked with
    links.remember(moves=move_texts.to_text(made), **{"surgery.curves": ""})
    if clear:
        surgery_sliders.reset()


def _render_other_edit(opened: Surgery, rows: int, asked: Sequence[Move]) -> None:
    """Any weight edit of the lab as the next move, with its knobs."""
    from lab.defend import DEFENSES, WeightEdit

    edits = {name: entry for name, entry in DEFENSES.items() if isinstance(entry, WeightEdit)}
    with st.expander("Another weight edit, with all its knobs"):
        name = one_of("Edit", "surgery.edit", list(edits), next(iter(edits)), lambda n: n.replace("_", " "))
        st.caption(f"{edits[name].goal} ({plain(edits[name].paper, 200)})")
        knobs = knob_widgets(edits[name].knobs, {}, f"surgery.edit.{name}")
        if not st.button("Make this move", icon=":material/add:", key="surgery.make"):
            return
        try:
            wanted = [*asked, move_texts.compact(name, knobs)]
            with st.spinner("Editing …"):
                surgery_answers.operate(opened, rows, move_texts.to_text(wanted))
        except LabError as error:
            st.warning(plain(str(error).replace("defense.0.", ""), 400), icon=":material/warning:")
            return
        _set_moves(wanted)
        st.rerun()


def _render_save(run: Run, operated: Surgery | None) -> None:
    """Put the operated weights into the queue as a run of their own."""
    from lab.work_queue import ensure_worker, submit

    st.markdown("## Save as a run")
    moved = operated is not None and bool(operated.moves)
    locked = not access.may_write()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Name", key="surgery.name", max_chars=80, placeholder="two components")
        pressed = st.button(
            "Save as a run",
            icon=":material/save:",
            type="primary",
            key="surgery.save",
            disabled=locked or not moved,
            help="Unlock first, at the top." if locked else None if moved else "Make a move first.",
        )
    st.caption(
        "It and its clean twin get the same moves and are measured as this run was; nothing is trained again."
    )
    if pressed and operated is not None:
        folder = readers.runs_folder()
        e = run.experiment
        edited = {"defense": (*e.defense, *operated.moves), "name": name.strip(), "probe": run.asked_probe}
        submit(e.model_copy(update=edited), runs=folder)
        ensure_worker(folder)
        st.success("It is in the queue; in about a minute it appears in Compare.", icon=":material/check:")
