"""What a sweep has to do, as jobs that wait for each other; pure data, no model and no disk.

A cell needs its base, its parent and its clean twin; a tuned cell needs its candidates first. Equal work is
one job, however many cells need it, so that two workers never wait on one lock for the same twin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.defend import after_training, settle
from lab.errors import LabError
from lab.experiment import Experiment
from lab.pipeline import parent_experiment
from lab.sweeps.grid import Tuning, grid_points
from lab.sweeps.table import value_at

#: What a job may be for.
KINDS = ("candidate", "base", "parent", "twin", "cell")


@dataclass(frozen=True)
class Cell:
    """One line of a sweep's table.

    Attributes:
        experiment: What is asked, without what is tuned.
        shown: The keys by which its line is known: arm and grid point.
        seed: Its seed.
    """

    experiment: Experiment
    shown: dict[str, Any]
    seed: int

    @property
    def group(self) -> str:
        """Cells of one group differ in their seed alone, and are tuned together."""
        return repr(self.shown)


@dataclass(frozen=True)
class SweepJob:
    """One experiment to be run by whoever is free.

    Attributes:
        kind: One of `KINDS`.
        experiment: What is run, as `Experiment.to_dict` gives it.
        twin: Whether its clean twin is run too.
        needs: Keys of the jobs that come before it.
        cell: The number of the cell it is; -1 for what cells need.
    """

    kind: str
    experiment: dict[str, Any]
    twin: bool
    needs: tuple[str, ...] = ()
    cell: int = -1

    @property
    def key(self) -> str:
        """Jobs of equal keys are the same work; a cell is its own, since each has a line."""
        if self.cell >= 0:
            return f"cell {self.cell}"
        return json.dumps([self.experiment, self.twin], sort_keys=True)

    @property
    def base(self) -> str:
        """What it starts from: a worker that has it loaded takes it first."""
        return str(self.experiment["base"]["model"])


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        line: What its run says, as `lab.sweeps.cell_line`; else a state such as "failed", and a reason.
        seconds: How long it took.
    """

    line: dict[str, Any]
    seconds: float = 0.0

    @property
    def reason(self) -> str:
        """Why it failed; "" where it did not."""
        return str(self.line.get("reason", ""))


def failed(reason: str) -> Outcome:
    """The outcome of a job that came to nothing."""
    return Outcome({"run": "", "state": "failed", "reason": reason})


@dataclass
class _Group:
    """The cells that are tuned together, and their candidates."""

    cells: list[int]
    points: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)


class JobBoard:
    """Which job is next, what is done, and what that makes possible.

    Args:
        cells: The sweep's cells, in the order of the table.
        tuning: What is chosen for each group of cells.
        first_seed: The seed that candidates are measured with.
        twin: Whether clean twins are run.
        apart: Whether what several cells need is a job of its own; for one worker it need not be.
        is_experiment: Says of a `base.model` whether it is a preset or file that has to be run first.
        is_run: Says of a `base.model` whether it is a finished run, which brings its own twin.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        tuning: Tuning,
        *,
        first_seed: int,
        twin: bool,
        apart: bool,
        is_experiment: Callable[[str], bool] = lambda _: False,
        is_run: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.cells = list(cells)
        self.tuned: dict[int, dict[str, Any]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._tuning, self._first_seed = tuning, first_seed
        self._twin, self._apart = twin, apart
        self._is_experiment, self._is_run = is_experiment, is_run
        self._waiting: dict[str, SweepJob] = {}
        self._taken: dict[str, SweepJob] = {}
        self._groups: dict[str, _Group] = {}
        for number, cell in enumerate(self.cells):
            self._groups.setdefault(cell.group, _Group([])).cells.append(number)
        for number, cell in enumerate(self.cells):
            if not tuning.over:
                self._add_cell(number, {})
            elif number == self._groups[cell.group].cells[0]:
                self._add_candidates(self._groups[cell.group])

    def take(self, base: str = "") -> SweepJob | None:
        """The next job that nothing stands before; None where all wait for others, or nothing is left.

        Args:
            base: The base that the worker has loaded; jobs that start from it come first.
        """
        ready = [job for job in self._waiting.values() if all(need in self.outcomes for need in job.needs)]
        if not ready:
            return None
        chosen = next((job for job in ready if job.base == base), ready[0])
        del self._waiting[chosen.key]
        self._taken[chosen.key] = chosen
        return chosen

    def put(self, job: SweepJob, outcome: Outcome) -> None:
        """Take in what became of a job."""
        self._taken.pop(job.key, None)
        self._waiting.pop(job.key, None)
        self.outcomes[job.key] = outcome
        for group in self._groups.values():
            if job.key in group.candidates and all(key in self.outcomes for key in group.candidates):
                self._choose(group)

    def put_back(self, job: SweepJob) -> None:
        """A job that its worker lost waits again, before the others."""
        self._taken.pop(job.key, None)
        self._waiting = {job.key: job, **self._waiting}

    @property
    def is_done(self) -> bool:
        """Whether nothing waits and nothing is worked on."""
        return not self._waiting and not self._taken

    @property
    def finished_cells(self) -> int:
        """How many cells have their line."""
        return sum(f"cell {number}" in self.outcomes for number in range(len(self.cells)))

    def waiting(self) -> Iterator[SweepJob]:
        """The jobs that nobody has taken; more may come once candidates are measured."""
        yield from self._waiting.values()

    def cell_outcome(self, number: int) -> Outcome:
        """The outcome of a cell."""
        return self.outcomes[f"cell {number}"]

    def asked(self, number: int) -> Experiment:
        """A cell's experiment with what was tuned for it."""
        return self.cells[number].experiment.with_(**self.tuned.get(number, {}))

    def _add(self, job: SweepJob) -> str:
        if job.key not in self.outcomes and job.key not in self._taken:
            self._waiting.setdefault(job.key, job)
        return job.key

    def _add_candidates(self, group: _Group) -> None:
        first = self.cells[group.cells[0]].experiment.with_(seed=self._first_seed)
        try:
            first = first.twin() if self._tuning.of_twin else first
            look = {"probe.split": "validation", "probe.scope": "headline"}
            group.points = grid_points(self._tuning.over)
            asked = [first.with_(**look).with_(**point) for point in group.points]
            twin = self._tuning.measure == "excess_asr"
            group.candidates = [
                self._add(SweepJob("candidate", e.to_dict(), twin, self._needs(e, twin))) for e in asked
            ]
        except LabError as error:
            self._fail(group, str(error))
        if group.candidates and all(key in self.outcomes for key in group.candidates):
            self._choose(group)

    def _choose(self, group: _Group) -> None:
        """The best candidate of a group, whose cells can be run now."""
        measure = self._tuning.measure
        found = [self.outcomes[key].line.get(measure) for key in group.candidates]
        values = [float("nan") if value is None else float(value) for value in found]
        best = max(range(len(values)), key=lambda i: (values[i] == values[i], values[i]))
        if values[best] != values[best]:
            reasons = "; ".join(sorted({r for key in group.candidates if (r := self.outcomes[key].reason)}))
            self._fail(group, f"Nothing to tune on: {reasons or f'no run has the measure {measure!r}'}.")
            return
        for number in group.cells:
            values_chosen = self.cells[number].experiment.with_(**group.points[best]).to_dict()
            self._add_cell(number, {key: value_at(values_chosen, key) for key in self._tuning.over})

    def _fail(self, group: _Group, reason: str) -> None:
        for number in group.cells:
            self.outcomes[f"cell {number}"] = failed(reason)

    def _add_cell(self, number: int, tuned: dict[str, Any]) -> None:
        self.tuned[number] = tuned
        try:
            asked = self.asked(number)
            needs = self._needs(asked, self._twin)
        except LabError as error:
            self.outcomes[f"cell {number}"] = failed(str(error))
            return
        self._add(SweepJob("cell", asked.to_dict(), self._twin, needs, number))

    def _needs(self, asked: Experiment, twin: bool) -> tuple[str, ...]:
        """Keys of the jobs that an experiment needs before it, which are added; none where none is apart."""
        if not self._apart:
            return ()
        return tuple(self._add(job) for job in self._needed(settle(asked), twin))

    def _needed(self, asked: Experiment, twin: bool) -> Iterator[SweepJob]:
        base = asked.base.model
        if self._is_experiment(base):
            yield self._base_job(asked, twin)
            return  # its parent and twin start from runs that are not there yet
        if after_training(asked):
            parent = parent_experiment(asked)
            yield SweepJob("parent", parent.to_dict(), False)
        if twin and asked.attack != "none" and not self._is_run(base):
            clean = settle(asked.twin())
            parent_key = (self._add(SweepJob("parent", parent_experiment(clean).to_dict(), False)),)
            yield SweepJob("twin", clean.to_dict(), False, parent_key if after_training(clean) else ())

    def _base_job(self, asked: Experiment, twin: bool) -> SweepJob:
        from lab.presets import load_experiment

        base = load_experiment(asked.base.model).with_(seed=asked.seed)
        return SweepJob("base", base.to_dict(), twin, self._needs(base, twin))


def lines_of(board: JobBoard) -> list[tuple[Cell, Mapping[str, Any], Outcome]]:
    """Every cell with what was tuned for it and what became of it, in the order of the table."""
    return [
        (cell, board.tuned.get(number, {}), board.cell_outcome(number))
        for number, cell in enumerate(board.cells)
    ]
