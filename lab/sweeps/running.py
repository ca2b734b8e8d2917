"""Driving a sweep: tunings first, then the cells, by an executor, with a record of how far it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.defend import settle
from lab.errors import LabError, sentence_of, unknown_name
from lab.experiment import Experiment
from lab.matching import with_drifted, with_matched
from lab.paths import runs_dir
from lab.presets import load_experiment
from lab.showing import showing
from lab.sweeps.asking import Asked, Lost, best_values
from lab.sweeps.crew import Crew, check_executor, choose_crew
from lab.sweeps.doing import Outcome, Place
from lab.sweeps.executors import Pool
from lab.sweeps.following import Following
from lab.sweeps.grid import (
    MOST_CELLS,
    Cell,
    Grid,
    looking_at_validation,
    seed_list,
)
from lab.sweeps.plan import SweepJob, plan_jobs
from lab.sweeps.records import SweepRecord
from lab.sweeps.schedule import Schedule
from lab.sweeps.table import Line, cell_line, trained_with, with_asked
from lab.tables import MEASURE_KINDS

if TYPE_CHECKING:
    import pandas as pd

Listener = Callable[[dict[str, Any]], None]


def sweep(
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
    on_event: Listener | None = None,
) -> pd.DataFrame:
    """Run an experiment at every point of a grid, for several seeds.

    Args:
        experiment: What to start from: a preset, a file, an `Experiment`.
        over: Dotted keys and their values: `{"adapter.rank": [1, 4, 16]}`; {} for the seeds alone.
        arms: Named ways to do it, each with its dotted keys, `{"lora": {}, "rora": {"defense": ["rora"]}}`;
            every point is run with each of them. An arm has no key of its own that is swept or tuned.
        seeds: How many seeds (0, 1, …), or which.
        tune: `{"over": grid, "measure": kind}` (clean accuracy by default): for every point and arm, first
            choose these values on validation rows with the first seed alone, then run all seeds with them.
            With `"of": "twin"` they are chosen on the clean twin, so that no attack has a say in them.
        runs: The runs folder.
        twin: Also run the clean twins.
        device: "auto", "cpu", "cuda" or "mps".
        executor: One of `lab.sweeps.executors.EXECUTORS`: "inline", "local", "ray"; "auto" for "inline"
            with one worker and "local" with more.
        workers: How many jobs are done at once, or "auto" for what is fastest here; none is started where a
            few finished runs are only read, unless `executor` names one. A Ray cluster that runs already has
            its own number.
        address: Of a Ray cluster: "auto" or HOST:PORT; "" starts Ray on this machine alone.
        most_cells: More cells than this are refused.
        on_event: Called with every event of every run, with `{"kind": "cell", …}` before each cell, and with
            `{"kind": "sweep", …}` (done, total, per_minute, left in seconds, best, …) after each job; with
            `{"kind": "tuning", …}` (point, text) for each tuning that lost candidates.

    Returns:
        One line per cell: arm (where there are arms), the grid's keys, seed, what was tuned, run, state,
        reason, split, trigger, `matched` and `drifted` (see `lab.matching`, where twins are run), `alpha/r`
        (NaN for full fine-tuning), `training.learning_rate`, `training.steps`, then each headline measure as
        `kind`, `kind.n`, `kind.low`, `kind.high` (the twin's with the prefix `twin.`).

        A key's column holds what was trained with. Where a defense such as "full" or "low_rank" sets a key
        itself, that is not what the grid asked for (nor is a rank that full fine-tuning does not have, NaN):
        then what was asked, which tells the cells apart, stands for every cell under `asked.` and the key.

        Where candidates of some tuning failed, `tuning` says so in a sentence for the cells that were tuned
        without them ("" for others), and `tuning.failed` how many failed otherwise than by diverging.

    Raises:
        LabError: On a key or value that no cell could have, a key that would overwrite another, or an
            executor that is not there; nothing has been run then.
        StoppedError: Somebody asked for a stop (`lab.sweeps.stop_sweep`); asked again, the sweep goes on.
    """
    import pandas as pd

    check_executor(executor, workers, address)
    asked = Asked.read(experiment, over, arms=arms, seeds=seeds, tune=tune, twin=twin, most_cells=most_cells)
    folder = runs_dir(runs)
    record = SweepRecord(folder, asked.described())
    place = Place(folder, device)
    with showing(on_event) as listen, record.held():
        crew = choose_crew(asked, executor, workers, address, place)
        pool = crew.pool(place, record.folder, record.should_stop)
        # workers end first: who reads that it was stopped may ask for it again at once
        with _Drive(asked, place, pool, record, listen, crew) as drive, pool:
            lines = drive.lines()
    table = pd.DataFrame(with_asked(lines))
    return with_drifted(with_matched(table, [*over, *(["arm"] if arms else [])]))


def tune(
    experiment: str | Path | Experiment,
    over: Grid,
    measure: str = "clean_accuracy",
    *,
    seeds: int | Sequence[int] = 1,
    runs: str | Path | None = None,
    device: str = "auto",
    executor: str = "auto",
    workers: int | str = 1,
    on_event: Listener | None = None,
) -> tuple[Experiment, pd.DataFrame]:
    """Choose values on validation rows; test rows are not looked at.

    What is chosen is one value of each key for all of the seeds. `lab.sweep` tunes with its first seed.

    Args:
        experiment: What to start from.
        over: Dotted keys and the values to choose from.
        measure: The headline measure to maximise, one of `lab.tables.MEASURE_KINDS`.
        seeds: How many seeds, or which; the mean over them decides.
        runs: The runs folder.
        device: "auto", "cpu", "cuda" or "mps".
        executor: As for `sweep`.
        workers: As for `sweep`.
        on_event: As for `sweep`.

    Returns:
        The experiment with the best values, and the table of what was tried.

    Raises:
        LabError: On an unknown measure, or where every cell failed.
    """
    if measure not in MEASURE_KINDS:
        raise unknown_name("measure", measure, MEASURE_KINDS)
    start = load_experiment(experiment)
    table = sweep(
        looking_at_validation(start), over, seeds=seeds, runs=runs, twin=measure == "excess_asr",
        device=device, executor=executor, workers=workers, on_event=on_event,
    )  # fmt: skip
    # by place and not by value: a cell's column may hold something else than what was asked for
    each = len(seed_list(seeds))
    values = table[measure].tolist() if measure in table else [float("nan")] * len(table)
    means = [
        sum(known) / len(known) if (known := [v for v in values[i : i + each] if v == v]) else float("nan")
        for i in range(0, len(values), each)
    ]
    return start.with_(**best_values(over, means, measure, table["reason"])), table


class _Drive:
    """One sweep on its way: stages of jobs, counted and recorded.

    Used as a context manager that writes how it ended; one whose workers could not begin leaves no word.
    """

    def __init__(
        self,
        asked: Asked,
        place: Place,
        pool: Pool,
        record: SweepRecord,
        listen: Listener,
        crew: Crew,
    ) -> None:
        self.asked, self.place, self.pool = asked, place, pool
        self.listen = listen
        self.is_quiet = crew.executor != "inline"
        about = {"executor": crew.executor, "workers": crew.team.count}
        self.following = Following(record, listen, asked.tuning.measure, about)
        self.lines_made: list[Line] = []
        self.lost: dict[str, Lost] = {}
        self.has_begun = False

    def __enter__(self) -> _Drive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if not self.has_begun:
            return
        if error is None:
            has_failed = any(line.found.get("state") != "finished" for line in self.lines_made)
            has_failed |= any(lost.failed for lost in self.lost.values())
            self.following.close("failed" if has_failed else "finished")
        elif _is_stop(error):
            self.following.close("stopped")
        else:
            self.following.close("failed", sentence_of(error))

    def lines(self) -> list[Line]:
        """Do everything; the table's lines, in the order of the cells."""
        self.has_begun = True
        asked = self.asked
        chosen = self._tuned()
        cells, lines, due = [], [], []
        for cell in asked.cells:
            line = Line({**cell.shown, "seed": cell.seed})
            lines.append(line)
            values = chosen.get(cell.point, {})
            if isinstance(values, LabError):
                line.found.update(_failed(str(values)))
                continue
            line.asked.update(values)
            cells.append(asked.with_chosen(cell, values))
            due.append(line)
        stage = self._stage("cells", cells, twin=asked.twin)
        for cell, line, (found, _) in zip(cells, due, stage, strict=True):
            # what was trained with comes first; the run itself has the last word
            with contextlib.suppress(LabError):
                keys = {k: v for k, v in line.asked.items() if "." in k}
                line.found.update(trained_with(cell.experiment, keys))
            line.found.update(found)
        if self.lost:
            for cell, line in zip(asked.cells, lines, strict=True):
                line.found.update(_lost_columns(self.lost.get(cell.point)))
        self.listen(
            {"kind": "cell", "done": len(lines), "total": len(lines), "point": {}, "seed": -1}
        )  # fmt: skip
        self.lines_made = lines
        return lines

    def _tuned(self) -> dict[str, dict[str, Any] | LabError]:
        """What was chosen for every point and arm, or why nothing could be."""
        tried = self.asked.tuning_cells()
        if not tried:
            return {}
        self.following.waiting(self.asked.cells)
        flat = [cell for cells in tried.values() for cell in cells]
        found = iter(self._stage("tuning", flat, twin=self.asked.tuning_twin))
        chosen: dict[str, dict[str, Any] | LabError] = {}
        for point, cells in tried.items():
            lines, diverged = zip(*(next(found) for _ in cells), strict=True)
            try:
                chosen[point] = self.asked.choose(lines)
            except LabError as error:  # every cell says so
                chosen[point] = error
                continue
            if lost := Lost.of(lines, diverged):
                self.lost[point] = lost
        firsts = self.asked.points()
        self.following.tuned([(firsts[point].shown, lost) for point, lost in self.lost.items()])
        return chosen

    def _stage(self, name: str, cells: Sequence[Cell], *, twin: bool) -> list[tuple[dict[str, Any], bool]]:
        """Do some cells and all that they need; what the table says of each, and whether it diverged."""
        jobs, keys = plan_jobs(cells, twin=twin)
        self.following.begin(name, cells, jobs, keys)
        by_key = {key: cell for cell, key in zip(reversed(cells), reversed(keys), strict=True)}
        found: dict[str, tuple[dict[str, Any], bool]] = {}
        begun = 0

        def begin(job: SweepJob) -> None:
            nonlocal begun
            self.following.begun(job)
            if job.key in by_key and not self.is_quiet:
                cell = by_key[job.key]
                told = {"point": cell.shown, "seed": cell.seed}
                self.listen({"kind": "cell", "done": begun, "total": len(by_key), **told})
                begun += 1

        def end(outcome: Outcome) -> None:
            line: dict[str, Any] = {}
            if outcome.key in by_key:
                line = self._line(by_key[outcome.key], outcome)
                found[outcome.key] = line, outcome.diverged
            self.following.ended(outcome, line)

        self.pool.run(Schedule(jobs), begin, end, lambda _, event: self.listen(event))
        return [found[key] for key in keys]

    def _line(self, cell: Cell, outcome: Outcome) -> dict[str, Any]:
        if outcome.reason:
            return _failed(outcome.reason)
        from lab.record import Run

        try:
            return cell_line(Run(self.place.runs / outcome.run, probe=settle(cell.experiment).probe))
        except (LabError, OSError, KeyError) as error:
            return _failed(f"{type(error).__name__}: {error}")


def _lost_columns(lost: Lost | None) -> dict[str, Any]:
    """What the table says of the tuning of a cell."""
    return {"tuning": str(lost) if lost else "", "tuning.failed": lost.failed if lost else 0}


def _failed(reason: str) -> dict[str, Any]:
    return {"run": "", "state": "failed", "reason": reason}


def _is_stop(error: BaseException) -> bool:
    """Whether somebody wanted the end, so that nothing is wrong."""
    from lab.training_stage import StoppedError

    return isinstance(error, (StoppedError, KeyboardInterrupt))
