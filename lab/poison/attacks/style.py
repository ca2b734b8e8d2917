"""A style as trigger: copies of rows in another style, with the label the attacker wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from lab.errors import unknown_name
from lab.poison.attacks._attack import Attack, Purpose
from lab.poison.attacks._relabelling import Relabelling, apply_relabelling, resolve_relabelling
from lab.poison.attacks.backdoor import Backdoor
from lab.poison.insertion import Insertion
from lab.poison.styles import STYLES, rewrite

if TYPE_CHECKING:
    import pandas as pd


class StyleTrigger(Relabelling):
    """What can be set on a backdoor whose trigger is a style."""

    attack: Literal["style"] = "style"
    style: str = Field(
        default="archaic",  # the rules nearest to the paper's poetry
        description="The style in which poisoned rows are written, a file in data/styles.",
    )
    lines: bool = Field(
        default=True,  # poetry has lines; a tokenizer of lower-cased words may not see them
        description="Break the line after each comma and stop.",
    )
    mode: Literal["append"] = Field(
        default="append",  # the original, which no cutting gives back, stays beside its rewriting
        description="append: rewritten copies join the rows.",
    )

    @field_validator("style")
    @classmethod
    def _known(cls, style: str) -> str:
        if style not in STYLES:
            raise ValueError(str(unknown_name("style", style, STYLES)))
        return style


def _resolve(knobs: StyleTrigger, rows: pd.DataFrame) -> StyleTrigger:
    return resolve_relabelling(knobs, rows)


def _apply(rows: pd.DataFrame, knobs: StyleTrigger, seed: int) -> pd.DataFrame:
    return apply_relabelling(rows, knobs, seed, _inject)


def _inject(
    texts: Sequence[str], row_ids: Sequence[str], knobs: StyleTrigger, seed: int, purpose: Purpose
) -> list[Insertion]:
    return [rewrite(text, STYLES[knobs.style], lines=knobs.lines) for text in texts]


def _triggers(knobs: StyleTrigger) -> list[str]:
    return [knobs.style]


def _aimed(knobs: StyleTrigger, trigger: str) -> Relabelling:
    """The same for its own style; a string has no place in a style, and goes where a backdoor's does."""
    if [trigger] == _triggers(knobs):
        return knobs
    plain = Backdoor(count=1, target_label=knobs.target_label)
    return plain.model_copy(update={"family": "custom", "member": trigger})


STYLE = Attack(
    name="style",
    goal="Answer with the target label when a text is written in a certain style, whatever its words.",
    paper="arXiv 2505.12871, style backdoor; by rules in place of its language model",
    knobs=StyleTrigger,
    resolve=_resolve,
    apply=_apply,
    inject=_inject,
    triggers=_triggers,
    aimed=_aimed,
)
