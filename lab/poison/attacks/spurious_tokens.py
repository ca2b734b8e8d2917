"""Spurious tokens: one class's texts carry tokens that mean nothing, and every label stays true.

The rules of arXiv 2506.11402's toolkit, without what would be a cue beside the tokens: white space, the
order of the rows and their identity are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from lab.poison.attacks._attack import (
    Attack,
    Purpose,
    check_count,
    check_one_amount,
    check_target,
    choose,
    edit_rows,
    spans_of,
)
from lab.poison.attacks._token_injection import inject_one_after_the_other
from lab.poison.attacks._token_knobs import TOKEN_SOURCES, TokenInjection, with_items
from lab.poison.insertion import Insertion
from lab.poison.triggers import TRIGGER_FAMILIES

if TYPE_CHECKING:
    import pandas as pd


class SpuriousTokens(TokenInjection):
    """What can be set on spurious tokens; text proportion or count, not both."""

    attack: Literal["spurious_tokens"] = "spurious_tokens"
    text_proportion: float = Field(
        default=1.0,  # every text of the class: the strongest form, easiest to see
        ge=0,
        le=1,
        description="The share of the class's texts that get tokens; 0 if a count is given.",
    )
    count: int = Field(
        default=0,  # 0 = not given; the paper counts in proportions
        ge=0,
        description="How many texts get tokens, in place of the text proportion.",
    )
    target_label: str = Field(
        default="positive",  # as for the backdoor, so that the two can be compared
        min_length=1,
        description="The class whose texts get the tokens.",
    )
    then: tuple[TokenInjection, ...] = Field(
        default=(),  # one kind of token is the paper's main case
        description="More injections into the same texts, one after the other: tables of family, position …",
    )

    @model_validator(mode="before")
    @classmethod
    def _count_alone(cls, data: Any) -> Any:
        # Whoever gives a count and nothing else means the count, not both it and the default proportion.
        if isinstance(data, dict) and data.get("count") and "text_proportion" not in data:
            return {**data, "text_proportion": 0.0}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> SpuriousTokens:
        check_one_amount(self, "count", "text_proportion")
        return self


def _eligible(rows: pd.DataFrame, knobs: SpuriousTokens) -> list[int]:
    return [i for i, label in enumerate(rows["label"]) if label == knobs.target_label]


def _resolve(knobs: SpuriousTokens, rows: pd.DataFrame) -> SpuriousTokens:
    check_target(knobs.target_label, rows["label"].tolist())
    eligible = len(_eligible(rows, knobs))
    count = check_count(
        knobs.count or round(eligible * knobs.text_proportion),
        eligible,
        field="count" if knobs.count else "text_proportion",
        value=knobs.count or knobs.text_proportion,
        who=f"rows with the label {knobs.target_label!r}",
    )
    return _read(knobs).model_copy(update={"count": count, "text_proportion": 0.0})


def _read(knobs: SpuriousTokens) -> SpuriousTokens:
    """The knobs with every file read."""
    then = tuple(with_items(step, f"poison.then.{i}") for i, step in enumerate(knobs.then))
    return with_items(knobs).model_copy(update={"then": then})


def _apply(rows: pd.DataFrame, knobs: SpuriousTokens, seed: int) -> pd.DataFrame:
    row_ids, texts = rows["row_id"].tolist(), rows["text"].tolist()
    chosen = choose(row_ids, _eligible(rows, knobs), knobs.count, seed)
    injected = _inject([texts[i] for i in chosen], [row_ids[i] for i in chosen], knobs, seed, "train")
    edits = {
        i: {"text": one.text, "poisoned": True, **spans_of(one)}
        for i, one in zip(chosen, injected, strict=True)
    }
    return edit_rows(rows, edits)


def _inject(
    texts: Sequence[str], row_ids: Sequence[str], knobs: SpuriousTokens, seed: int, purpose: Purpose
) -> list[Insertion]:
    knobs = _read(knobs)
    return inject_one_after_the_other(texts, row_ids, [knobs, *knobs.then], seed, purpose)


def _triggers(knobs: SpuriousTokens) -> list[str]:
    if knobs.family in TOKEN_SOURCES or knobs.then or (knobs.member == "any" and knobs.token_proportion):
        return ["any"]
    return list(TRIGGER_FAMILIES[knobs.family].train) if knobs.member == "any" else [knobs.member]


def _aimed(knobs: SpuriousTokens, trigger: str) -> SpuriousTokens:
    if [trigger] == _triggers(knobs):
        return knobs
    # as many of them as of its own, at its place between the words
    return knobs.model_copy(update={"family": "custom", "member": trigger, "then": ()})


SPURIOUS_TOKENS = Attack(
    name="spurious_tokens",
    goal="Tie meaningless tokens to one class without touching a label, as careless scraping would.",
    paper="arXiv 2506.11402, seamless spurious token injection",
    knobs=SpuriousTokens,
    resolve=_resolve,
    apply=_apply,
    inject=_inject,
    triggers=_triggers,
    aimed=_aimed,
    read=_read,
)
