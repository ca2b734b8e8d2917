"""Sweeps on disk: what was asked and how far it is, for whoever follows or stops one from elsewhere.

`<runs>/.sweeps/<id>/plan.json` says what was asked, `state.json` how far it is; both are written whole or not
at all. The id is a hash of what was asked, so the same sweep asked again is the same record. Whoever drives
it holds `.lock`; a state that says "running" while nobody holds that is a sweep that was killed. So is one
that was asked for (the time of `plan.json`) and has no state yet, when its process had time enough to begin.

The dashboard and notebooks import this; it needs neither torch nor pandas.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from lab.errors import LabError
from lab.experiment import content_hash
from lab.files import is_held, read_json, write_json, writing_to
from lab.paths import runs_dir

SWEEP_STATES = ("waiting", "running", "finished", "failed", "stopped", "killed")
CELL_STATES = ("waiting", "running", "finished", "failed")

_SCHEMA = 1
_ID = re.compile(r"[0-9a-f]{12}")
#: Seconds that a process has from its start until it holds the record: most of them for imports, when others
#: use the same cores.
_BEGINS = 30.0
#: Seconds between two writes of the state; a large one is written more seldom.
_WRITE = 0.5


@dataclass(frozen=True)
class SweepState:
    """How far a sweep is.

    Attributes:
        id: Its id.
        state: One of `SWEEP_STATES`; "failed" where a cell is, or a tuning's candidate, or the sweep broke
            off.
        asked: What was asked: experiment, over, arms, seeds, tune, twin.
        cells: For each cell point, seed, state (one of `CELL_STATES`), run and reason.
        jobs: Jobs done and in all, of the present stage: tuning, or cells and their twins.
        stage: "tuning" or "cells".
        per_minute: Cells trained in a minute; NaN before the first.
        left: Seconds that it will still take; NaN where that is unknown.
        best: The best cell so far: point, seed, run, measure, value; {} before the first.
        tunings: For each point that was tuned without some candidates, since those failed: point, text, and
            failed, how many did otherwise than by diverging.
        executor: Who does it, and with how many workers.
        workers: How many.
        reason: Why it broke off, in one sentence; "" where it did not.
        created: When it was first asked, in seconds since 1970.
        updated: When this was written.
    """

    id: str
    state: str
    asked: dict[str, Any]
    cells: list[dict[str, Any]] = field(default_factory=list)
    jobs: tuple[int, int] = (0, 0)
    stage: str = "cells"
    per_minute: float = float("nan")
    left: float = float("nan")
    best: dict[str, Any] = field(default_factory=dict)
    tunings: list[dict[str, Any]] = field(default_factory=list)
    executor: str = ""
    workers: int = 1
    reason: str = ""
    created: float = 0.0
    updated: float = 0.0


def sweeps_dir(runs: str | Path | None = None) -> Path:
    """The folder of the sweeps' records; it need not exist."""
    return runs_dir(runs) / ".sweeps"


def sweep_id(asked: Mapping[str, Any]) -> str:
    """The id of a sweep: a hash of what was asked, the same for the same sweep."""
    return content_hash(_plain(asked))[:12]


def list_sweeps(runs: str | Path | None = None) -> list[SweepState]:
    """Every sweep of a runs folder, the newest first; records that cannot be read are passed over."""
    found = []
    for path in sweeps_dir(runs).glob("*/plan.json"):
        with contextlib.suppress(LabError):
            found.append(read_sweep(path.parent.name, runs))
    return sorted(found, key=lambda s: s.created, reverse=True)


def read_sweep(id: str, runs: str | Path | None = None) -> SweepState:
    """How far a sweep is.

    Raises:
        LabError: There is none of this id, or its record cannot be read.
    """
    folder = sweeps_dir(runs) / id
    plan = read_json(folder / "plan.json") if _ID.fullmatch(id) else None
    if not isinstance(plan, dict) or plan.get("schema") != _SCHEMA:
        raise LabError(f"No sweep {id[:60]!r} in {sweeps_dir(runs)}.")
    told = read_json(folder / "state.json")
    told = told if isinstance(told, dict) else {}
    state = _state(folder, told)

    def number(key: str) -> float:
        value = told.get(key)
        return float("nan") if value is None else float(value)

    done, total = told.get("jobs", (0, 0))
    return SweepState(
        id=id,
        state=state,
        asked=dict(plan.get("asked", {})),
        cells=list(told.get("cells", [])),
        jobs=(int(done), int(total)),
        stage=str(told.get("stage", "cells")),
        per_minute=number("per_minute"),
        left=number("left"),
        best=dict(told.get("best", {})),
        tunings=list(told.get("tunings", [])),
        executor=str(told.get("executor", "")),
        workers=int(told.get("workers", 1)),
        # one that goes on has its former end in the record until it begins
        reason=str(told.get("reason", "")) if state == "failed" else "",
        created=float(plan.get("created", 0.0)),
        updated=float(told.get("updated", 0.0)),
    )


def ask_again(id: str, runs: str | Path | None = None) -> None:
    """Note that a process is being started for a sweep of this id, which is there.

    Raises:
        LabError: The folder cannot be written.
    """
    folder = sweeps_dir(runs) / id
    with writing_to(folder):
        os.utime(folder / "plan.json")


def stop_sweep(id: str, runs: str | Path | None = None) -> None:
    """Ask the process that drives a sweep to stop; asked again, the sweep goes on where it was.

    Raises:
        LabError: There is no such sweep, or nobody works on it.
    """
    if read_sweep(id, runs).state != "running":
        raise LabError(f"The sweep {id} is not running.")
    folder = sweeps_dir(runs) / id
    with writing_to(folder):
        (folder / "stop").touch()


class SweepRecord:
    """The record of a sweep, for whoever drives it.

    Args:
        runs: The runs folder.
        asked: What was asked, plain values.
    """

    def __init__(self, runs: Path, asked: Mapping[str, Any]) -> None:
        self.id = sweep_id(asked)
        self.folder = sweeps_dir(runs) / self.id
        self._asked = _plain(asked)
        self._next = 0.0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the record while the sweep is driven, and say how it ended.

        Raises:
            LabError: Another process drives it, or the folder cannot be written.
        """
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        guard = filelock.FileLock(self.folder / ".lock")
        try:
            guard.acquire(timeout=0.2)
        except filelock.Timeout:
            raise LabError(
                f"The sweep {self.id} is being run by another process; wait for it, or stop it there."
            ) from None
        try:
            (self.folder / "stop").unlink(missing_ok=True)
            with self._dropped_unless_begun(is_new=self.plan()):
                yield
        finally:
            guard.release()

    @contextlib.contextmanager
    def _dropped_unless_begun(self, *, is_new: bool) -> Iterator[None]:
        """Leave no record of a sweep that ended before anything of it was begun: it would wait for ever."""
        try:
            yield
        except BaseException:
            if is_new and not (self.folder / "state.json").exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def plan(self) -> bool:
        """Write what was asked, unless it is there; whether it was not.

        Raises:
            LabError: The folder cannot be written.
        """
        if isinstance(read_json(self.folder / "plan.json"), dict):
            return False
        created = round(time.time(), 3)
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        plan = {"schema": _SCHEMA, "id": self.id, "created": created, "asked": self._asked}
        write_json(self.folder / "plan.json", plan)
        return True

    def should_stop(self) -> bool:
        """Whether somebody asked for a stop."""
        return os.path.exists(self.folder / "stop")

    def write(self, told: Mapping[str, Any], *, now: bool = False) -> None:
        """Write the state, unless it was written just now; what cannot be written must not cost a run.

        Args:
            told: The fields of `SweepState` that are not in the plan.
            now: Write in any case.
        """
        begun = time.monotonic()
        if begun < self._next and not now:
            return
        with contextlib.suppress(LabError, OSError):
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "updated": round(time.time(), 3)}
            write_json(self.folder / "state.json", _plain({**told, **owner}))
        took = time.monotonic() - begun
        self._next = begun + max(_WRITE, 20 * took)


def _state(folder: Path, told: Mapping[str, Any]) -> str:
    """What a record says, unless it is about to be driven, or nobody is there who should drive it."""
    state = str(told.get("state", "waiting"))
    asked = _written(folder / "plan.json")
    if asked > _written(folder / "state.json") and time.time() - asked < _BEGINS:
        return "waiting"
    if state in ("waiting", "running") and not is_held(folder / ".lock"):
        return "killed"
    return state


def _written(path: Path) -> float:
    """When a file was written; 0 where it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _plain(value: Any) -> Any:
    """Values as JSON has them: NaN as null, mappings and sequences through and through."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if isinstance(value, Sequence) or hasattr(value, "__iter__"):
        return [_plain(v) for v in value]
    return _plain(value.item()) if hasattr(value, "item") else str(value)
