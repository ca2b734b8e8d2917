"""Many experiments: a grid of dotted keys × seeds, each cell an ordinary run.

Shared twins and finished cells are never trained twice, so a sweep that was interrupted goes on where it
was; a cell that fails is recorded with its reason and does not stop the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, unknown_name
from lab.experiment import Experiment
from lab.presets import load_experiment
from lab.tables import MEASURE_KINDS

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run

Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class _Cell:
    """One experiment of a sweep, and the keys by which its line is known."""

    experiment: Experiment
    shown: dict[str, Any]
    seed: int


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
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> pd.DataFrame:
    """Run an experiment at every point of a grid, for several seeds.

    Args:
        experiment: What to start from: a preset, a file, an `Experiment`.
        over: Dotted keys and their values: `{"adapter.rank": [1, 4, 16]}`; {} for the seeds alone.
        arms: Named ways to do it, each with its dotted keys, `{"lora": {}, "rora": {"defense": ["rora"]}}`;
            every point is run with each of them.
        seeds: How many seeds (0, 1, …), or which.
        tune: `{"over": grid, "measure": kind}`: for every point, first choose these values on validation
            rows with the first seed, then run all seeds with them.
        runs: The runs folder.
        twin: Also run the clean twins.
        device: "auto", "cpu", "cuda" or "mps".
        on_event: Called with every event of every run, and with `{"kind": "cell", …}` for each cell.

    Returns:
        One line per cell: arm (where there are arms), the grid's keys, seed, run, state, reason, split,
        `alpha/r` (NaN for full fine-tuning), `training.learning_rate`, `training.steps`, then each headline
        measure as `kind`, `kind.n`, `kind.low`, `kind.high` (the twin's with the prefix `twin.`).

    Raises:
        LabError: On a key or value that no cell could have; nothing has been run then.
    """
    import pandas as pd

    start = load_experiment(experiment)
    chosen_seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    ways = {"": {}} if arms is None else arms
    cells = [
        _Cell(
            start.with_(**{**keys, **point, "seed": seed}), {**({"arm": arm} if arm else {}), **point}, seed
        )
        for point in grid_points(over)
        for seed in chosen_seeds
        for arm, keys in ways.items()
    ]  # a wrong key is told before hours of work, not after
    listen = on_event or (lambda _: None)
    tuned: dict[str, dict[str, Any]] = {}
    lines = []
    for number, cell in enumerate(cells):
        shown, seed = cell.shown, cell.seed
        listen({"kind": "cell", "done": number, "total": len(cells), "point": shown, "seed": seed})
        line: dict[str, Any] = {**shown, "seed": seed}
        try:
            index = repr(shown)
            if tune and index not in tuned:
                first = cell.experiment.with_(seed=chosen_seeds[0])
                tuned[index] = _tuned(first, tune, runs, device, listen)
            extra = tuned.get(index, {})
            line |= extra
            asked = cell.experiment.with_(**extra)
            # what was asked stands as it was asked, at its place; the run tells the rest
            lines.append({**line, **_cell(asked, runs, twin, device, listen), **line})
        except Exception as error:
            reason = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
            lines.append({**line, "run": "", "state": "failed", "reason": reason})
    listen({"kind": "cell", "done": len(cells), "total": len(cells), "point": {}, "seed": -1})
    return pd.DataFrame(lines)


def tune(
    experiment: str | Path | Experiment,
    over: Grid,
    measure: str = "clean_accuracy",
    *,
    seeds: int | Sequence[int] = 1,
    runs: str | Path | None = None,
    device: str = "auto",
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Experiment, pd.DataFrame]:
    """Choose values on validation rows; test rows are not looked at.

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
        looking, over, seeds=seeds, runs=runs, twin=measure == "excess_asr", device=device, on_event=on_event
    )
    if measure not in table or table[measure].isna().all():
        reasons = "; ".join(sorted(set(table.get("reason", [])))) or f"no run has the measure {measure!r}"
        raise LabError(f"Nothing to tune on: {reasons}.")
    means = [table.loc[_matches(table, point), measure].mean() for point in grid_points(over)]
    best = grid_points(over)[max(range(len(means)), key=lambda i: (means[i] == means[i], means[i]))]
    return start.with_(**best), table


def grid_points(over: Grid) -> list[dict[str, Any]]:
    """Every combination of a grid's values, the last key changing fastest; one empty point for {}.

    Raises:
        LabError: On a key without values, or "seed", which has an argument of its own.
    """
    for key, values in over.items():
        if key == "seed":
            raise LabError("Sweep over seeds with `seeds`, not with the key 'seed'.")
        if isinstance(values, str) or not len(values):
            raise LabError(f"{key}: give a list with at least one value to sweep over.")
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def cell_line(run: Run) -> dict[str, Any]:
    """The headline of a finished run as a sweep's table has it.

    What is easily confounded with a rank stands beside it: alpha/r, learning rate, steps as resolved.
    """
    from lab.store import headline_columns

    headline = run.headline
    adapter, training = run.experiment.adapter, run.experiment.training
    return {
        "run": run.id,
        "state": run.state,
        "reason": "",
        "split": headline["split"],
        "alpha/r": adapter.alpha_value / adapter.rank if adapter.kind == "lora" else float("nan"),
        "training.learning_rate": training.learning_rate,
        "training.steps": training.steps,
        **headline_columns(headline["measures"]),
    }


def _cell(asked: Experiment, runs: Any, twin: bool, device: str, listen: Any) -> dict[str, Any]:
    from lab.pipeline import run

    return cell_line(run(asked, runs=runs, twin=twin, device=device, on_event=listen))


def _tuned(asked: Experiment, how: Mapping[str, Any], runs: Any, device: str, listen: Any) -> dict[str, Any]:
    unknown = set(how) - {"over", "measure"}
    if unknown or "over" not in how:
        raise LabError("tune: give {over = {key = [values]}, measure = kind}.")
    measure = str(how.get("measure", "clean_accuracy"))
    best, _ = tune(asked, how["over"], measure, seeds=[asked.seed], runs=runs, device=device, on_event=listen)
    values = best.to_dict()
    return {key: _at(values, key) for key in how["over"]}


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values


def _matches(table: pd.DataFrame, point: Mapping[str, Any]) -> pd.Series:
    import pandas as pd

    same = pd.Series(True, index=table.index)
    for key, value in point.items():
        same &= table[key].map(lambda v, value=value: v == value)
    return same
