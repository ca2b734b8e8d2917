"""Background work: experiments wait as files in `runs/.queue/`, and detached workers train them.

A ticket is one JSON file, `<id>.json`; its id sorts by time. Whoever works on it holds the lock
`<id>.lock`, and whoever wants it stopped leaves `<id>.stop`. A worker holds a slot, `worker-<n>.lock`. Only
locks say who lives: a ticket that says "working" while nobody holds it had a worker that died, and waits.

The dashboard and notebooks import this; it needs neither torch nor pandas.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from lab.detached import start_detached
from lab.errors import LabError
from lab.files import is_held, read_json, write_json, writing_to
from lab.paths import expanded, runs_dir

if TYPE_CHECKING:
    from lab.experiment import Experiment

TICKET_STATES = ("waiting", "working", "done", "stopped", "failed")
ENDED_STATES = ("done", "stopped", "failed")

#: Ended tickets are kept this many seconds, so that a page opened the next morning still tells of them.
_KEPT_SECONDS = 24 * 3600.0
#: A worker that could not start is not started again and again by a page that asks every second.
_RETRY_SECONDS = 10.0
_ID = re.compile(r"[0-9a-f]{16}-[0-9a-f]{6}")
_THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip

#: The workers that this process started, by queue and slot, with the time; what lives is said by the locks.
_started: dict[tuple[Path, int], tuple[subprocess.Popen[bytes], float]] = {}
_last_time = 0


@dataclass(frozen=True)
class Ticket:
    """One experiment that waits for a worker, or has had one.

    Attributes:
        id: Sorts by the time of asking.
        experiment: What is asked, as `Experiment.to_dict` gives it.
        created: When it was asked, in seconds since 1970.
        state: One of `TICKET_STATES`.
        run: The id of the run that it will be; "" until the rows are prepared.
        working: The id of the run that is worked on right now: the run, its twin, its base or its parent.
        stage: What is done right now, in the pipeline's words: "prepare", "load", "train", "headline", …
        done: How far the stage is, of `total`; steps or texts.
        total: How much the stage has to do; 0 where it does not say.
        error: Why it failed, in one sentence.
        twin: Whether the clean twin is trained too.
        deaths: How often a worker died over it.
    """

    id: str
    experiment: dict[str, Any]
    created: float
    state: str = "waiting"
    run: str = ""
    working: str = ""
    stage: str = ""
    done: int = 0
    total: int = 0
    error: str = ""
    twin: bool = True
    deaths: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED_STATES


def queue_dir(runs: str | Path | None = None) -> Path:
    """The folder of the queue; it need not exist."""
    return runs_dir(runs) / ".queue"


def submit(experiment: Experiment, *, runs: str | Path | None = None, twin: bool = True) -> Ticket:
    """Put an experiment into the queue; a stopped or killed run that is asked for again goes on.

    Nothing is trained by this: `ensure_worker` sees to it that somebody works.

    Args:
        experiment: What is asked.
        runs: The runs folder, by the rule of `lab.paths.runs_dir`.
        twin: Also train the clean twin.

    Raises:
        LabError: Where the runs folder cannot be written.
    """
    asked = _from_anywhere(experiment).to_dict()
    ticket = Ticket(_new_id(), asked, created=round(time.time(), 3), twin=twin)
    folder = queue_dir(runs)
    _make(folder)
    save_ticket(folder, ticket)
    return ticket


def tickets(runs: str | Path | None = None) -> list[Ticket]:
    """Every ticket, in the order of asking; files that cannot be read are passed over."""
    folder = queue_dir(runs)
    found = [_current(folder, path.stem) for path in sorted(folder.glob("*.json"))]
    return [ticket for ticket in found if ticket is not None]


def read_ticket(id: str, runs: str | Path | None = None) -> Ticket:
    """One ticket.

    Raises:
        LabError: There is none of this id, or its file cannot be read.
    """
    found = _current(queue_dir(runs), id) if _ID.fullmatch(id) else None
    if found is None:
        raise LabError(f"No ticket {id[:60]!r} in the queue of {runs_dir(runs)}; ended ones go after a day.")
    return found


def request_stop(id: str, runs: str | Path | None = None) -> None:
    """Ask for a stop: a waiting ticket is stopped at once, a working one as soon as its worker can.

    A training saves a checkpoint first; submitting the experiment again goes on from there. Nothing happens
    to an ended ticket.

    Raises:
        LabError: There is no such ticket.
    """
    if read_ticket(id, runs).ended:
        return
    folder = queue_dir(runs)
    # the flag first: a worker that takes the ticket in this moment looks for it after it has the lock
    with writing_to(folder):
        stop_flag(folder, id).touch()
    with claimed(folder, id) as ticket:
        if ticket is not None:
            save_ticket(folder, replace(ticket, state="stopped", working="", stage=""))
            mark_stopped(folder.parent, ticket.run)
            stop_flag(folder, id).unlink(missing_ok=True)


def remove(id: str, runs: str | Path | None = None) -> None:
    """Forget an ended ticket; its run stays.

    Raises:
        LabError: There is no such ticket, or it has not ended.
    """
    ticket = read_ticket(id, runs)
    if not ticket.ended:
        raise LabError(f"The ticket {id} is {ticket.state}; stop it first.")
    _unlink(queue_dir(runs), id)


def ensure_worker(runs: str | Path | None = None, slots: int | None = None) -> None:
    """Start as many detached workers as the waiting tickets can use and the slots allow.

    The workers outlive this process. They write to `runs/.queue/worker-<slot>.log`, and end by themselves
    when there is nothing more to do.

    Args:
        runs: The runs folder.
        slots: How many workers may live at once; by default `LAB_WORKERS`, or 1.

    Raises:
        LabError: `LAB_WORKERS` is no count, or the runs folder cannot be written.
    """
    folder, slots = queue_dir(runs), slot_count(slots)
    states = [ticket.state for ticket in tickets(runs)]
    free = [slot for slot in range(1, slots + 1) if not _is_taken(folder, slot)]
    idle = max(0, slots - len(free) - states.count("working"))
    for slot in free[: max(0, states.count("waiting") - idle)]:
        _start(folder, slot, slots)


def living_workers(runs: str | Path | None = None, slots: int | None = None) -> int:
    """How many workers hold a slot, or were just started by this process."""
    folder = queue_dir(runs)
    return sum(_is_taken(folder, slot) for slot in range(1, slot_count(slots) + 1))


def slot_count(slots: int | None = None) -> int:
    """How many workers may live at once: `slots`, else `LAB_WORKERS`, else 1.

    On a CPU two trainings side by side are slower than one after the other.

    Raises:
        LabError: It is not a whole number from 1 up.
    """
    given: object = os.environ.get("LAB_WORKERS", "").strip() or 1 if slots is None else slots
    text = str(given)
    if not text.isdecimal() or int(text) < 1:
        raise LabError(f"LAB_WORKERS = {text!r}: give how many workers may live at once, a number from 1 up.")
    return int(text)


def thread_share(slots: int) -> dict[str, str]:
    """The environment that gives one of `slots` workers its share of the cores; to be set before torch."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return dict.fromkeys(_THREADS, str(max(1, cores // slots)))


def thread_variables() -> tuple[str, ...]:
    """The environment variables by which libraries are told how many threads to start."""
    return _THREADS


# What follows is for `lab.worker`.


@contextlib.contextmanager
def claimed(folder: Path, id: str) -> Iterator[Ticket | None]:
    """Hold a ticket that has not ended; None where another one does, or there is nothing more to do.

    The ticket comes as it lies on disk: "working" means that the last worker died over it.
    """
    with _held(folder / f"{id}.lock") as is_mine:
        ticket = _stored(folder, id) if is_mine else None
        yield None if ticket is None or ticket.ended else ticket


def is_claimed(folder: Path, id: str) -> bool:
    """Whether a living process holds a ticket, if only to begin with it."""
    return is_held(folder / f"{id}.lock")


@contextlib.contextmanager
def slot_held(folder: Path, slot: int) -> Iterator[bool]:
    """Hold a worker's slot; False where it is taken."""
    # a page that looks whether the slot is free holds it for a moment
    with _held(folder / f"worker-{slot}.lock", wait=1.0) as is_mine:
        if is_mine:
            with contextlib.suppress(OSError):
                _ready_mark(folder, slot).touch()
        yield is_mine


def save_ticket(folder: Path, ticket: Ticket) -> None:
    """Write a ticket, atomically; for whoever holds it."""
    write_json(folder / f"{ticket.id}.json", asdict(ticket))


def stop_flag(folder: Path, id: str) -> Path:
    """The file that asks for a stop."""
    return folder / f"{id}.stop"


def mark_stopped(runs: Path, run: str) -> None:
    """Let an unfinished run say that it was stopped, and not that it was killed; it may not exist."""
    from lab.store import RunFolder

    folder = RunFolder(runs / run)
    if not run or Path(run).name != run or not folder.path.is_dir() or folder.finished:
        return
    if not folder.is_locked():  # another process works on it, which nobody asked to stop
        with contextlib.suppress(OSError):
            (folder.path / "stop").touch()


def sweep_queue(folder: Path) -> None:
    """Remove ended tickets that are older than a day, and what a kill left half written."""
    eldest = time.time() - _KEPT_SECONDS
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime > eldest or path.name.startswith("worker-"):
                    continue
                ticket = _stored(folder, path.stem) if path.suffix == ".json" else None
                if ticket is not None and ticket.ended:
                    _unlink(folder, ticket.id)
                elif path.name.startswith(".") or not (folder / f"{path.stem}.json").exists():
                    path.unlink(missing_ok=True)


def _current(folder: Path, id: str) -> Ticket | None:
    """A ticket as it is: one whose worker died waits again."""
    ticket = _stored(folder, id)
    if ticket is None or ticket.state != "working" or is_claimed(folder, id):
        return ticket
    ticket = _stored(folder, id)  # it may have ended between the two looks
    return replace(ticket, state="waiting") if ticket and ticket.state == "working" else ticket


def _stored(folder: Path, id: str) -> Ticket | None:
    """A ticket as it lies on disk; None where the file is no ticket."""
    values = read_json(folder / f"{id}.json")
    if not isinstance(values, dict):
        return None
    known = {field.name: values[field.name] for field in fields(Ticket) if field.name in values}
    try:
        ticket = Ticket(**known)
    except TypeError:
        return None
    kinds: dict[str, Any] = {
        "str": str,
        "float": (int, float),
        "int": int,
        "bool": bool,
        "dict[str, Any]": dict,
    }
    fits = all(isinstance(getattr(ticket, f.name), kinds[str(f.type)]) for f in fields(Ticket))
    return ticket if fits and ticket.id == id and ticket.state in TICKET_STATES else None


def _unlink(folder: Path, id: str) -> None:
    for suffix in ("json", "stop", "lock"):  # the lock last: it is nothing without its ticket
        with contextlib.suppress(OSError):
            (folder / f"{id}.{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def _held(path: Path, wait: float = 0.1) -> Iterator[bool]:
    """Hold a lock if that can be had within `wait` seconds; says whether."""
    guard = filelock.FileLock(path)
    with contextlib.suppress(filelock.Timeout, OSError):
        guard.acquire(timeout=wait, poll_interval=0.02)
    try:
        yield guard.is_locked
    finally:
        guard.release()


def _is_taken(folder: Path, slot: int) -> bool:
    """Whether a slot is held, or a worker that this process started is on its way to it."""
    if is_held(folder / f"worker-{slot}.lock"):
        return True
    child, since = _started.get((folder, slot), (None, 0.0))
    if child is None:
        return False
    code = child.poll()
    if code is None:
        return not _ready_mark(folder, slot).exists()  # it held the slot and gave it back: it is leaving
    return code > 0 and time.monotonic() - since < _RETRY_SECONDS


def _ready_mark(folder: Path, slot: int) -> Path:
    """Says that the worker started last has had its slot."""
    return folder / f"worker-{slot}.ready"


def _start(folder: Path, slot: int, slots: int) -> None:
    """Start a worker that outlives this process."""
    _make(folder)
    _ready_mark(folder, slot).unlink(missing_ok=True)
    child = start_detached(
        ["worker", "--runs", str(folder.parent), "--slot", str(slot)],
        folder=folder.parent,
        log=folder / f"worker-{slot}.log",
        environment=thread_share(slots) | {"LAB_WORKERS": str(slots)},
    )
    _started[folder, slot] = (child, time.monotonic())


def _make(folder: Path) -> None:
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _new_id() -> str:
    """Sixteen hex digits of time and six of chance; later ones of this process are greater."""
    global _last_time
    _last_time = max(time.time_ns(), _last_time + 1)  # some clocks tick every 15 ms only
    return f"{_last_time:016x}-{secrets.token_hex(3)}"


def _from_anywhere(experiment: Experiment) -> Experiment:
    """The experiment with its files named from the root: a worker runs in another folder."""
    from lab.corpus import DATASETS
    from lab.presets import preset_names
    from lab.train.models import MODELS

    known = {"data.name": set(DATASETS), "base.model": {*MODELS, *preset_names()}}
    named = {"data.name": experiment.data.name, "base.model": experiment.base.model}
    whole = {}
    for key, name in named.items():
        path = expanded(name)
        if name not in known[key] and path.exists() and str(path.resolve()) != name:
            whole[key] = str(path.resolve())
    return experiment.with_(**whole) if whole else experiment
