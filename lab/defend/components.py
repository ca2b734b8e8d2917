"""Edits of ΔW by itself: keep some of its singular components, or scale it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lab.defend._defense import Patient, WeightEdit, Weights
from lab.errors import LabError, NotTrainableError
from lab.modules import choose_modules
from lab.registry import Knobs

if TYPE_CHECKING:
    from lab.spectra import Update


class Truncate(Knobs):
    """What can be set on truncation."""

    name: Literal["truncate"] = "truncate"
    # half of the default adapter's rank
    rank: int = Field(4, ge=1, description="how many of the largest singular components stay")
    modules: str | tuple[str, ...] = Field("all-linear", description="adapted modules to truncate")
    layers: int = Field(0, ge=0, description="how many of the last layers (0: all)")


class Keep(Knobs):
    """What can be set on keeping components."""

    name: Literal["keep"] = "keep"
    components: tuple[int, ...] = Field((0,), min_length=1, description="components that stay, 0 the largest")
    modules: str | tuple[str, ...] = Field("all-linear", description="adapted modules to cut")
    layers: int = Field(0, ge=0, description="how many of the last layers (0: all)")


class Drop(Knobs):
    """What can be set on dropping components."""

    name: Literal["drop"] = "drop"
    components: tuple[int, ...] = Field((0,), min_length=1, description="components that go, 0 the largest")
    modules: str | tuple[str, ...] = Field("all-linear", description="adapted modules to cut")
    layers: int = Field(0, ge=0, description="how many of the last layers (0: all)")


class Scale(Knobs):
    """What can be set on scaling."""

    name: Literal["scale"] = "scale"
    # a visible change; 1 changes nothing, 0 takes the update away
    factor: float = Field(0.5, description="factor on ΔW, as a change of alpha would give")
    modules: str | tuple[str, ...] = Field("all-linear", description="adapted modules to scale")
    layers: int = Field(0, ge=0, description="how many of the last layers (0: all)")


def edited(
    weights: Weights,
    modules: str | tuple[str, ...],
    layers: int,
    name: str,
    change: Callable[[Update], Update],
) -> Weights:
    """The same weights with the updates of some modules changed.

    Raises:
        NotTrainableError: The modules or layers fit nothing, or the change does not fit one of them.
    """
    updates = dict(weights.updates)
    for module in choose_modules(list(updates), modules, where=f"defense {name}", last_layers=layers):
        try:
            updates[module] = change(updates[module])
        except LabError as error:
            raise NotTrainableError(f"defense {name}: {module}: {error}") from None
    return replace(weights, updates=updates)


def _edit_truncate(knobs: Truncate, weights: Weights, _: Patient) -> Weights:
    return edited(weights, knobs.modules, knobs.layers, knobs.name, lambda u: u.truncate(knobs.rank))


def _edit_keep(knobs: Keep, weights: Weights, _: Patient) -> Weights:
    return edited(weights, knobs.modules, knobs.layers, knobs.name, lambda u: u.keep(knobs.components))


def _edit_drop(knobs: Drop, weights: Weights, _: Patient) -> Weights:
    return edited(weights, knobs.modules, knobs.layers, knobs.name, lambda u: u.drop(knobs.components))


def _edit_scale(knobs: Scale, weights: Weights, _: Patient) -> Weights:
    return edited(weights, knobs.modules, knobs.layers, knobs.name, lambda u: u.rescale(knobs.factor))


_PAPER = "this lab; the components are those of arXiv 2601.06305's analysis"
TRUNCATE = WeightEdit(
    name="truncate",
    goal="Keep the largest singular components of the update: does the backdoor need more than the task?",
    paper=_PAPER,
    stage="weights",
    knobs=Truncate,
    changes="ΔW of the chosen modules, to the sum of its largest components",
    edit=_edit_truncate,
)
KEEP = WeightEdit(
    name="keep",
    goal="Keep chosen singular components of the update only: which of them carry the backdoor?",
    paper=_PAPER,
    stage="weights",
    knobs=Keep,
    changes="ΔW of the chosen modules, to the sum of the components that stay",
    edit=_edit_keep,
)
DROP = WeightEdit(
    name="drop",
    goal="Drop chosen singular components of the update: does the backdoor go with them?",
    paper=_PAPER,
    stage="weights",
    knobs=Drop,
    changes="ΔW of the chosen modules, by the components that go",
    edit=_edit_drop,
)
SCALE = WeightEdit(
    name="scale",
    goal="Scale the whole update, as a change of alpha after training does.",
    paper="arXiv 2601.06305, its scale s",
    stage="weights",
    knobs=Scale,
    changes="ΔW of the chosen modules, by one factor for all",
    edit=_edit_scale,
)
