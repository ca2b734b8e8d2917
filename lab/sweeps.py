"""Many experiments: a grid of dotted keys × seeds, each cell an ordinary run.

Shared twins and finished cells are never trained twice, so a sweep that was interrupted goes on where it
was; a cell that fails is recorded with its reason and does not stop the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.defend import settle
from lab.errors import LabError, unknown_name
from lab.experiment import Experiment
from lab.matching import with_matched
from lab.presets import load_experiment
from lab.showing import showing
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


@dataclass(frozen=True)
class _Line:
    """One line of a sweep's table: keys as they were asked for, and what the run says of them and more."""

    asked: dict[str, Any]
    found: dict[str, Any]


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
            every point is run with each of them. An arm has no key of its own that is swept or tuned.
        seeds: How many seeds (0, 1, …), or which.
        tune: `{"over": grid, "measure": kind}` (clean accuracy by default): for every point and arm, first
            choose these values on validation rows with the first seed alone, then run all seeds with them.
            With `"of": "twin"` they are chosen on the clean twin, so that no attack has a say in them.
        runs: The runs folder.
        twin: Also run the clean twins.
        device: "auto", "cpu", "cuda" or "mps".
        on_event: Called with every event of every run, and with `{"kind": "cell", …}` for each cell; by
            default as for `lab.run`.

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

    if on_event is None:
        with showing(None) as view:
            return sweep(
                experiment,
                over,
                arms=arms,
                seeds=seeds,
                tune=tune,
                runs=runs,
                twin=twin,
                device=device,
                on_event=view,
            )
    start = load_experiment(experiment)
    first_seed, *_ = chosen_seeds = seed_list(seeds)
    ways = arms or {"": {}}
    tuned_over, measure, of_twin = _tuning(tune)
    _check_keys(over, tuned_over, ways)
    cells = [
        _Cell(
            start.with_(**{**keys, **point, "seed": seed}), {**({"arm": arm} if arm else {}), **point}, seed
        )
        for point in grid_points(over)
        for seed in chosen_seeds
        for arm, keys in ways.items()
    ]  # a wrong key is told before hours of work, not after
    for cell in cells:
        for point in grid_points(tuned_over):
            cell.experiment.with_(**point)
    listen = on_event
    tuned: dict[str, dict[str, Any]] = {}
    lines = []
    for number, cell in enumerate(cells):
        shown, seed = cell.shown, cell.seed
        listen({"kind": "cell", "done": number, "total": len(cells), "point": shown, "seed": seed})
        line = _Line({**shown, "seed": seed}, {})
        try:
            index = repr(shown)
            if tuned_over and index not in tuned:
                first = cell.experiment.with_(seed=first_seed)
                first = first.twin() if of_twin else first
                tuned[index] = _tuned(first, tuned_over, measure, runs, device, listen)
            extra = tuned.get(index, {})
            line.asked.update(extra)
            asked = cell.experiment.with_(**extra)
            line.found.update(_trained_with(asked, {k: v for k, v in line.asked.items() if "." in k}))
            line.found.update(_cell(asked, runs, twin, device, listen))
        except Exception as error:
            reason = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
            line.found.update({"run": "", "state": "failed", "reason": reason})
        lines.append(line)
    listen({"kind": "cell", "done": len(cells), "total": len(cells), "point": {}, "seed": -1})
    table = pd.DataFrame(_with_asked(lines))
    return with_matched(table, [*over, *(["arm"] if arms else [])])


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
        looking, over, seeds=seeds, runs=runs, twin=measure == "excess_asr", device=device, on_event=on_event
    )
    if measure not in table or table[measure].isna().all():
        reasons = "; ".join(sorted(set(table.get("reason", [])))) or f"no run has the measure {measure!r}"
        raise LabError(f"Nothing to tune on: {reasons}.")
    # by place and not by value: a cell's column may hold something else than what was asked for
    places = [number // len(seed_list(seeds)) for number in range(len(table))]
    means = table[measure].groupby(places).mean().tolist()
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
        if isinstance(values, (str, Mapping)) or not hasattr(values, "__len__") or not len(values):
            raise LabError(f"{key} = {values!r}: give a list with at least one value to sweep over.")
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """Which seeds are asked for: 0, 1, … for a number of them.

    Raises:
        LabError: No seed at all, or something else than whole numbers.
    """
    asked: Any = seeds
    listed: list[Any] = []
    if isinstance(asked, Integral) and not isinstance(asked, bool):
        listed = list(range(int(asked)))
    elif hasattr(asked, "__iter__") and not isinstance(asked, (str, Mapping)):
        listed = list(asked)
    if not listed or not all(isinstance(s, Integral) and not isinstance(s, bool) for s in listed):
        raise LabError(f"seeds = {seeds!r}: give a number from 1 up, or a list of seeds such as [0, 1, 2].")
    return [int(seed) for seed in listed]


def cell_line(run: Run) -> dict[str, Any]:
    """The headline of a finished run as a sweep's table has it.

    What is easily confounded with a rank stands beside it: alpha/r, learning rate, steps as trained with.
    The trigger is the one that was measured, the run's own or its base's; "" where there is none.
    """
    from lab.store import headline_columns

    headline = run.headline
    adapter, training = run.experiment.adapter, run.experiment.training
    return {
        "run": run.id,
        "state": run.state,
        "reason": "",
        "split": headline["split"],
        "trigger": _trigger(run),
        "alpha/r": adapter.alpha_value / adapter.rank if adapter.kind == "lora" else float("nan"),
        "training.learning_rate": training.learning_rate,
        "training.steps": training.steps,
        **headline_columns(headline["measures"]),
    }


def _cell(asked: Experiment, runs: Any, twin: bool, device: str, listen: Any) -> dict[str, Any]:
    from lab.pipeline import run

    return cell_line(run(asked, runs=runs, twin=twin, device=device, on_event=listen))


def _trigger(run: Run) -> str:
    """What to call the trigger that a run was measured with: the strings asked for, a member, or a name."""
    from lab.poison import own_injection

    poison = run.measured_poison
    own = str(getattr(poison, "member", "")) or own_injection(poison)
    named = str(getattr(poison, "family", "")) or own
    return ", ".join(run.asked_probe.triggers) or (named if own == "any" else own)


def _tuning(how: Mapping[str, Any] | None) -> tuple[Grid, str, bool]:
    """What is to be tuned over, {} for nothing, on which measure, and whether on the clean twin."""
    if how is None:
        return {}, "clean_accuracy", False
    over = how.get("over")
    if set(how) - {"over", "measure", "of"} or not isinstance(over, Mapping) or not over:
        raise LabError("tune: give {over = {key = [values]}, measure = kind, of = 'run' or 'twin'}.")
    measure = str(how.get("measure", "clean_accuracy"))
    if measure not in MEASURE_KINDS:
        raise unknown_name("measure", measure, MEASURE_KINDS)
    of = how.get("of", "run")
    if of not in ("run", "twin"):
        raise LabError(f"tune: of = {of!r}; allowed are 'run' and 'twin', the same without poison.")
    if of == "twin" and measure != "clean_accuracy":
        raise LabError(f"tune: of = 'twin' and measure = {measure!r}; a clean twin has its accuracy alone.")
    return over, measure, of == "twin"


def _check_keys(over: Grid, tuned: Grid, arms: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a key that would overwrite another one without a word: the last one set would win."""
    for key in tuned:
        if key in over:
            raise LabError(f"tune: {key!r} is swept over too; a key is either swept or tuned.")
    for arm, keys in arms.items():
        for key in keys:
            if key == "seed":
                raise LabError(f"arms.{arm}: choose seeds with `seeds`, not with the key 'seed'.")
            for where, others in (("over", over), ("tune", tuned)):
                # the other way round, `defense.0.p` over an arm's `defense`, both are heard
                if any(key == other or key.startswith(f"{other}.") for other in others):
                    raise LabError(
                        f"arms.{arm}: {key!r} is also in `{where}`, whose values would take its place; "
                        f"leave it out of one of the two."
                    )


def _tuned(
    asked: Experiment, over: Grid, measure: str, runs: Any, device: str, listen: Any
) -> dict[str, Any]:
    best, _ = tune(asked, over, measure, seeds=[asked.seed], runs=runs, device=device, on_event=listen)
    values = best.to_dict()
    return {key: _at(values, key) for key in over}


def _trained_with(asked: Experiment, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The values of these keys in the training itself, the very objects where they are those asked for."""
    settled = settle(asked)
    before, after = asked.to_dict(), settled.to_dict()
    found = {}
    for key, value in keys.items():
        section, _, name = key.partition(".")
        if section == "adapter" and name != "kind" and settled.adapter.kind == "full":
            found[key] = float("nan")
        elif section == "defense" or _at(before, key) == _at(after, key):
            found[key] = value
        else:
            found[key] = _at(after, key)
    return found


def _with_asked(lines: Sequence[_Line]) -> list[dict[str, Any]]:
    """The table's lines, with a column for what was asked of each key that some cell trained otherwise."""
    apart = [
        key
        for key in dict.fromkeys(key for line in lines for key in line.asked)
        if any(key in line.found and line.found[key] != line.asked[key] for line in lines)
    ]
    return [
        {**line.asked, **{f"asked.{k}": line.asked[k] for k in apart if k in line.asked}, **line.found}
        for line in lines
    ]


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values
