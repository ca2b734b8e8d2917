"""`lab.sweep` and `lab.tune`: a grid × seeds as a table of ordinary runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, unknown_name
from lab.experiment import Experiment
from lab.matching import with_matched
from lab.paths import runs_dir
from lab.presets import load_experiment
from lab.registry import lookup
from lab.sweeps.grid import (
    Grid,
    Tuning,
    check_keys,
    check_size,
    grid_points,
    grid_size,
    seed_list,
    tuning_of,
)
from lab.sweeps.jobs import Cell, JobBoard, Outcome, SweepJob
from lab.sweeps.table import Line, trained_with, with_asked
from lab.tables import MEASURE_KINDS

if TYPE_CHECKING:
    import pandas as pd

Listener = Callable[[dict[str, Any]], None]

#: The measure that the best cell so far is told by: the first that a cell has.
_BEST = ("excess_asr", "attack_success_rate", "reliance", "clean_accuracy")


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
    executor: str = "",
    workers: int = 0,
    address: str = "",
    large: bool = False,
    on_event: Listener | None = None,
) -> pd.DataFrame:
    """Run an experiment at every point of a grid, for several seeds.

    Cells are ordinary runs: what is finished is read, a clean twin that several cells share is trained once,
    and a sweep that was killed or interrupted goes on where it was when it is asked again.

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
        executor: Who does it, one of `lab.sweeps.EXECUTORS`: "inline", "local" or "ray"; "" for inline with
            one worker and local with several.
        workers: How many cells at once; 0 for as many as `lab.sweeps.default_workers` says ("inline": 1).
        address: The Ray cluster to use: "auto", or host:port; "" starts one on this machine.
        large: Whether a grid of more than 10,000 cells is meant.
        on_event: Called with every event of every run, with `{"kind": "cell", …}` as each cell begins, and
            with `{"kind": "cell done", …}` as it ends.

    Returns:
        One line per cell: arm (where there are arms), the grid's keys, seed, what was tuned, run, state,
        reason, split, trigger, `matched` (see `lab.matching`, where twins are run), `alpha/r` (NaN for full
        fine-tuning), `training.learning_rate`, `training.steps`, then each headline measure as `kind`,
        `kind.n`, `kind.low`, `kind.high` (the twin's with the prefix `twin.`).

        A key's column holds what was trained with. Where a defense such as "full" or "low_rank" sets a key
        itself, that is not what the grid asked for (nor is a rank that full fine-tuning does not have, NaN):
        then what was asked, which tells the cells apart, stands for every cell under `asked.` and the key.

    Raises:
        LabError: On a key or value that no cell could have, or a key that would overwrite another; nothing
            has been run then.
    """
    import pandas as pd

    from lab.sweeps.crews import crew_size
    from lab.sweeps.executors import EXECUTORS, Place

    cells, tuning = sweep_cells(experiment, over, arms=arms, seeds=seeds, tune=tune, large=large)
    count = crew_size(executor, workers, cells, device, runs_dir(runs))
    how = lookup(EXECUTORS, executor or ("local" if count > 1 else "inline"), "executor")
    place = Place(runs_dir(runs), device, count, address)
    how.check(place)
    board = job_board(cells, tuning, runs=place.runs, twin=twin, apart=how.name != "inline")
    watcher = _Watcher(board, count, on_event or (lambda _: None))
    how.work(board, place, watcher)
    watcher.close()
    table = pd.DataFrame(with_asked([_line(board, number) for number in range(len(cells))]))
    return with_matched(table, [*over, *(["arm"] if arms else [])])


def tune(
    experiment: str | Path | Experiment,
    over: Grid,
    measure: str = "clean_accuracy",
    *,
    seeds: int | Sequence[int] = 1,
    runs: str | Path | None = None,
    device: str = "auto",
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
        on_event: As for `sweep`.

    Returns:
        The experiment with the best values, and the table of what was tried.

    Raises:
        LabError: On an unknown measure, or where every cell failed.
    """
    if measure not in MEASURE_KINDS:
        raise unknown_name("measure", measure, MEASURE_KINDS)
    start = load_experiment(experiment)
    looking = start.with_(**{"probe.split": "validation", "probe.scope": "headline"})
    table = sweep(
        looking, over, seeds=seeds, runs=runs, twin=measure == "excess_asr", device=device,
        executor="inline", on_event=on_event,
    )  # fmt: skip
    if measure not in table or table[measure].isna().all():
        reasons = "; ".join(sorted(set(table.get("reason", [])))) or f"no run has the measure {measure!r}"
        raise LabError(f"Nothing to tune on: {reasons}.")
    # by place and not by value: a cell's column may hold something else than what was asked for
    places = [number // len(seed_list(seeds)) for number in range(len(table))]
    means = table[measure].groupby(places).mean().tolist()
    best = grid_points(over)[max(range(len(means)), key=lambda i: (means[i] == means[i], means[i]))]
    return start.with_(**best), table


def sweep_cells(
    experiment: str | Path | Experiment,
    over: Grid,
    *,
    arms: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] = 3,
    tune: Mapping[str, Any] | None = None,
    large: bool = False,
) -> tuple[list[Cell], Tuning]:
    """The cells of a sweep in the order of its table, and what is tuned for them; nothing is run.

    Args:
        experiment: As for `sweep`, and so are the others.
        over: The grid.
        arms: Named ways to do it.
        seeds: How many seeds, or which.
        tune: What is tuned.
        large: Whether a grid of more than 10,000 cells is meant.

    Raises:
        LabError: A wrong key is told before hours of work, not after.
    """
    start = load_experiment(experiment)
    chosen_seeds, ways, tuning = seed_list(seeds), arms or {"": {}}, tuning_of(tune)
    check_keys(over, tuning.over, ways)
    check_size(grid_size(over) * len(chosen_seeds) * len(ways), large=large)
    cells = [
        Cell(start.with_(**{**keys, **point, "seed": seed}), {**({"arm": arm} if arm else {}), **point}, seed)
        for point in grid_points(over)
        for seed in chosen_seeds
        for arm, keys in ways.items()
    ]
    for cell in cells if tuning.over else []:
        for point in grid_points(tuning.over):
            cell.experiment.with_(**point)
    return cells, tuning


def job_board(cells: Sequence[Cell], tuning: Tuning, *, runs: Path, twin: bool, apart: bool) -> JobBoard:
    """The jobs of a sweep, with what this runs folder knows of their bases.

    Args:
        cells: The cells.
        tuning: What is tuned for them, with the seed of the first.
        runs: The runs folder.
        twin: Whether clean twins are run.
        apart: Whether what several cells need is a job of its own.
    """
    from lab.bases import is_preset

    return JobBoard(
        cells,
        tuning,
        first_seed=cells[0].seed,
        twin=twin,
        apart=apart,
        is_experiment=is_preset,
        is_run=lambda model: (runs / Path(model).name / "experiment.json").is_file(),
    )


def _line(board: JobBoard, number: int) -> Line:
    cell, tuned, outcome = board.cells[number], board.tuned.get(number, {}), board.cell_outcome(number)
    line = Line({**cell.shown, "seed": cell.seed, **tuned}, {})
    try:
        line.found.update(
            trained_with(board.asked(number), {k: v for k, v in line.asked.items() if "." in k})
        )
    except LabError as error:
        line.found.update({"run": "", "state": "failed", "reason": str(error)})
    line.found.update(outcome.line)
    return line


class _Watcher:
    """Tells a listener how far a sweep is.

    Args:
        board: Its jobs.
        workers: How many are done at once.
        listen: Takes the events.
    """

    def __init__(self, board: JobBoard, workers: int, listen: Listener) -> None:
        self._board, self._workers, self._listen = board, workers, listen
        self._start = time.monotonic()
        self._trained: list[float] = []
        self._best: tuple[float, str, dict[str, Any]] | None = None

    def begins(self, job: SweepJob) -> None:
        """A cell begins; what it needs before it is not announced."""
        if job.cell >= 0:
            cell = self._board.cells[job.cell]
            self._tell("cell", point=cell.shown, seed=cell.seed, number=job.cell)

    def ends(self, job: SweepJob, outcome: Outcome) -> None:
        """A job ended: the pace is told, and the best cell so far."""
        if outcome.seconds > 1:  # what is only read says nothing of the time that is left
            self._trained.append(outcome.seconds)
        if job.cell < 0:
            return
        cell = self._board.cells[job.cell]
        for kind in _BEST:
            if (value := outcome.line.get(kind)) is not None and value == value:
                if self._best is None or (self._best[1] == kind and value > self._best[0]):
                    self._best = (float(value), kind, {**cell.shown, "seed": cell.seed})
                break
        self._tell(
            "cell done",
            point=cell.shown,
            seed=cell.seed,
            number=job.cell,
            state=outcome.line.get("state", ""),
            reason=outcome.reason,
            best=self._best,
        )

    def hears(self, event: dict[str, Any]) -> None:
        """A run told something."""
        self._listen(event)

    def close(self) -> None:
        """The sweep is done."""
        self._tell("cell", point={}, seed=-1, number=-1)

    def _tell(self, kind: str, **fields: Any) -> None:
        done, total = self._board.finished_cells, len(self._board.cells)
        elapsed = max(time.monotonic() - self._start, 1e-9)
        recent = self._trained[-8 * self._workers :]
        jobs = max(total - done, sum(1 for _ in self._board.waiting()))
        left = sum(recent) / len(recent) * jobs / self._workers if recent else float("nan")
        rate = 60 * done / elapsed
        self._listen({"kind": kind, "done": done, "total": total, "per_minute": rate, "left": left, **fields})
