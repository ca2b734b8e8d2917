"""Defenses: every one a registry entry with its stage, its paper and its knobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lab.registry import Entry, Knobs

__all__ = ["DEFENSES", "Defense"]

Stage = Literal["data", "training", "weights", "inference"]


@dataclass(frozen=True)
class Defense(Entry):
    """One defense.

    Attributes:
        stage: Where it acts: on the data, in training, on the trained weights, or at inference.
        knobs: What can be set, with bounds and help; its `name` is the entry's.
        apply: The defense itself; what it takes depends on the stage.
    """

    stage: Stage
    knobs: type[Knobs]
    apply: Callable[..., Any]


DEFENSES: dict[str, Defense] = {}
