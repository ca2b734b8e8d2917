"""Sweeps that outlive the process that starts them: a record, and a detached `lab sweep` that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.detached import start_detached
from lab.errors import LabError
from lab.experiment import Experiment
from lab.paths import runs_dir
from lab.sweeps.asking import Asked
from lab.sweeps.grid import Grid
from lab.sweeps.records import SweepRecord, ask_again, list_sweeps, read_sweep, sweeps_dir


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
        LabError: What is asked could not be, or a sweep is being run already.
    """
    asked = Asked.read(experiment, over, arms=arms, seeds=seeds, tune=tune, twin=twin)
    record = SweepRecord(runs_dir(runs), asked.described())
    _check_idle(runs)
    record.plan()
    _start(record.id, runs)
    return record.id


def go_on_sweep(id: str, runs: str | Path | None = None) -> None:
    """Start a sweep again that was stopped, killed, or has failed cells; what is finished is read.

    Raises:
        LabError: There is none of this id, or a sweep is being run already.
    """
    read_sweep(id, runs)
    _check_idle(runs)
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


def _check_idle(runs: str | Path | None) -> None:
    """Two sweeps at once would take each other's cores, and each other's estimate."""
    busy = [sweep.id for sweep in list_sweeps(runs) if sweep.state == "running"]
    if busy:
        raise LabError(f"The sweep {busy[0]} is being run; wait for it, or stop it first.")


def _start(id: str, runs: str | Path | None) -> None:
    folder = runs_dir(runs)
    ask_again(id, runs)
    start_detached(
        ["sweep", "--go-on", id, "--runs", str(folder)],
        folder=folder,
        log=sweeps_dir(folder) / id / "sweep.log",
        environment={},
    )
