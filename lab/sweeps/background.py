"""Sweeps that outlive the process that starts them: a record, and a detached `lab sweep` that does it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from lab.detached import start_detached
from lab.errors import LabError
from lab.experiment import Experiment
from lab.files import writing_to
from lab.paths import runs_dir
from lab.sweeps.asking import Asked
from lab.sweeps.grid import Grid
from lab.sweeps.records import SweepRecord, ask_again, list_sweeps, read_sweep, sweeps_dir

#: Seconds to wait for another process that is about to start a sweep, which takes it a part of one.
_PATIENCE = 10.0


def start_sweep(
    experiment: str | Path | Experiment,
    over: Grid,
    *,
    arms: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] = 3,
    tune: Mapping[str, Any] | None = None,
    twin: bool = True,
    runs: str | Path | None = None,
) -> str:
    """Start a sweep in a process of its own, which goes on when this one ends.

    Args:
        experiment: As for `lab.sweep`, and so are the others.
        over: The grid.
        arms: Named ways to do it.
        seeds: How many seeds, or which.
        tune: What is tuned.
        twin: Whether clean twins are run.
        runs: The runs folder.

    Returns:
        The id of its record: `lab.sweeps.read_sweep` says how far it is. The same sweep has the same id.

    Raises:
        LabError: What is asked could not be, or a sweep is being run, or about to be.
    """
    asked = Asked.read(experiment, over, arms=arms, seeds=seeds, tune=tune, twin=twin)
    record = SweepRecord(runs_dir(runs), asked.described())
    with _alone(runs):
        record.plan()
        _start(record.id, runs)
    return record.id


def go_on_sweep(id: str, runs: str | Path | None = None) -> None:
    """Start a sweep again that was stopped, killed, or has failed cells; what is finished is read.

    Raises:
        LabError: There is none of this id, or a sweep is being run, or about to be.
    """
    read_sweep(id, runs)
    with _alone(runs):
        _start(id, runs)


def recorded_sweep(id: str, runs: str | Path | None = None) -> tuple[Experiment, dict[str, Any]]:
    """What a record asks for: the experiment, and the other arguments of `lab.sweep`, the grid as "over".

    Raises:
        LabError: There is none of this id, or what it asks for cannot be read by this version.
    """
    asked = dict(read_sweep(id, runs).asked)
    try:
        experiment = Experiment.from_dict(asked.pop("experiment"))
        wanted = {key: asked[key] for key in ("over", "seeds", "tune", "twin")}
        return experiment, {**wanted, "arms": asked.get("arms") or None}
    except KeyError as error:
        raise LabError(f"The sweep {id} does not say its {error}.") from None


@contextlib.contextmanager
def _alone(runs: str | Path | None) -> Iterator[None]:
    """Start a sweep only where there is none: two at once would take each other's cores, and estimates.

    Whoever looks and starts holds a lock, or two would both see that there is none.
    """
    folder = sweeps_dir(runs)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    guard = filelock.FileLock(folder / ".starting")
    try:
        guard.acquire(timeout=_PATIENCE)
    except filelock.Timeout:
        raise LabError(f"Another process is starting a sweep in {folder.parent}; ask again.") from None
    try:
        _check_idle(runs)
        yield
    finally:
        guard.release()


def _check_idle(runs: str | Path | None) -> None:
    for sweep in list_sweeps(runs):
        if sweep.state == "running":
            raise LabError(f"The sweep {sweep.id} is being run; wait for it, or stop it first.")
        # its process still imports; one that never comes is "killed" after a while
        if sweep.state == "waiting":
            raise LabError(f"The sweep {sweep.id} is about to begin; wait for it, or stop it once it has.")


def _start(id: str, runs: str | Path | None) -> None:
    folder = runs_dir(runs)
    ask_again(id, runs)
    start_detached(
        ["sweep", "--go-on", id, "--runs", str(folder)],
        folder=folder,
        log=sweeps_dir(folder) / id / "sweep.log",
        environment={},
    )
