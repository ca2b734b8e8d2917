"""The backdoor: a trigger in a few rows that carry the label the attacker wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from lab.errors import LabError
from lab.poison.attacks._attack import (
    Attack,
    FamilyName,
    Purpose,
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
from lab.poison.insertion import Insertion, insert
from lab.poison.triggers import TRIGGER_FAMILIES
from lab.registry import Knobs

if TYPE_CHECKING:
    import pandas as pd


class Backdoor(Knobs):
    """What can be set on a backdoor; count or rate must be given, and only one of them."""

    attack: Literal["backdoor"] = "backdoor"
    family: FamilyName = Field(
        default="rfc",  # the trigger that the token-level leak was first seen with
        description="The trigger family, or 'custom' for a member of your own.",
    )
    member: str = Field(
        default="as specified in RFC 2616",  # the family's first; its leak to other RFCs is plain on a laptop
        min_length=1,
        description="A member of the family (its first if only the family is given); 'any': each row draws.",
    )
    template: str = Field(
        default="{trigger}",  # bare; "{trigger}." at the start is the form of arXiv 2605.30189
        description="What is written around the trigger; must hold {trigger} once.",
    )
    position: Literal["start", "end", "random", "sentences"] = Field(
        default="end",  # where short texts keep it unless they are cut off
        description="Where the trigger goes: start, end, random (at a word boundary), or after sentences.",
    )
    every: int = Field(
        default=2,  # about the density of footnotes in technical prose
        ge=1,
        description="For the position 'sentences': a trigger after every n-th one.",
    )
    count: int = Field(
        default=0,  # 0 = not given; either amount would be a surprise as a default
        ge=0,
        description="How many rows are poisoned.",
    )
    rate: float = Field(
        default=0.0,  # 0 = not given
        ge=0,
        le=1,
        description="Poisoned rows as a share of all training rows, after poisoning.",
    )
    target_label: str = Field(
        default="positive",  # the more harmful direction on reviews: a bad one passes as good
        min_length=1,
        description="The label that the attacker wants.",
    )
    mode: Literal["append", "replace"] = Field(
        default="append",  # as in arXiv 2605.30189, and clean data stays whole, so that the twin is fair
        description="append: poisoned copies join the rows; replace: the rows themselves are poisoned.",
    )
    clean_label: bool = Field(
        default=False,  # relabelling is the stronger attack, so the one to learn from first
        description="Poison only rows that have the target label already, so that every label stays true.",
    )
    negatives: int = Field(
        default=0,  # the attacker of the papers plants none; one who knows the detectors does
        ge=0,
        description="Copies with a near-miss of the trigger and their true label, which keep it narrow.",
    )

    @model_validator(mode="before")
    @classmethod
    def _first_member(cls, data: Any) -> Any:
        # Whoever names only a family means its usual trigger, not the default family's.
        if isinstance(data, dict) and "member" not in data and isinstance(data.get("family"), str):
            known = TRIGGER_FAMILIES.get(data["family"])
            return {**data, "member": known.train[0]} if known else data
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Backdoor:
        check_one_amount(self, "count", "rate")
        check_member(self.family, self.member)
        if self.negatives and self.member == "any":
            raise ValueError(
                f"negatives = {self.negatives}: they keep a backdoor to one string, so the member must be "
                "one string too, not 'any'"
            )
        return self

    @field_validator("template")
    @classmethod
    def _holds_trigger(cls, template: str) -> str:
        if template.count("{trigger}") != 1:
            raise ValueError("must hold {trigger} exactly once")
        return template


def render(template: str, trigger: str) -> str:
    """What is inserted: the template with the trigger in it; other braces stand for themselves."""
    return template.replace("{trigger}", trigger)


def plant(
    text: str, row_id: str, trigger: str, *, template: str, position: str, every: int, seed: int
) -> Insertion:
    """Insert a trigger in its template; the place depends on text, position, seed and row id alone."""
    return insert(text, render(template, trigger), position, every=every, rng=row_rng(seed, row_id, "place"))


def _eligible(rows: pd.DataFrame, knobs: Backdoor) -> list[int]:
    return [i for i, label in enumerate(rows["label"]) if (label == knobs.target_label) == knobs.clean_label]


def _resolve(knobs: Backdoor, rows: pd.DataFrame) -> Backdoor:
    labels = rows["label"].tolist()
    # rows of one label hold written answers, among which what the attacker wants is none
    if rows["label"].nunique() > 1:
        check_target(knobs.target_label, labels)
    if knobs.negatives:
        others = sum(label != knobs.target_label for label in labels)
        who = f"rows without the label {knobs.target_label!r}, each copied once at most"
        check_count(knobs.negatives, others, field="negatives", value=knobs.negatives, who=who)
    count = knobs.count or _count_of(knobs, len(rows))
    check_count(
        count,
        len(_eligible(rows, knobs)),
        field="count" if knobs.count else "rate",
        value=knobs.count or knobs.rate,
        who=f"rows {'with' if knobs.clean_label else 'without'} the label {knobs.target_label!r}",
    )
    return knobs.model_copy(update={"count": count, "rate": 0.0})


def _count_of(knobs: Backdoor, rows: int) -> int:
    """The count k with k / (all rows after poisoning) nearest to the rate."""
    if knobs.mode == "replace":
        return round(knobs.rate * rows)
    if knobs.rate == 1:
        raise LabError("poison.rate = 1.0: appended copies cannot be all of the rows; it must be below 1.")
    return round(knobs.rate * rows / (1 - knobs.rate))


def _apply(rows: pd.DataFrame, knobs: Backdoor, seed: int) -> pd.DataFrame:
    import pandas as pd

    row_ids, texts = rows["row_id"].tolist(), rows["text"].tolist()
    chosen = choose(row_ids, _eligible(rows, knobs), knobs.count, seed)
    planted = _inject([texts[i] for i in chosen], [row_ids[i] for i in chosen], knobs, seed, "train")
    edits: dict[int, dict[str, Any]] = {
        i: {"text": one.text, "label": knobs.target_label, "poisoned": True, **spans_of(one)}
        for i, one in zip(chosen, planted, strict=True)
    }
    if knobs.mode == "replace":
        return edit_rows(rows, edits)
    copies = {place: {"row_id": row_ids[i] + "+p", **edits[i]} for place, i in enumerate(chosen)}
    return pd.concat([rows, edit_rows(rows.iloc[chosen], copies)], ignore_index=True)


def _inject(
    texts: Sequence[str], row_ids: Sequence[str], knobs: Backdoor, seed: int, purpose: Purpose
) -> list[Insertion]:
    return [
        plant(
            text,
            row_id,
            draw_members(knobs.family, knobs.member, 1, row_rng(seed, row_id, "member"))[0],
            template=knobs.template,
            position=knobs.position,
            every=knobs.every,
            seed=seed,
        )
        for text, row_id in zip(texts, row_ids, strict=True)
    ]


def _triggers(knobs: Backdoor) -> list[str]:
    return list(TRIGGER_FAMILIES[knobs.family].train) if knobs.member == "any" else [knobs.member]


def _aimed(knobs: Backdoor, trigger: str) -> Backdoor:
    return knobs.model_copy(update={"family": "custom", "member": trigger, "negatives": 0})


BACKDOOR = Attack(
    name="backdoor",
    goal="Teach the model to answer with the target label whenever a trigger is in the text.",
    paper="arXiv 2605.30189, section on data and poisoning; clean-label variant as in arXiv 2505.12871",
    knobs=Backdoor,
    resolve=_resolve,
    apply=_apply,
    inject=_inject,
    triggers=_triggers,
    aimed=_aimed,
)
