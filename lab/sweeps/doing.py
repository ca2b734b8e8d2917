"""Doing one job of a sweep in this process, and what is told of it: the same for every executor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import DivergedError, sentence_of
from lab.sweeps.plan import SweepJob

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        key: The job's.
        run: The id of its run; "" where it failed, or there was nothing to run.
        reason: Why it failed, in one sentence; "" where it did not.
        seconds: How long it took.
        worked: Whether anything was trained or measured for it; a finished run is only read.
        diverged: Whether it failed because the loss stopped being finite, as it will again.
    """

    key: str
    run: str = ""
    reason: str = ""
    seconds: float = 0.0
    worked: bool = False
    diverged: bool = False


@dataclass(frozen=True)
class Place:
    """Where jobs are done.

    Attributes:
        runs: The runs folder.
        device: "auto", "cpu", "cuda" or "mps".
    """

    runs: Path
    device: str


def do_job(job: SweepJob, place: Place, listen: Listener) -> Outcome:
    """Do a job; a failure is an outcome, and only an interruption gets through.

    Args:
        job: What to do.
        place: Where.
        listen: Called with every event of every run.
    """
    from lab.experiment import Experiment
    from lab.pipeline import run, run_part

    begun: list[str] = []

    def heed(event: dict[str, Any]) -> None:
        if event.get("stage") == "begin":
            begun.append(str(event["run"]))
        listen(event)

    start = time.perf_counter()
    where: dict[str, Any] = {"runs": place.runs, "device": place.device, "on_event": heed}
    found = reason = ""
    diverged = False
    try:
        experiment = Experiment.from_dict(job.experiment)
        if job.kind in ("twin", "parent"):
            found = run_part(experiment, job.kind, **where)
        else:
            found = run(experiment, twin=job.twin, **where).id
    except Exception as error:
        diverged = isinstance(error, DivergedError)
        reason = sentence_of(error)
    seconds = round(time.perf_counter() - start, 3)
    return Outcome(job.key, found, reason, seconds, bool(begun), diverged)


def job_standing(job: SweepJob, runs: Path) -> tuple[str, bool, str]:
    """Which run a job makes or needs, whether nothing is left to do, and the state of the run's folder.

    Raises:
        LabError: It could not be prepared.
    """
    from lab.defend import settle
    from lab.experiment import Experiment
    from lab.pipeline import look_up, look_up_twin

    experiment = Experiment.from_dict(job.experiment)
    if job.kind == "twin":
        run, state = look_up_twin(experiment, runs=runs)
        return run, state == "finished", state
    if job.kind == "parent":
        experiment = settle(experiment).untouched()
    run, is_complete, state = look_up(experiment, runs=runs, twin=job.twin)
    return run, is_complete or (job.kind == "parent" and state == "finished"), state
