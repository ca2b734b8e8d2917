"""What a sweep would do, before it does it: cells, what is there already, what would be trained, how long."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.defend import settle
from lab.errors import LabError, sentence_of
from lab.estimates import Estimate, estimate_seconds
from lab.experiment import Experiment
from lab.files import read_json
from lab.paths import runs_dir
from lab.sweeps.asking import Asked
from lab.sweeps.crew import check_executor, choose_crew
from lab.sweeps.doing import Place, job_standing
from lab.sweeps.grid import MOST_CELLS, Cell, Grid
from lab.sweeps.plan import SweepJob, plan_jobs, training_key
from lab.sweeps.table import cell_line

#: Former runs here, and the matrix rate here, say nothing of other machines.
_ELSEWHERE = "how long that takes is the cluster's to say"


@dataclass(frozen=True)
class SweepPreview:
    """What a sweep would do.

    Attributes:
        cells: One of each: point, seed, run (its id; "" where a base or a tuning has to be run first), state
            ("finished", another of `lab.store.STATES`, "new", "to be measured", "after tuning"), reason.
        finished: How many cells are finished.
        train: What would be trained or measured, each counted once: runs, twins, parents, bases, tunings.
        seconds: How long that takes with these workers: middle, low and high; {} on a Ray cluster, whose pace
            nobody here knows.
        basis: What the estimate stands on, or why there is none.
        executor: Who would do it.
        workers: How many workers there would be; 0 where a Ray cluster has its own.
        why: What bounds their number.
    """

    cells: list[dict[str, Any]]
    finished: int
    train: dict[str, int]
    seconds: dict[str, float]
    basis: str
    executor: str
    workers: int
    why: str


def preview_sweep(
    experiment: str | Path | Experiment,
    over: Grid,
    *,
    arms: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] = 3,
    tune: Mapping[str, Any] | None = None,
    runs: str | Path | None = None,
    twin: bool = True,
    device: str = "auto",
    executor: str = "auto",
    workers: int | str = 1,
    address: str = "",
    most_cells: int = MOST_CELLS,
) -> SweepPreview:
    """Find out what `lab.sweep` would do with the same arguments; nothing is trained or written.

    Whether a Ray cluster answers at its address is not asked.

    Raises:
        LabError: As `lab.sweep`.
    """
    check_executor(executor, workers, address)
    asked = Asked.read(experiment, over, arms=arms, seeds=seeds, tune=tune, twin=twin, most_cells=most_cells)
    look = _Look(runs_dir(runs))
    place = Place(look.runs, device)
    crew = choose_crew(asked, executor, workers, address, place)
    crew.pool(place, look.runs)  # never entered: it tells what is not installed
    tuned = _look_at_tunings(asked, look)
    lines = _look_at_cells(asked, tuned, look)
    return SweepPreview(
        cells=lines,
        finished=sum(line["state"] == "finished" for line in lines),
        train=look.counts,
        seconds={} if crew.is_elsewhere else look.seconds(crew.team.count),
        basis=_ELSEWHERE if crew.is_elsewhere else look.basis or "nothing is left to do",
        executor=crew.executor,
        workers=crew.team.count,
        why=crew.team.why,
    )


class _Look:
    """Looks jobs up in a runs folder, and adds up what is missing."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.counts = {"runs": 0, "twins": 0, "parents": 0, "bases": 0, "tunings": 0}
        self.basis = ""
        self._low = self._middle = self._high = 0.0
        self._estimates: dict[str, Estimate | None] = {}
        self._known: dict[str, tuple[str, str, str]] = {}
        self._counted: set[str] = set()

    def cells(self, cells: Sequence[Cell], *, twin: bool, kind: str = "runs") -> list[tuple[str, str, str]]:
        """Run, state and reason of each cell; what is missing of them and their needs is counted."""
        jobs, keys = plan_jobs(cells, twin=twin)
        by_key = {job.key: job for job in jobs}
        wanted: set[str] = set()
        for key in dict.fromkeys(keys):
            if key not in self._known:
                self._known[key] = self._state(by_key[key])
            _, state, reason = self._known[key]
            # a run that failed is tried again; what no run can be made of is not, nor a candidate that failed
            if state != "finished" and not reason and not (state == "failed" and kind == "tunings"):
                self._want(key, by_key, wanted)
        for job in jobs:
            if job.key in wanted and job.key not in self._counted:
                self._counted.add(job.key)
                self._count(job, kind)
        return [self._known[key] for key in keys]

    def _want(self, key: str, jobs: Mapping[str, SweepJob], wanted: set[str]) -> None:
        if key in wanted:
            return
        job = jobs[key]
        if job.kind != "cell" or key not in self._known:
            self._known.setdefault(key, self._state(job))
        if self._known[key][1] == "finished":
            return
        wanted.add(key)
        for need in job.needs:
            self._want(need, jobs, wanted)

    def _state(self, job: SweepJob) -> tuple[str, str, str]:
        try:
            run, is_complete, state = job_standing(job, self.runs)
        except Exception as error:
            return "", "failed", sentence_of(error)
        if state == "finished" and not is_complete:
            state = "to be measured"  # it was trained, and looked at in another way or without its twin
        return run, state or "new", ""

    def _count(self, job: SweepJob, kind: str) -> None:
        found = self._estimate(Experiment.from_dict(job.experiment))
        if job.kind == "twin" and found is not None and found.trainings == 1:
            return  # the plan did not know that its base is clean
        name = {"cell": kind, "twin": "twins", "parent": "parents", "base": "bases"}[job.kind]
        self.counts[name] = self.counts.get(name, 0) + 1
        if found is None:
            return
        # the estimate is for a run with its twin; here each training is a job of its own
        self._low += found.low / found.trainings
        self._middle += found.seconds / found.trainings
        self._high += found.high / found.trainings
        self.basis = self.basis or found.basis

    def _estimate(self, experiment: Experiment) -> Estimate | None:
        """How long a run takes without its base, which is a job of its own; None where nobody can say."""
        key = training_key(experiment.with_(seed=0))
        if key not in self._estimates:
            self._estimates[key] = None
            with contextlib.suppress(LabError):  # its job will say what is wrong
                self._estimates[key] = estimate_seconds(experiment, self.runs, with_base=False)
        return self._estimates[key]

    def seconds(self, workers: int) -> dict[str, float]:
        """Seconds with so many workers: middle, low and high."""
        jobs = max(1, sum(self.counts.values()))
        share = min(workers, jobs)
        found = {"middle": self._middle, "low": self._low, "high": self._high}
        return {name: round(value / share, 1) for name, value in found.items()}


def _look_at_tunings(asked: Asked, look: _Look) -> dict[str, dict[str, Any] | LabError]:
    """What was chosen for each point whose tuning is done, or why nothing could be; others are counted."""
    chosen: dict[str, dict[str, Any] | LabError] = {}
    for point, cells in asked.tuning_cells().items():
        found = look.cells(cells, twin=asked.tuning_twin, kind="tunings")
        lines = [
            _tried(look.runs / run, cell, state) for cell, (run, state, _) in zip(cells, found, strict=True)
        ]
        known = [line for line in lines if line]
        if len(known) < len(lines):
            continue
        try:
            chosen[point] = asked.choose(known)
        except LabError as error:
            chosen[point] = error
    return chosen


def _tried(run: Path, cell: Cell, state: str) -> dict[str, Any]:
    """The line of a candidate that was tried, also where its loss was not finite; {} for any other."""
    if state == "finished":
        from lab.record import Run

        return cell_line(Run(run, probe=settle(cell.experiment).probe))
    failure = (read_json(run / "failure.json") if state == "failed" else None) or {}
    return {"state": state, "reason": str(failure["reason"])} if failure.get("diverged") else {}


def _look_at_cells(
    asked: Asked, tuned: Mapping[str, dict[str, Any] | LabError], look: _Look
) -> list[dict[str, Any]]:
    """What is known of each cell, with what was tuned where that is known too."""
    due = [cell for cell in asked.cells if not isinstance(tuned.get(cell.point), LabError)]
    chosen = {point: values for point, values in tuned.items() if not isinstance(values, LabError)}
    known = iter(look.cells([asked.with_chosen(c, chosen.get(c.point, {})) for c in due], twin=asked.twin))
    lines = []
    for cell in asked.cells:
        values = tuned.get(cell.point, {})
        if isinstance(values, LabError):
            run, state, reason, values = "", "failed", str(values), {}
        else:
            run, state, reason = next(known)
            if asked.tuning.over and cell.point not in tuned:
                run, state, reason = "", "after tuning", ""
        line = {"seed": cell.seed, "run": run, "state": state, "reason": reason}
        lines.append({**cell.shown, **line, **values})
    return lines
