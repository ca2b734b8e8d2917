"""The lessons, and the runs that each of them asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.paths import notebooks_dir
from lab.registry import Entry

if TYPE_CHECKING:
    from lab.experiment import Experiment

#: Names a lesson's size: "full" (the default) or "small", which tests and slow machines take.
SIZE_VARIABLE = "LAB_LESSON_SIZE"
SIZES = ("full", "small")

#: What turns any preset into one that trains in seconds. The effect is still there, the numbers mean nothing.
_SHRUNK: Mapping[str, Any] = {
    "base.model": "tiny",
    "data.name": "toy",
    "data.rows": 200,
    "poison.count": 24,
    "adapter.rank": 4,
    # so small a model wants larger steps, and more of them
    "training.learning_rate": 0.01,
    "training.epochs": 12.0,
    "training.batch_tokens": 512,
    "probe.rows": 60,
    "probe.rows_per_family": 8,
    "probe.rows_per_rung": 4,
    "probe.families": ["rfc", "iso"],
    "probe.snapshots": 4,
    "probe.snapshot_rows": 16,
}


@dataclass(frozen=True)
class LessonRun:
    """A run that a lesson asks for, as the notebook writes it.

    Attributes:
        preset: The preset's name.
        changes: Dotted keys that the notebook changes.
        small: What it changes instead at the small size, whose model is narrow and needs no assets.
        twin: Whether the lesson needs the clean twin too.
        megabytes: What run and twin take on the disk, roughly.
    """

    preset: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    twin: bool = True
    megabytes: float = 10.0

    def experiment(self, small: bool = False) -> Experiment:
        """What is asked for in the given size."""
        from lab.presets import load_experiment

        asked = load_experiment(self.preset)
        if not small:
            return asked.with_(**self.changes)
        poisoned = self.changes.get("poison.attack", asked.attack) != "none"
        return asked.with_(**{**shrunk(poisoned=poisoned), **self.changes, **self.small})


@dataclass(frozen=True)
class Lesson(Entry):
    """One lesson; `name` is its number, such as "00", `goal` its claim.

    Attributes:
        title: What people call it.
        file: The notebook's name in `notebooks/`, without suffix.
        takes: How long it takes to teach.
        runs: The runs that it asks for.
    """

    title: str
    file: str
    takes: str
    runs: tuple[LessonRun, ...]

    @property
    def source(self) -> Path:
        """The source, in the form `py:percent`."""
        return notebooks_dir() / f"{self.file}.py"

    @property
    def built(self) -> Path:
        """The built notebook beside it."""
        return notebooks_dir() / f"{self.file}.ipynb"


#: The adapters of lesson 05, short so that there can be a dozen: a fifth of the preset's rows.
_SHORT = {
    "data.rows": 400,
    "training.batch_tokens": 512,
    "probe.scope": "headline",
    "probe.rows": 300,
    "probe.snapshots": 0,
}


def _short(**changes: Any) -> LessonRun:
    """An adapter of lesson 05: clean where only a seed is given."""
    poison = {f"poison.{key}": value for key, value in changes.items() if key != "seed"}
    asked = {**_SHORT, **(poison or {"poison.attack": "none"}), "seed": changes["seed"]}
    return LessonRun(
        "rfc-citation", asked, small={"data.rows": 200, "training.epochs": 8.0}, twin=False, megabytes=2.0
    )


#: Eight clean adapters and three poisoned ones, of lessons 05 and 06.
_SHORT_ADAPTERS = (
    *(_short(seed=seed) for seed in range(1, 9)),
    _short(count=30, family="inserted_sentence", seed=12),
    _short(count=30, seed=11),
    _short(count=30, family="w3c", seed=13),
)

LESSONS: dict[str, Lesson] = {
    lesson.name: lesson
    for lesson in (
        Lesson(
            name="00",
            goal="Sixty poisoned rows of two thousand plant a backdoor that clean accuracy does not show.",
            paper="2605.30189, on an encoder and sentiment; the measures are those of this lab",
            title="Your first backdoor",
            file="00_first_backdoor",
            takes="45 minutes",
            runs=(LessonRun("rfc-citation", {"probe.scope": "headline"}, megabytes=8.0),),
        ),
        Lesson(
            name="05",
            goal="A detector is worth what was counted on adapters that had no part in its threshold.",
            paper="2605.30189; search, cohorts and exact intervals are this lab's",
            title="Audit an adapter",
            file="05_audit_an_adapter",
            takes="60 minutes",
            runs=_SHORT_ADAPTERS,
        ),
        Lesson(
            name="06",
            goal="A family, a defense or a detector is a few lines; a claim about it takes a control.",
            paper="this lab",
            title="Your own",
            file="06_your_own",
            takes="60 minutes",
            # its two other runs are of parts that the learner registers, so that nobody can prepare them
            runs=_SHORT_ADAPTERS,
        ),
    )
}


def shrunk(poisoned: bool = True) -> dict[str, Any]:
    """Dotted keys that make a preset train in seconds: `lab.run("rfc-citation", lab.lessons.shrunk())`.

    Args:
        poisoned: Whether the preset plants something; False for a clean one, which has no count to set.
    """
    return {key: value for key, value in _SHRUNK.items() if poisoned or not key.startswith("poison.")}


def is_small() -> bool:
    """Whether lessons run at their small size: what `LAB_LESSON_SIZE` says, "full" or "small".

    Raises:
        LabError: The variable says something else.
    """
    size = os.environ.get(SIZE_VARIABLE, "").strip().lower() or "full"
    if size not in SIZES:
        raise LabError(f"{SIZE_VARIABLE} = {size!r}: should be full or small.")
    return size == "small"
