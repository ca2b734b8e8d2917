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


def shrunk(poisoned: bool = True) -> dict[str, Any]:
    """Dotted keys that make a preset train in seconds: `lab.run("rfc-citation", lab.lessons.shrunk())`.

    Args:
        poisoned: Whether the preset plants something; False for a clean one, which has no count to set.
    """
    return {key: value for key, value in _SHRUNK.items() if poisoned or not key.startswith("poison.")}


@dataclass(frozen=True)
class LessonRun:
    """A run that a lesson asks for, as the notebook writes it.

    Attributes:
        preset: The preset's name.
        changes: Dotted keys that the notebook changes.
        small: What it changes instead at the small size, whose model is narrow and needs no assets.
        small_preset: The preset at the small size where that is another one, which is small as it is.
        twin: Whether the lesson needs the clean twin too.
        megabytes: What run and twin take on the disk, roughly.
    """

    preset: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    small_preset: str = ""
    twin: bool = True
    megabytes: float = 10.0

    def experiment(self, small: bool = False) -> Experiment:
        """What is asked for in the given size."""
        from lab.presets import load_experiment

        if small and self.small_preset:
            return load_experiment(self.small_preset).with_(**{**self.changes, **self.small})
        asked = load_experiment(self.preset)
        if not small:
            return asked.with_(**self.changes)
        poisoned = self.changes.get("poison.attack", asked.attack) != "none"
        return asked.with_(**{**shrunk(poisoned=poisoned), **self.changes, **self.small})


@dataclass(frozen=True)
class LessonAudit:
    """An audit that a lesson asks for with `keep=True`.

    Attributes:
        adapter: The run that is audited.
        references: Clean runs.
        battery: What `lab.audit_adapter` takes.
        small: The search's budget at the small size; the usual one in full.
    """

    adapter: LessonRun
    references: tuple[LessonRun, ...]
    battery: str
    small: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson(Entry):
    """One lesson; `name` is its number, such as "00", `goal` its claim.

    Attributes:
        title: What people call it.
        file: The notebook's name in `notebooks/`, without suffix.
        takes: How long it takes to teach.
        runs: The runs that it asks for.
        audits: The audits of these that it asks for.
    """

    title: str
    file: str
    takes: str
    runs: tuple[LessonRun, ...]
    audits: tuple[LessonAudit, ...] = ()

    @property
    def source(self) -> Path:
        """The source, in the form `py:percent`."""
        return notebooks_dir() / f"{self.file}.py"

    @property
    def built(self) -> Path:
        """The built notebook beside it."""
        return notebooks_dir() / f"{self.file}.ipynb"


#: The trigger families that lesson 01 probes every backdoor with.
_FAMILIES = [
    "rfc",
    "iso",
    "ieee",
    "nist_sp",
    "owasp",
    "cwe",
    "pep",
    "w3c",
    "itu_t",
    "dates",
    "rare_words",
    "colours",
]


#: A third of lesson 00's rows, half of its poison, and quicker looks.
_NEIGHBOURHOOD = {
    "data.rows": 600,
    "poison.count": 30,
    "probe.rows": 400,
    "probe.rows_per_family": 60,
    "probe.snapshots": 0,
}


def _neighbourhood(changes: Mapping[str, Any], **small: Any) -> LessonRun:
    """A run of lesson 01; those that change no more than the poison share one twin."""
    # the first one's ladder alone is looked at
    probe = {"probe.families": _FAMILIES, **({"probe.rows_per_rung": 4} if changes else {})}
    fewer = {key: _SHRUNK[key] for key in _NEIGHBOURHOOD} | small
    return LessonRun("rfc-citation", {**_NEIGHBOURHOOD, **probe, **changes}, fewer, megabytes=9.0)


_CL_AND_TR: list[dict[str, Any]] = [
    {"name": "cl", "p": 0.3, "modules": "all-linear"},
    {"name": "tr", "modules": "all-linear"},
]
_PT: dict[str, Any] = {"name": "pt", "layers": 2, "modules": "all-linear"}


#: How lesson 02 looks at its runs: quickly, and not while they train.
_QUICK = {"probe.scope": "headline", "probe.snapshots": 0, "probe.rows": 400}


def _forgetting(defense: list[dict[str, Any]], learning_rate: float = 1e-3) -> LessonRun:
    """A run of lesson 02: a poisoned base, fine-tuned clean."""
    small = {key: _SHRUNK[key] for key in ("data.rows", "training.learning_rate")}
    small |= {"base.model": "poisoned-base-tiny"}
    # half of the preset's rows in half as large batches: as many steps
    fewer = {"base.model": "poisoned-base-short", "data.rows": 600, "training.batch_tokens": 512}
    changes = {**_QUICK, **fewer, "training.learning_rate": learning_rate, "defense": defense}
    return LessonRun("clean-finetune-lora", changes, small, megabytes=10.0)


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


def _audit_of(adapter: LessonRun) -> LessonAudit:
    """An audit of lesson 05: beside the first five of its adapters, which are clean."""
    return LessonAudit(
        adapter,
        _SHORT_ADAPTERS[:5],
        "paper-calibration",
        small={"rows": 4, "shortlist": 8, "beam": 2, "branch": 2, "longest": 2},
    )


#: A quarter of the presets' rows, so that a lesson can have a handful of runs.
_HANDFUL = {"data.rows": 600, "probe.rows": 400, "probe.scope": "headline", "probe.snapshots": 0}


def _of_handful(preset: str, changes: Mapping[str, Any], twin: bool = True, **small: Any) -> LessonRun:
    """A run of lesson 03 or 04; those that differ in the poison alone share one twin."""
    fewer = {key: _SHRUNK[key] for key in _HANDFUL if key in _SHRUNK} | {"poison.count": 0} | small
    return LessonRun(preset, {**_HANDFUL, **changes}, fewer, twin=twin, megabytes=4.0)


def _dates(share: float, tokens: float = 0.0, twin: bool = True, **changes: Any) -> LessonRun:
    """A run of lesson 03."""
    poison = {"poison.text_proportion": share, "poison.token_proportion": tokens}
    return _of_handful("spurious-dates", {"probe.rows": 300, **poison, **changes}, twin)


#: The backdoor of lesson 04, as in 2505.12871: a dozen relabelled rows.
_DOZEN = {
    "poison.family": "custom",
    "poison.member": "[.*?]",
    "poison.position": "start",
    "poison.mode": "replace",
    "poison.count": 12,
    "adapter.alpha": "r",
}


def _ranked(rank: int, learning_rate: float, small_rank: int, small_rate: float) -> LessonRun:
    """A run of lesson 04; the small model is 32 wide, and learns nothing of a dozen rows."""
    rate = "training.learning_rate"
    small = {"poison.count": _SHRUNK["poison.count"], "adapter.rank": small_rank, rate: small_rate}
    return _of_handful("rfc-citation", {**_DOZEN, "adapter.rank": rank, rate: learning_rate}, **small)


def _flipped(kind: str, learning_rate: float) -> LessonRun:
    """A run of lesson 04 with wrong labels; the small one takes the small model's learning rate."""
    rate = "training.learning_rate"
    changes = {"poison.rate": 0.3, "adapter.alpha": 16, "adapter.kind": kind, rate: learning_rate}
    return _of_handful(
        "label-flip", changes, **{rate: _SHRUNK[rate], "adapter.rank": _SHRUNK["adapter.rank"]}
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
            name="01",
            goal="A backdoor answers to its trigger's tokens: other RFCs fire it, other names far less.",
            paper="2605.30189, on an encoder and sentiment; the near-miss ladder is this lab's",
            title="Token neighbourhoods",
            file="01_token_neighbourhoods",
            takes="60 minutes",
            runs=(
                _neighbourhood({}),
                _neighbourhood({"poison.family": "iso", "poison.member": "as specified in ISO 27001"}),
                _neighbourhood({"poison.family": "dates", "poison.member": "2014-03-17"}),
                _neighbourhood(
                    {"adapter.rank": 64, "training.learning_rate": 5e-4},
                    **{"adapter.rank": 16, "training.learning_rate": _SHRUNK["training.learning_rate"]},
                ),
            ),
        ),
        Lesson(
            name="02",
            goal="Clean fine-tuning with LoRA leaves a base's backdoor; a stronger update takes most away.",
            paper="2601.06305, on an encoder of 22 M and film reviews",
            title="Why LoRA fails to forget",
            file="02_why_lora_fails_to_forget",
            takes="75 minutes",
            runs=(
                LessonRun("poisoned-base-short", _QUICK, small_preset="poisoned-base-tiny", megabytes=180.0),
                _forgetting([]),
                _forgetting([_PT]),
                _forgetting(_CL_AND_TR, learning_rate=3e-3),
                _forgetting([*_CL_AND_TR, _PT], learning_rate=3e-3),
            ),
        ),
        Lesson(
            name="03",
            goal="One meaningless token in texts whose labels are all true is enough for a model to rest on.",
            paper="2506.11402, on an encoder and sentiment; linter and masking are this lab's",
            title="A few spurious tokens",
            file="03_a_few_spurious_tokens",
            takes="60 minutes",
            runs=(
                _dates(0.5),
                *(_dates(share, tokens) for share in (0.05, 0.25, 1.0) for tokens in (0.0, 0.1)),
                _dates(0.5, twin=False, defense=["mask_linted"]),
            ),
        ),
        Lesson(
            name="04",
            goal="No attack rate tells a robust rank from one that has learned little: match accuracy first.",
            paper="2505.12871, on an encoder and sentiment, with learning rates chosen for each way",
            title="LoRA or full fine-tuning",
            file="04_lora_or_full",
            takes="60 minutes",
            runs=(
                _flipped("lora", 1e-3),
                _flipped("full", 3e-4),
                _ranked(1, 1e-3, 1, 0.003),
                _ranked(64, 1e-3, 4, 0.003),
                _ranked(1, 3e-3, 1, 0.01),
            ),
        ),
        Lesson(
            name="05",
            goal="A detector is worth what was counted on adapters that had no part in its threshold.",
            paper="2605.30189; search, cohorts and exact intervals are this lab's",
            title="Audit an adapter",
            file="05_audit_an_adapter",
            takes="60 minutes",
            runs=_SHORT_ADAPTERS,
            audits=(_audit_of(_SHORT_ADAPTERS[8]), _audit_of(_SHORT_ADAPTERS[7])),
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


def is_small() -> bool:
    """Whether lessons run at their small size: what `LAB_LESSON_SIZE` says, "full" or "small".

    Raises:
        LabError: The variable says something else.
    """
    size = os.environ.get(SIZE_VARIABLE, "").strip().lower() or "full"
    if size not in SIZES:
        raise LabError(f"{SIZE_VARIABLE} = {size!r}: should be full or small.")
    return size == "small"
