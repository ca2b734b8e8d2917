"""What pages read of the runs folder, cached by the files' own stamps; nothing here needs a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.errors import LabError
from lab.paths import runs_dir

if TYPE_CHECKING:
    import pandas as pd

    from lab.comparison import Listing
    from lab.event_log import EventLog
    from lab.record import Run
    from lab.run_index import RunIndex
    from lab.work_queue import Ticket

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


def listing() -> Listing:
    """Every run, newest first, with what is asked of it at every click; all browsers share it: read only."""
    return _index(str(runs_folder())).listing()


def runs_table() -> pd.DataFrame:
    """Every run as one line, newest first, as `lab.list_runs` gives it; a copy."""
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


def digest(table: pd.DataFrame) -> str:
    """A digest of a table of plain values: what is made of the same ones is the same, whatever came since."""
    import hashlib

    import pandas as pd

    lines = pd.util.hash_pandas_object(table, index=False).to_numpy()
    return hashlib.blake2b(lines.tobytes(), digest_size=16).hexdigest()


def headline(run: Run) -> dict[str, Any]:
    """The headline measures by role and kind, {} while there are none.

    Those of the finished run, else what `headline` events have said so far.
    """
    try:
        return dict(_headline(run)["measures"])
    except (LabError, KeyError, TypeError):
        pass
    told = [e for e in events(run, "headline") if isinstance(e.get("measures"), dict)]
    return {str(e.get("model", "poisoned")): e["measures"] for e in told}


def twin_id(run: Run) -> str:
    """The id of the clean twin that a finished run was measured beside; "" while that is not known."""
    try:
        return str(_headline(run)["twin"])
    except (LabError, KeyError, TypeError):
        return ""


def _headline(run: Run) -> dict[str, Any]:
    """The headline of a finished run; {} for another, without the long look at why it is not."""
    return run.headline if (run.path / "result.json").is_file() else {}


def events(run: Run, *kinds: str) -> Sequence[dict[str, Any]]:
    """The events of a run so far, of some kinds or all; all browsers share them: read only."""
    return _log(str(run.path)).of(*kinds)


@st.cache_resource(show_spinner=False, max_entries=64)
def _log(path: str) -> EventLog:
    from lab.event_log import EventLog

    return EventLog(Path(path) / "events.jsonl")


def tickets(*, now: bool = False) -> list[Ticket]:
    """The queue.

    Args:
        now: Whether it is to be as it is now. Else it may be half a second old: a look reads every ticket,
            and every browser that watches looks every second.
    """
    if now:
        _tickets.clear()
    return _tickets(str(runs_folder()))


@st.cache_resource(show_spinner=False, ttl=0.5, max_entries=8)
def _tickets(folder: str) -> list[Ticket]:
    from lab.work_queue import tickets as every

    return every(folder)
