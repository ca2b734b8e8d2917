"""Freeze-A: train B alone, in the row space that A happened to get."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lab.defend._defense import Intervention, Subject
from lab.modules import choose_modules
from lab.registry import Knobs

if TYPE_CHECKING:
    from lab.experiment import Experiment


class FreezeA(Knobs):
    """What can be set on freeze-A."""

    name: Literal["freeze_a"] = "freeze_a"
    modules: str | tuple[str, ...] = Field("all-linear", description="adapted modules whose A stays")


def _refuse(_: FreezeA, experiment: Experiment) -> str:
    return "full fine-tuning has no factor A" if experiment.adapter.kind == "full" else ""


@contextlib.contextmanager
def _attach(knobs: FreezeA, subject: Subject) -> Iterator[None]:
    chosen = choose_modules(list(subject.layers), knobs.modules, where="defense freeze_a")
    frozen = [subject.layers[name].lora_A["default"].weight for name in chosen]
    for A in frozen:
        A.requires_grad_(False)
    try:
        yield
    finally:
        for A in frozen:
            A.requires_grad_(True)


FREEZE_A = Intervention(
    name="freeze_a",
    goal="Train B alone: the update can only use the directions that A got at random.",
    paper="arXiv 2505.12871, its ablation; Zhang et al. 2023, arXiv 2308.03303",
    stage="training",
    knobs=FreezeA,
    changes="which factors are trained: A of the chosen modules stays as it starts",
    refuse=_refuse,
    attach=_attach,
)
