"""What a sweep goes over: a grid of dotted keys, seeds, and what is tuned; checked before anything is run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from lab.errors import LabError, unknown_name
from lab.tables import MEASURE_KINDS

Grid = Mapping[str, Sequence[Any]]

#: A grid of more cells is more often a slip than a wish; it has to be confirmed.
LARGE = 10_000


@dataclass(frozen=True)
class Tuning:
    """What is chosen on validation rows.

    Attributes:
        over: Dotted keys and the values to choose from; {} for no tuning.
        measure: The headline measure to maximise.
        of_twin: Whether it is measured on the clean twin.
    """

    over: Grid
    measure: str
    of_twin: bool


def grid_points(over: Grid) -> list[dict[str, Any]]:
    """Every combination of a grid's values, the last key changing fastest; one empty point for {}.

    Raises:
        LabError: On a key without values, or "seed", which has an argument of its own.
    """
    check_grid(over)
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def grid_size(over: Grid) -> int:
    """How many points a grid has, without making them.

    Raises:
        LabError: As `grid_points`.
    """
    check_grid(over)
    size = 1
    for values in over.values():
        size *= len(values)
    return size


def check_grid(over: Grid) -> None:
    """Refuse a key without values, or "seed"."""
    for key, values in over.items():
        if key == "seed":
            raise LabError("Sweep over seeds with `seeds`, not with the key 'seed'.")
        if isinstance(values, (str, Mapping)) or not hasattr(values, "__len__") or not len(values):
            raise LabError(f"{key} = {values!r}: give a list with at least one value to sweep over.")


def check_size(cells: int, *, large: bool) -> None:
    """Refuse a grid of more than `LARGE` cells that nobody confirmed.

    Raises:
        LabError: It is that large, and `large` is false.
    """
    if cells > LARGE and not large:
        raise LabError(
            f"The grid has {cells:,} cells, more than {LARGE:,}: confirm with --yes (large=True in Python), "
            f"or sweep over fewer values."
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


def tuning_of(how: Mapping[str, Any] | None) -> Tuning:
    """What is to be tuned over, on which measure, and whether on the clean twin.

    Raises:
        LabError: A key, measure or model that there is not.
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


def check_keys(over: Grid, tuned: Grid, arms: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a key that would overwrite another one without a word: the last one set would win.

    Raises:
        LabError: Names the key and both places.
    """
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
