"""Models that pages ask: loaded once, shared by all browsers, one question at a time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import readers
import streamlit as st

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.probe import PatchedPair, Predictor
    from lab.record import Run
    from lab.surgery import Surgery

#: No two sessions ask a shared model at once: one's edits would answer the other.
_LOCK = threading.RLock()
#: Seconds; without any, who lets go of a lock mostly has it again before the next one wakes up.
_COURTESY = 0.01


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Ask a model: alone, and with one thread while a training runs, which more would slow tenfold."""
    with _LOCK:
        _settle_threads()
        yield


def let_others_ask() -> None:
    """Between two steps of long work inside `at_work`, let whoever waits for a model go first.

    Only for work on models that no page shares, and that draws nothing from torch's generator across steps.
    """
    _LOCK.release()
    time.sleep(_COURTESY)
    _LOCK.acquire()
    _settle_threads()


def _settle_threads() -> None:
    import torch

    threads = _threads()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def predictor_run(name: str) -> Run:
    """A run whose model stays loaded between questions.

    Raises:
        LabError: There is no such run.
    """
    found = _existing(name)
    return _run(str(found.path), readers.stamp(found))


def surgery(name: str, rows: int = 400) -> Surgery:
    """A run laid open, with its rows tokenised; shared, as no move changes it.

    Args:
        name: The run's id.
        rows: How many validation rows to ask: half untouched, half triggered.

    Raises:
        LabError: There is no such run, or it cannot be opened.
    """
    found = _existing(name)
    with _LOCK:
        return _surgery(str(found.path), rows, readers.stamp(found))


def patched_pair(name: str, rows: int = 30) -> PatchedPair:
    """A run's model beside its clean twin's, with the triggered rows; shared, and whole between questions.

    Args:
        name: The run's id.
        rows: How many triggered validation rows to ask.

    Raises:
        LabError: There is no such run, or it has no twin or no trigger.
    """
    found = _existing(name)
    with _LOCK:
        return _patched_pair(str(found.path), rows, readers.stamp(found))


def sealed_predictor(folder: Path, base: str, labels: tuple[str, ...]) -> Predictor:
    """A sealed adapter of a match on its base; all teams ask the same one.

    Args:
        folder: The sealed adapter's folder.
        base: What `base.model` says.
        labels: In the order of the logits.

    Raises:
        LabError: It cannot be loaded.
    """
    with _LOCK:
        return _sealed(str(folder), base, labels)


# as many as a match deals, or each team's question would load one anew; MiniLM takes 90 MB each
@st.cache_resource(max_entries=9, show_spinner="Loading the adapter …")
def _sealed(folder: str, base: str, labels: tuple[str, ...]) -> Predictor:
    from lab.audit import open_adapter
    from lab.audit.suspects import load_suspect

    return load_suspect(open_adapter(folder), base, labels=labels)


@st.cache_resource(max_entries=4, show_spinner="Loading the model …")
def _run(path: str, of: readers.Stamp) -> Run:
    from lab.record import Run

    return Run(Path(path))


@st.cache_resource(max_entries=3, show_spinner="Loading the model and its rows …")
def _surgery(path: str, rows: int, of: readers.Stamp) -> Surgery:
    from lab.record import Run

    return Run(Path(path)).surgery(rows=rows)


@st.cache_resource(max_entries=2, show_spinner="Loading the model and its clean twin …")
def _patched_pair(path: str, rows: int, of: readers.Stamp) -> PatchedPair:
    from lab.patched_pair import open_patched_pair
    from lab.record import Run

    return open_patched_pair(Run(Path(path)), rows=rows)


def _existing(name: str) -> Run:
    run = readers.open_run(name)
    if run is None:
        raise LabError(f"There is no run {name!r} in this runs folder.")
    return run


def _threads() -> int:
    """All cores where they are idle, else one; never more than OMP_NUM_THREADS allows."""
    cores = os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    most = min(cores, int(allowed)) if allowed.isdigit() and int(allowed) else cores
    # what else computes here, `lab run` in a terminal for instance, shows in the load alone
    is_busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.75 * cores
    return 1 if is_busy or _training_runs() else most


def _training_runs() -> bool:
    from lab.work_queue import tickets

    return any(ticket.state == "working" for ticket in tickets(readers.runs_folder()))
