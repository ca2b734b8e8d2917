"""Spurious tokens: one class's texts carry tokens that mean nothing, and every label stays true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from lab.poison.attacks._attack import (
    Attack,
    FamilyName,
    check_count,
    check_member,
    check_one_amount,
    check_target,
    choose,
    draw_members,
    edit_rows,
    row_rng,
    spans_of,
)
from lab.poison.insertion import insert_pieces
from lab.registry import Knobs

if TYPE_CHECKING:
    import pandas as pd


class SpuriousTokens(Knobs):
    """What can be set on spurious tokens; text proportion or count, not both."""

    attack: Literal["spurious_tokens"] = "spurious_tokens"
    family: FamilyName = Field(
        default="dates",  # arXiv 2506.11402's first kind of token; reviews hardly hold any
        description="The trigger family that the tokens come from, or 'custom' for a member of your own.",
    )
    member: str = Field(
        default="any",  # as there: it is the kind of token that predicts the class, not one string
        min_length=1,
        description="A member of the family, or 'any' to draw each token from its train members.",
    )
    position: Literal["start", "end", "random"] = Field(
        default="random",  # as there; a fixed place would be a cue of its own
        description="Where the tokens go (the paper's location): start, end, random (at word boundaries).",
    )
    token_proportion: float = Field(
        default=0.0,  # the paper's light form: a single token is enough
        ge=0,
        le=1,
        description="Tokens as a share of a text's words, at least one token; 0 means exactly one.",
    )
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
        check_member(self.family, self.member)
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
    return knobs.model_copy(update={"count": count, "text_proportion": 0.0})


def _apply(rows: pd.DataFrame, knobs: SpuriousTokens, seed: int) -> pd.DataFrame:
    row_ids, texts = rows["row_id"].tolist(), rows["text"].tolist()
    edits: dict[int, dict[str, Any]] = {}
    for i in choose(row_ids, _eligible(rows, knobs), knobs.count, seed):
        tokens = max(1, int(len(texts[i].split()) * knobs.token_proportion))
        members = row_rng(seed, row_ids[i], "member")
        inserted = insert_pieces(
            texts[i],
            draw_members(knobs.family, knobs.member, tokens, members),
            knobs.position,
            rng=row_rng(seed, row_ids[i], "place"),
        )
        edits[i] = {"text": inserted.text, "poisoned": True, **spans_of(inserted)}
    return edit_rows(rows, edits)


SPURIOUS_TOKENS = Attack(
    name="spurious_tokens",
    goal="Tie meaningless tokens to one class without touching a label, as careless scraping would.",
    paper="arXiv 2506.11402, seamless spurious token injection",
    knobs=SpuriousTokens,
    resolve=_resolve,
    apply=_apply,
)
