"""Cohorts: populations of clean and poisoned adapters whose truth is known, to measure detectors on.

A detector is as good as the adapters that it was measured on. So clean and poisoned members differ in
nothing but their rows: rank and learning rate are spread over both alike, every member has rows and a seed of
its own, and none is another's clean twin. Thresholds come from the part "calibration" alone, whose trigger
families the part "test" does not have. Cohorts are files, `data/cohorts/<name>.toml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.entry_files import FileRegistry, read_entries, read_entry
from lab.errors import LabError, unknown_name
from lab.experiment import Experiment
from lab.paths import data_dir, expanded
from lab.poison import TRIGGER_FAMILIES
from lab.seeds import stage_rng
from lab.sweeps import grid_points

PartName = Literal["calibration", "test"]
PARTS: tuple[PartName, ...] = ("calibration", "test")

Text = Annotated[str, Field(min_length=1)]
Choices = dict[Text, Annotated[tuple[Any, ...], Field(min_length=1)]]
ValueType = TypeVar("ValueType")


class Part(BaseModel):
    """One part of a cohort.

    Attributes:
        clean: How many members have untouched rows.
        poisoned: How many have a backdoor.
        families: The trigger families of the poisoned ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean: int = Field(ge=0)
    poisoned: int = Field(ge=0)
    families: Annotated[tuple[Text, ...], Field(min_length=1)]


class Cohort(BaseModel):
    """What a cohort is made of.

    Attributes:
        name: The name of the file, without its ending.
        goal: One line: what it is for.
        source: Where its settings come from.
        set: Dotted keys of every member's experiment.
        vary: Dotted keys and the values that are spread over all members, clean and poisoned alike.
        poison: Dotted keys of the backdoor and the values that are spread over the poisoned members.
        parts: "calibration", to choose thresholds and directions on, and "test", to report on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    goal: Text
    source: Text
    set: dict[Text, Any]
    vary: Choices
    poison: Choices
    parts: dict[PartName, Part]

    @model_validator(mode="after")
    def _parts_apart(self) -> Cohort:
        if set(self.parts) != set(PARTS):
            raise ValueError(f"parts: a cohort has the parts {' and '.join(PARTS)}")
        for part, content in self.parts.items():
            for family in content.families:
                known = TRIGGER_FAMILIES.get(family)
                if known is None:
                    raise ValueError(f"parts: {unknown_name('trigger family', family, TRIGGER_FAMILIES)}")
                if known.audit_holdout != (part == "test"):
                    kind = "held out" if known.audit_holdout else "not held out"
                    raise ValueError(
                        f"parts: in parts.{part}: the family {family!r} is {kind} (audit_holdout); the test "
                        "part has held-out families alone, calibration none of them"
                    )
        return self


@dataclass(frozen=True)
class Member:
    """One adapter that a cohort asks for.

    Attributes:
        part: "calibration" or "test".
        experiment: What is trained and measured.
    """

    part: PartName
    experiment: Experiment

    @property
    def poisoned(self) -> bool:
        """Whether it has a backdoor."""
        return self.experiment.attack != "none"

    @property
    def group(self) -> str:
        """Members of one group have weights of the same shapes, and can be each other's references."""
        return f"r{self.experiment.adapter.rank}"


def find_cohort(name: str | Path) -> Cohort:
    """Return the lab's cohort of that name, or one from a TOML file of the user's own.

    Raises:
        LabError: There is none of that name (the message lists the valid ones), or the file is malformed.
    """
    if isinstance(name, str) and name in COHORTS:
        return COHORTS[name]
    path = expanded(name)
    if path.suffix != ".toml" or not path.is_file():
        raise unknown_name("cohort", name, COHORTS)
    return read_entry(path, Cohort.model_validate)


def plan_cohort(cohort: str | Path | Cohort, seed: int = 0) -> list[Member]:
    """Draw the members of a cohort: part by part, clean and poisoned ones mixed.

    Each varied value falls to as many members as any other, up to one. The order within a part says nothing
    of the truth, so that neither does the order in which adapters are built.

    Args:
        cohort: A name, a file, or a `Cohort`.
        seed: Of all that is drawn, the members' own seeds included; the same seed gives the same members.

    Raises:
        LabError: The cohort is unknown, or a key or value is none that an experiment can have.
    """
    found = cohort if isinstance(cohort, Cohort) else find_cohort(cohort)
    start = Experiment().with_(**{"name": f"cohort {found.name}", **found.set})
    total = sum(part.clean + part.poisoned for part in found.parts.values())
    # all at once, so that no two members have the same rows and initialisation
    seeds = iter(_rng(found, seed, "seeds").choice(2**31, size=total, replace=False).tolist())
    return [member for part in PARTS for member in _plan_part(found, part, start, seeds, seed)]


def _plan_part(
    cohort: Cohort, part: PartName, start: Experiment, seeds: Iterator[int], seed: int
) -> list[Member]:
    content, rng = cohort.parts[part], _rng(cohort, seed, part)
    common = [
        *_balanced(grid_points(cohort.vary), content.clean, rng),
        *_balanced(grid_points(cohort.vary), content.poisoned, rng),
    ]
    poisons: list[dict[str, Any]] = [{}] * content.clean + _poisons(cohort, content, rng)
    order = rng.permutation(len(common))
    return [Member(part, start.with_(**common[i], **poisons[i], seed=next(seeds))) for i in order]


def _poisons(cohort: Cohort, part: Part, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The dotted keys of the backdoor of every poisoned member."""
    spread = {key: _balanced(values, part.poisoned, rng) for key, values in sorted(cohort.poison.items())}
    families = _balanced(part.families, part.poisoned, rng)
    return [
        {
            "poison.attack": "backdoor",
            "poison.family": family,
            "poison.member": str(rng.choice(TRIGGER_FAMILIES[family].train)),
            **{key: values[i] for key, values in spread.items()},
        }
        for i, family in enumerate(families)
    ]


def _balanced(values: Sequence[ValueType], count: int, rng: np.random.Generator) -> list[ValueType]:
    """So many values in random order, each as often as any other, up to one; which are more is drawn."""
    order = rng.permutation(len(values))
    cycled = [values[order[i % len(values)]] for i in range(count)]
    return [cycled[i] for i in rng.permutation(count)]


def _rng(cohort: Cohort, seed: int, what: str) -> np.random.Generator:
    if not 0 <= seed < 2**32:
        raise LabError(f"seed = {seed}: allowed is 0 to {2**32 - 1}.")
    return stage_rng(seed, "cohort", f"{cohort.name}/{what}")


def load_cohorts(folder: str | Path | None = None) -> dict[str, Cohort]:
    """Read every cohort of a folder; the answer is cached for the life of the process.

    Args:
        folder: A folder of `<name>.toml` files; the lab's own `data/cohorts` if not given.

    Raises:
        LabError: A file is malformed (the message names file and field), or is not named as its cohort.
    """
    return dict(_load(Path(folder) if folder else data_dir() / "cohorts"))


@cache
def _load(folder: Path) -> dict[str, Cohort]:
    return read_entries(folder, Cohort.model_validate, "cohorts")


#: The registry of cohorts, from name to `Cohort`.
COHORTS: Mapping[str, Cohort] = FileRegistry("cohorts", _load)
