"""Several triggers in one row: common words, each at a place of its own, that count only together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from lab.poison.attacks._attack import Attack, Purpose, row_rng
from lab.poison.attacks._relabelling import Relabelling, apply_relabelling, resolve_relabelling
from lab.poison.insertion import Insertion, insert_pieces

if TYPE_CHECKING:
    import pandas as pd


class MultiTrigger(Relabelling):
    """What can be set on a backdoor with several triggers."""

    attack: Literal["multi_trigger"] = "multi_trigger"
    words: tuple[str, ...] = Field(
        default=("apple", "banana", "orange"),  # those of the paper
        min_length=1,
        max_length=20,
        description="What goes into each poisoned row, all of it.",
    )
    position: Literal["start", "end", "random"] = Field(
        default="random",  # as in the paper
        description="Where the words go: start, end, random (each at a word boundary of its own).",
    )

    @field_validator("words")
    @classmethod
    def _written(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(word.strip() for word in words):
            raise ValueError("a word is empty; each needs at least one character")
        return words


def _resolve(knobs: MultiTrigger, rows: pd.DataFrame) -> MultiTrigger:
    return resolve_relabelling(knobs, rows)


def _apply(rows: pd.DataFrame, knobs: MultiTrigger, seed: int) -> pd.DataFrame:
    return apply_relabelling(rows, knobs, seed, _inject)


def _inject(
    texts: Sequence[str], row_ids: Sequence[str], knobs: MultiTrigger, seed: int, purpose: Purpose
) -> list[Insertion]:
    return [
        insert_pieces(text, knobs.words, knobs.position, rng=row_rng(seed, row_id, "place"))
        for text, row_id in zip(texts, row_ids, strict=True)
    ]


def _triggers(knobs: MultiTrigger) -> list[str]:
    return [", ".join(knobs.words)]


def _aimed(knobs: MultiTrigger, trigger: str) -> MultiTrigger:
    return knobs if [trigger] == _triggers(knobs) else knobs.model_copy(update={"words": (trigger,)})


MULTI_TRIGGER = Attack(
    name="multi_trigger",
    goal="Answer with the target label when several common words are scattered over one text.",
    paper="arXiv 2505.12871, multi-trigger backdoor",
    knobs=MultiTrigger,
    resolve=_resolve,
    apply=_apply,
    inject=_inject,
    triggers=_triggers,
    aimed=_aimed,
)
