"""What pages read of the runs folder, cached by the files' own stamps; nothing here needs a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.errors import LabError
from lab.paths import runs_dir

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run
    from lab.run_index import RunIndex

Stamp = tuple[tuple[str, int, int], ...]

#: What a run's tables are made of; a change of any of them makes a cached table old.
_SOURCES = ("experiment.json", "result.json", "events.jsonl", "spectra.parquet", "predictions.parquet")


def runs_folder() -> Path:
    """The runs folder that this dashboard shows; by the same rule as everywhere."""
    return runs_dir()


@st.cache_resource(show_spinner=False)
def _index(folder: str) -> RunIndex:
    from lab.run_index import RunIndex

    # looking takes at most a fifth of the time, however many browsers ask
    return RunIndex(folder, rest=4.0)


def runs_table() -> pd.DataFrame:
    """Every run as one line, newest first, as `lab.list_runs` gives it."""
    return _index(str(runs_folder())).table()


def look_again() -> None:
    """Make the next `runs_table` see what this page has just changed."""
    _index(str(runs_folder())).look_again()


def open_run(name: str) -> Run | None:
    """A run by its whole id; None where there is none (a link may name anything)."""
    from lab.record import Run

    path = runs_folder() / name
    inside = path.parent == runs_folder() and name not in ("", ".", "..")
    return Run(path) if inside and (path / "experiment.json").is_file() else None


def stamp(run: Run) -> Stamp:
    """What of a run lies on disk, and how new: the key of everything that is cached of it."""
    found = []
    for name in _SOURCES:
        try:
            facts = (run.path / name).stat()
        except OSError:
            continue
        found.append((name, facts.st_mtime_ns, facts.st_size))
    return tuple(found)


def table(run: Run, part: str) -> pd.DataFrame:
    """A table of a run by the name of its attribute: "measures", "curves", "spectra" and so on.

    Raises:
        LabError: The run does not have it (yet); the sentence says why.
    """
    return _table(str(run.path), part, stamp(run))


@st.cache_data(show_spinner=False, max_entries=200)
def _table(path: str, part: str, of: Stamp) -> pd.DataFrame:
    from lab.record import Run

    return getattr(Run(Path(path)), part)


def try_table(run: Run, part: str) -> pd.DataFrame | None:
    """As `table`; None where the run does not have it."""
    try:
        return table(run, part)
    except (LabError, OSError, ValueError, KeyError):
        return None


def headline(run: Run) -> dict[str, Any]:
    """The headline measures by role and kind, {} while there are none.

    Those of the finished run, else what `headline` events have said so far.
    """
    try:
        return dict(run.headline["measures"])
    except (LabError, KeyError, TypeError):
        pass
    found: dict[str, Any] = {}
    for event in events(run):
        if event.get("kind") == "headline" and isinstance(event.get("measures"), dict):
            found[str(event.get("model", "poisoned"))] = event["measures"]
    return found


def events(run: Run) -> list[dict[str, Any]]:
    """The events of a run so far; read anew only when the file has grown."""
    try:
        facts = (run.path / "events.jsonl").stat()
    except OSError:
        return []
    return _events(str(run.path), facts.st_mtime_ns, facts.st_size)


@st.cache_resource(show_spinner=False, max_entries=64)
def _events(path: str, mtime: int, size: int) -> list[dict[str, Any]]:
    from lab.store import RunFolder

    return RunFolder(Path(path)).read_events()
