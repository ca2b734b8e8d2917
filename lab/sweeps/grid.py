"""What a sweep is asked for, as cells: every point of a grid × arms × seeds, checked before anything runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from lab.errors import LabError, unknown_name
from lab.experiment import Experiment
from lab.tables import MEASURE_KINDS

Grid = Mapping[str, Sequence[Any]]
Arms = Mapping[str, Mapping[str, Any]]

#: A sweep of more cells than this was hardly meant.
MOST_CELLS = 10_000


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep, and the keys by which its line is known.

    Attributes:
        experiment: What is run.
        shown: The point, and the arm where there are arms.
        seed: Its seed.
    """

    experiment: Experiment
    shown: dict[str, Any]
    seed: int

    @property
    def point(self) -> str:
        """What is the same for all seeds of a point and arm, as a key."""
        return repr(self.shown)


@dataclass(frozen=True)
class Tuning:
    """What is chosen on validation rows for every point and arm before its seeds are run.

    Attributes:
        over: Dotted keys and the values to choose from; {} for no tuning.
        measure: The headline measure to maximise.
        of_twin: Choose on the clean twin.
    """

    over: Grid
    measure: str
    of_twin: bool

    def candidates(self, cell: Cell, first_seed: int) -> list[Cell]:
        """The experiments to choose from for a cell's point and arm, looking at validation rows alone."""
        start = cell.experiment.with_(seed=first_seed)
        start = looking_at_validation(start.twin() if self.of_twin else start)
        return [
            Cell(start.with_(**point), {**cell.shown, **point}, first_seed)
            for point in grid_points(self.over)
        ]


def looking_at_validation(experiment: Experiment) -> Experiment:
    """The same experiment, measured on validation rows and no further than the headline."""
    return experiment.with_(**{"probe.split": "validation", "probe.scope": "headline"})


def grid_cells(start: Experiment, over: Grid, arms: Arms, seeds: Sequence[int]) -> list[Cell]:
    """Every cell: points in the grid's order, within them the seeds, within them the arms.

    Args:
        start: What every cell starts from.
        over: The grid.
        arms: Named ways to run every point; one way without keys or name for none.
        seeds: Which seeds.

    Raises:
        LabError: On a key or value that an experiment cannot have.
    """
    return [
        Cell(start.with_(**{**keys, **point, "seed": seed}), {**({"arm": arm} if arm else {}), **point}, seed)
        for point in grid_points(over)
        for seed in seeds
        for arm, keys in arms.items()
    ]


def grid_points(over: Grid) -> list[dict[str, Any]]:
    """Every combination of a grid's values, the last key changing fastest; one empty point for {}.

    Raises:
        LabError: On a key without values, or "seed", which has an argument of its own.
    """
    _check_grid(over)
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def check_size(over: Grid, arms: Arms, seeds: Sequence[int], tuned: Grid, most: int = MOST_CELLS) -> None:
    """Refuse a grid of very many cells, by counting, before any of them is made.

    Raises:
        LabError: There are more than `most`, tunings counted too.
    """
    _check_grid(over)
    _check_grid(tuned)
    points = math.prod(len(values) for values in over.values()) * len(arms)
    tried = math.prod(len(values) for values in tuned.values()) if tuned else 0
    count = points * (len(seeds) + tried)
    if count > most:
        raise LabError(
            f"The grid has {count:,} cells (points × arms × seeds, and tunings), more than {most:,}; make it "
            f"smaller, or say --yes (in Python: most_cells={count}) if that is what you want."
        )


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


def read_tuning(how: Mapping[str, Any] | None) -> Tuning:
    """What is to be tuned over, on which measure, and whether on the clean twin.

    Raises:
        LabError: On a key or value that a tuning cannot have.
    """
    if how is None:
        return Tuning({}, "clean_accuracy", False)
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
    return Tuning(over, measure, of == "twin")


def check_keys(over: Grid, tuned: Grid, arms: Arms) -> None:
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


def _check_grid(over: Grid) -> None:
    for key, values in over.items():
        if key == "seed":
            raise LabError("Sweep over seeds with `seeds`, not with the key 'seed'.")
        if isinstance(values, (str, Mapping)) or not hasattr(values, "__len__") or not len(values):
            raise LabError(f"{key} = {values!r}: give a list with at least one value to sweep over.")
