"""A file of one's own for the Bench: kept in a folder of its own, checked as hostile, deleted with it."""

from __future__ import annotations

from pathlib import Path

import access
import choices
import panels
import readers
import streamlit as st
from text import plain

from lab.errors import LabError


def upload_form() -> None:
    """Let people bring a CSV, TSV, JSONL or Parquet file, and train on it."""
    if not access.may_write():
        return
    with st.expander("**Your own data**"):
        given = st.file_uploader(
            "CSV, TSV, JSONL or Parquet with a text and a label column, up to 10 MB",
            type=["csv", "tsv", "jsonl", "parquet"],
            key="upload",
            help="It stays on this machine, in the runs folder's .uploads, until it is deleted.",
        )
        text = st.text_input("Text column", "text", key="upload_text", max_chars=100)
        label = st.text_input("Label column", "label", key="upload_label", max_chars=100)
        if given is not None and st.button("Use it", key="upload_use", width="stretch"):
            with panels.part("The upload"):
                _take(given.name, given.getvalue(), text, label)
        _stored(readers.runs_folder())


def _take(name: str, content: bytes, text: str, label: str) -> None:
    from lab.uploads import keep_upload

    try:
        path, labels, rows = keep_upload(readers.runs_folder(), name, content, text=text, label=label)
    except LabError as error:
        st.error(plain(str(error), 400))
        return
    preset, experiment = choices.state()
    changes = choices.changes() | {
        "data.name": str(path),
        "data.text": text,
        "data.label": label,
        "data.rows": min(experiment.data.rows or rows, rows),
    }
    if getattr(experiment.poison, "target_label", "") not in labels and experiment.attack != "none":
        changes["poison.target_label"] = labels[-1]
    complaint = choices.start_from(preset, changes)
    if complaint:
        st.error(plain(complaint, 400))
    else:
        st.rerun()


def _stored(runs: Path) -> None:
    from lab.uploads import remove_upload, uploads

    for path in uploads(runs):
        name, button = st.columns([0.8, 0.2], vertical_alignment="center")
        name.caption(plain(path.name))
        if button.button(
            "", icon=":material/delete:", key=f"remove-{path.parent.name}", help="Delete this file"
        ):
            remove_upload(runs, path)
            st.rerun()
