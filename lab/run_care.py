"""Looking after runs that are there: a note beside a run, what rests on it, and its deletion."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from lab.errors import LabError
from lab.files import put_in_place, read_json, write_text, writing_to
from lab.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run

NOTE = "note.md"
#: Characters; a note is a few lines, and a browser cannot fill the disk with it.
LONGEST_NOTE = 20_000
#: Folders on their way out: hidden, so that no listing shows a run that is half deleted.
_DELETED = ".deleted-"


def read_note(run: Run) -> str:
    """What people wrote about a run; "" where nobody did."""
    try:
        with (run.path / NOTE).open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST_NOTE)
    except OSError:
        return ""


def write_note(run: Run, text: str) -> None:
    """Keep a note beside a run, in place of the one that was there; an empty one goes.

    Raises:
        LabError: The note is too long, the run is gone, or its folder cannot be written.
    """
    if len(text) > LONGEST_NOTE:
        raise LabError(f"The note has {len(text):,} characters; allowed are {LONGEST_NOTE:,}.")
    if not run.path.is_dir():
        raise LabError(f"The run {run.id} is not there any more.")
    if text.strip():
        # half a character of a pasted pair is no text that a file can hold
        write_text(run.path / NOTE, text.encode("utf-8", "replace").decode())
        return
    with writing_to(run.path):
        (run.path / NOTE).unlink(missing_ok=True)


def dependents(run_id: str, table: pd.DataFrame, runs: Path | None = None) -> dict[str, str]:
    """The runs that rest on a run.

    Args:
        run_id: The run's whole id.
        table: All runs as `lab.list_runs` lists them.
        runs: The runs folder; with it the records of runs with a defense are asked for their parent as well,
            which the listing does not tell.

    Returns:
        By id, what the run is to them: "base" (they were fine-tuned from it), "parent" (they edit its
        weights) or "twin" (they are compared with it). Without base or parent a run cannot be opened; without
        its twin it loses nothing that was measured.
    """
    found: dict[str, str] = {}
    for column, role in (("twin", "twin"), ("parent", "parent"), ("base.model", "base")):
        if column in table:
            found |= dict.fromkeys(table.loc[table[column] == run_id, "id"].astype(str), role)
    if runs is not None and "parent" not in table and "defense" in table:
        for name in table.loc[table["defense"].fillna("") != "", "id"].astype(str):
            record = read_json(runs / name / "experiment.json")
            if isinstance(record, dict) and record.get("parent") == run_id:
                found[name] = "parent"
    found.pop(run_id, None)
    return found


def delete_run(run: Run) -> None:
    """Delete a run's folder, whatever state it is in, unless somebody works on it.

    It disappears from every listing at once; a kill in the middle leaves a hidden folder, which the next
    deletion removes.

    Raises:
        LabError: The run is being worked on, it is no folder of a run, or it cannot be deleted.
    """
    path = run.path
    if path.is_symlink() or not (path / "experiment.json").is_file() or path.name.startswith("."):
        raise LabError(f"{path.name} is no folder of a run; nothing was deleted.")
    discard(RunFolder(path))


def discard(folder: RunFolder) -> None:
    """Delete a folder that is worked on under a lock, whatever it holds, unless somebody works on it.

    Raises:
        LabError: It is being worked on, or it cannot be deleted.
    """
    path = folder.path
    hidden = path.parent / f"{_DELETED}{path.name}-{secrets.token_hex(4)}"
    with writing_to(path.parent):
        with _claimed(folder):
            put_in_place(path, hidden)
        for leftover in path.parent.glob(f"{_DELETED}*"):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _claimed(folder: RunFolder) -> Iterator[None]:
    """Hold a run that nobody works on."""
    guard = filelock.FileLock(folder.path / ".lock")
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        raise LabError(f"{folder.id} is being worked on; stop it first, then delete it.") from None
    try:
        if os.name == "nt":  # an open file cannot be moved there
            guard.release()
        yield
    finally:
        guard.release()
