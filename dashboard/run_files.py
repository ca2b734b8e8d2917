"""What lies in a run's folder: its note, its files, and the way to delete it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import access
import links
import readers
import streamlit as st
from text import plain

from lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from lab.record import Run

#: What else a run is to another one, in words.
_ROLES = {"twin": "is the clean twin of", "base": "is the base of", "parent": "is edited in"}


def render(run: Run, table: pd.DataFrame) -> None:
    """Draw the note, the files and the deletion.

    Args:
        run: The run.
        table: All runs as `lab.list_runs` lists them.
    """
    left, right = st.columns(2, gap="large")
    with left:
        _render_note(run)
        _render_deletion(run, table)
    with right:
        _render_files(run)


def _render_note(run: Run) -> None:
    from lab.run_care import LONGEST_NOTE, read_note, write_note

    held = read_note(run)
    may = access.may_write()
    with st.form(f"note-{run.id}", border=False):
        text = st.text_area(
            "Note",
            held,
            height=150,
            max_chars=LONGEST_NOTE,
            placeholder="What you saw, and what to try next.",
            help="Kept beside the run, in note.md; everyone who opens this runs folder sees it.",
            disabled=not may,
        )
        if st.form_submit_button("Save the note", disabled=not may, icon=":material/save:"):
            try:
                write_note(run, text)
                st.toast("The note is saved.")
            except LabError as error:
                st.error(plain(str(error), 400), icon=":material/error:")


def _render_files(run: Run) -> None:
    paths = [path for path in sorted(run.path.rglob("*"))[:200] if path.is_file() and not _hidden(path, run)]
    found = [(str(path.relative_to(run.path)), path.stat().st_size / 1000) for path in paths]
    st.caption("Files in the run's folder; weights are safetensors, tables are Parquet.")
    st.dataframe(
        {"file": [name for name, _ in found], "kB": [size for _, size in found]},
        hide_index=True,
        height=min(38 + 35 * max(len(found), 2), 400),
        column_config={"kB": st.column_config.NumberColumn(format="localized", width=90)},
    )


def _hidden(path: Path, run: Run) -> bool:
    return any(part.startswith(".") for part in path.relative_to(run.path).parts)


def _render_deletion(run: Run, table: pd.DataFrame) -> None:
    from lab.run_care import dependents

    with st.expander("Delete this run", icon=":material/delete:"):
        resting = dependents(run.id, table, readers.runs_folder())
        bound = {name: role for name, role in resting.items() if role != "twin"}
        if bound:
            st.warning(
                f"It cannot be deleted: it {_told(bound)}, "
                "which could not be opened without it. Delete those first.",
                icon=":material/link:",
            )
            return
        if resting:
            st.warning(
                f"It {_told(resting)}. "
                "What was measured stays there; they could not be asked anew beside it.",
                icon=":material/link:",
            )
        sure = st.checkbox("Delete it for good, with its weights and its note", key=f"sure-{run.id}")
        pressed = st.button(
            "Delete",
            type="primary",
            icon=":material/delete_forever:",
            disabled=not (sure and access.may_write()),
            help=None if access.may_write() else "Unlock first, at the top.",
            key=f"delete-{run.id}",
        )
        if pressed and access.may_write():
            _delete(run)


def _delete(run: Run) -> None:
    from lab.run_care import delete_run

    try:
        delete_run(run)
        readers.look_again()
    except LabError as error:
        st.error(plain(str(error), 400), icon=":material/error:")
        return
    links.remember(run="")
    links.remember_runs([name for name in links.chosen_runs() if name != run.id])
    st.toast("The run is deleted.")
    st.rerun(scope="app")


def _told(resting: dict[str, str]) -> str:
    """What it is to the runs that rest on it, with the first few of them."""
    parts = []
    for role, words in _ROLES.items():
        names = [name for name, is_to in resting.items() if is_to == role]
        if names:
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            parts.append(f"{words} {', '.join(plain(n) for n in names[:2])}{more}")
    return "; ".join(parts)
