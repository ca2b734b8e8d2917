"""From cells to jobs: each training once, what others need before them, one base after the other.

Pure data: nothing is loaded or prepared for it. Two experiments are taken for the same training where all
that changes weights is written the same; where they are not and their run turns out to be one, the second
job finds it finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.defend import after_training, settle
from lab.errors import LabError
from lab.experiment import Experiment, content_hash
from lab.presets import load_experiment
from lab.sweeps.grid import Cell
from lab.train.models import MODELS

#: What a job does: a cell; the clean twin of some; the run that edited ones start from; a base to be run.
JOB_KINDS = ("cell", "twin", "parent", "base")


@dataclass(frozen=True)
class SweepJob:
    """A piece of a sweep that one worker does at a stretch.

    Attributes:
        key: Its name within the plan, hex digits.
        kind: One of `JOB_KINDS`.
        experiment: As `Experiment.to_dict` gives it: of the cell, or of a cell whose twin or parent it is.
        twin: Whether the clean twin belongs to it.
        needs: Keys of the jobs that have to end before; whether they end well is not asked.
        affinity: Jobs that share it share their base, rows and seed: a worker does them together.
    """

    key: str
    kind: str
    experiment: dict[str, Any]
    twin: bool
    needs: tuple[str, ...]
    affinity: str


def plan_jobs(cells: Sequence[Cell], *, twin: bool) -> tuple[list[SweepJob], list[str]]:
    """Plan the jobs of some cells.

    Args:
        cells: The cells; what an experiment cannot have is left to its job, which fails then.
        twin: Whether the clean twins are trained.

    Returns:
        The jobs, each after those it needs and beside those of its base, and the job's key of each cell.
    """
    plan = _Plan(twin)
    keys = [plan.add_cell(cell.experiment) for cell in cells]
    return _grouped(plan.jobs.values()), keys


def training_key(experiment: Experiment) -> str:
    """A hash of everything of an experiment but how it is probed and called: equal ones are one training."""
    values = experiment.to_dict()
    return content_hash({k: v for k, v in values.items() if k not in ("probe", "name")})[:20]


class _Plan:
    """Jobs as they are added, by key."""

    def __init__(self, twin: bool) -> None:
        self.twin = twin
        self.jobs: dict[str, SweepJob] = {}
        #: The first job that trains these weights, by training key.
        self._trains: dict[str, str] = {}

    def add_cell(self, experiment: Experiment, kind: str = "cell") -> str:
        key = content_hash([kind, self.twin, experiment.to_dict()])[:20]
        if key in self.jobs:
            return key
        settled = _settled(experiment)
        needs = self._base_needs(settled)
        if after_training(settled):
            needs.append(self._add_parent(settled))
        if self.twin and _may_have_twin(settled):
            needs.append(self._add_twin(settled))
        weights = training_key(settled)
        needs += [k for k in (f"twin-{weights}", self._trains.get(weights, "")) if k in self.jobs]
        self._trains.setdefault(weights, key)
        return self._add(key, kind, experiment, needs, twin=self.twin)

    def _add_parent(self, settled: Experiment) -> str:
        weights = training_key(settled.untouched())
        if weights not in self._trains:
            needs = self._base_needs(settled)
            self._trains[weights] = self._add(f"parent-{weights}", "parent", settled, needs, twin=False)
        return self._trains[weights]

    def _add_twin(self, settled: Experiment) -> str:
        key = f"twin-{training_key(settled.twin())}"
        if key not in self.jobs:
            needs = self._base_needs(settled)
            if after_training(
                settled
            ):  # the twin of an edited run is edited too, from the twin of its parent
                needs.append(self._add_twin(settled.untouched()))
            self._add(key, "twin", settled, needs, twin=False)
        return key

    def _base_needs(self, settled: Experiment, above: tuple[str, ...] = ()) -> list[str]:
        from lab.bases import is_preset

        model = settled.base.model
        if not is_preset(model) or model in above:  # one that starts from itself is told by its job
            return []
        try:
            base = load_experiment(model).with_(seed=settled.seed)
        except LabError:
            return []
        return [self.add_cell(base, "base")] if model != base.base.model else []

    def _add(self, key: str, kind: str, experiment: Experiment, needs: Iterable[str], *, twin: bool) -> str:
        values = experiment.to_dict()
        own = {
            "base": values["base"],
            "data": values["data"],
            "task": values.get("task"),
            "seed": values["seed"],
        }
        self.jobs[key] = SweepJob(
            key, kind, values, twin, tuple(dict.fromkeys(needs)), content_hash(own)[:12]
        )
        return key


def _grouped(jobs: Iterable[SweepJob]) -> list[SweepJob]:
    """Jobs of one affinity together, groups by their first job, needs still before their users."""
    groups: dict[str, list[SweepJob]] = {}
    for job in jobs:
        groups.setdefault(job.affinity, []).append(job)
    by_key = {job.key: job for group in groups.values() for job in group}
    placed: dict[str, SweepJob] = {}

    def place(job: SweepJob) -> None:
        if job.key not in placed:
            for key in job.needs:
                place(by_key[key])
            placed[job.key] = job

    for group in groups.values():
        for job in group:
            place(job)
    return list(placed.values())


def _settled(experiment: Experiment) -> Experiment:
    """The experiment with its defenses' settings; itself where they do not fit, which its job will tell."""
    try:
        return settle(experiment)
    except LabError:
        return experiment


def _may_have_twin(experiment: Experiment) -> bool:
    """Whether there is poison, or a base that may bring some: a run, or an experiment yet to be run."""
    return experiment.attack != "none" or experiment.base.model not in MODELS
