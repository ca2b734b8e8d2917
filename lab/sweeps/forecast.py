"""What a sweep would do, before it does it: cells, what is finished, what is left, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.experiment import Experiment
from lab.sweeps.grid import Tuning
from lab.sweeps.jobs import Cell, SweepJob
from lab.sweeps.sweeping import job_board

if TYPE_CHECKING:
    import pandas as pd

#: What a cell may be said to be.
STATES = ("finished", "to do", "after tuning", "refused")


@dataclass(frozen=True)
class Forecast:
    """What is known of a sweep beforehand.

    Attributes:
        cells: One line per cell: the keys by which it is known, seed, state (one of `STATES`), run (""
            where it hangs on what is tuned), reason (of a refused one).
        left: How many runs are left: cells, and the twins, bases, parents and candidates that they need,
            each counted once.
        seconds: How long these take with this many workers, roughly.
        basis: What that stands on.
        workers: How many at once.
    """

    cells: pd.DataFrame
    left: int
    seconds: float
    basis: str
    workers: int

    def to_dict(self) -> dict[str, Any]:
        """The forecast as JSON can hold it."""
        facts = {"left": self.left, "seconds": round(self.seconds, 1), "basis": self.basis}
        return {**facts, "workers": self.workers, "cells": self.cells.to_dict("records")}


def forecast(
    cells: Sequence[Cell], tuning: Tuning, *, runs: Path, twin: bool = True, workers: int = 1
) -> Forecast:
    """Look what of a sweep is done and what is left; nothing is trained.

    Candidates that are finished are read, so that tuned cells are known as far as they can be.

    Args:
        cells: As `lab.sweeps.sweep_cells` gives them.
        tuning: What is tuned for them.
        runs: The runs folder.
        twin: Whether clean twins are run.
        workers: How many cells at once.
    """
    import pandas as pd

    board = job_board(cells, tuning, runs=runs, twin=twin, apart=True)
    found: dict[int, tuple[str, str, str]] = {}
    left: list[SweepJob] = []
    while (job := board.take()) is not None:
        state, run, reason = _look(job, runs)
        if state == "to do":
            left.append(job)
        # candidates that are not measured leave their cells unknown; all else may be thought of as done
        if job.kind != "candidate" or state == "finished":
            board.put(job, _read(run, runs) if job.kind == "candidate" else _nothing())
        if job.cell >= 0:
            found[job.cell] = (state, run, reason)
    lines = []
    for number, cell in enumerate(cells):
        state, run, reason = found.get(number, ("after tuning", "", ""))
        lines.append({**cell.shown, "seed": cell.seed, "state": state, "run": run, "reason": reason})
    unknown = [cells[i].experiment for i, line in enumerate(lines) if line["state"] == "after tuning"]
    seconds, basis = _seconds(left, unknown, runs, twin)
    return Forecast(pd.DataFrame(lines), len(left) + len(unknown), seconds / workers, basis, workers)


def _look(job: SweepJob, runs: Path) -> tuple[str, str, str]:
    """State, run and reason of a job; what needs a base that is not there yet has no id yet."""
    from lab.bases import is_preset
    from lab.pipeline import is_complete
    from lab.prepare import prepare

    experiment = Experiment.from_dict(job.experiment)
    if is_preset(experiment.base.model):
        return "to do", "", ""
    try:
        prepared = prepare(experiment, runs)
    except LabError as error:
        return "refused", "", str(error)
    done = is_complete(prepared, runs, twin=job.twin)
    return ("finished" if done else "to do"), prepared.run_id, ""


def _read(run: str, runs: Path) -> Any:
    from lab.record import load_run
    from lab.sweeps.jobs import Outcome
    from lab.sweeps.table import cell_line

    return Outcome(cell_line(load_run(run, runs)))


def _nothing() -> Any:
    from lab.sweeps.jobs import Outcome

    return Outcome({})


def _seconds(
    left: Sequence[SweepJob], unknown: Sequence[Experiment], runs: Path, twin: bool
) -> tuple[float, str]:
    """Seconds of all that is left on one worker, and what they stand on."""
    from lab.estimates import estimate_seconds

    total, basis = 0.0, "nothing is left"
    for job in left:
        experiment = Experiment.from_dict(job.experiment)
        estimate = estimate_seconds(experiment, runs)
        # an estimate of a poisoned run is of its twin too, which is a job of its own here
        total += estimate.seconds / (2 if experiment.attack != "none" else 1)
        basis = estimate.basis
    for experiment in unknown:
        estimate = estimate_seconds(experiment, runs)
        total += estimate.seconds / (1 if twin else 2)
        basis = estimate.basis
    return total, basis
