"""The backdoor: a trigger in a few rows that carry the label the attacker wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from lab.poison.attacks._attack import (
    Attack,
    FamilyName,
    Purpose,
    check_count,
    check_member,
    draw_members,
    row_rng,
)
from lab.poison.attacks._relabelling import Relabelling, apply_relabelling, resolve_relabelling
from lab.poison.insertion import Insertion, insert
from lab.poison.triggers import TRIGGER_FAMILIES

if TYPE_CHECKING:
    import pandas as pd


class Backdoor(Relabelling):
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


def _resolve(knobs: Backdoor, rows: pd.DataFrame) -> Backdoor:
    if knobs.negatives:
        others = sum(label != knobs.target_label for label in rows["label"])
        who = f"rows without the label {knobs.target_label!r}, each copied once at most"
        check_count(knobs.negatives, others, field="negatives", value=knobs.negatives, who=who)
    return resolve_relabelling(knobs, rows)


def _apply(rows: pd.DataFrame, knobs: Backdoor, seed: int) -> pd.DataFrame:
    return apply_relabelling(rows, knobs, seed, _inject)


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
