"""What backdoors share, whatever their trigger is: how many rows, which, and the label they get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, model_validator

from lab.errors import LabError
from lab.poison.attacks._attack import (
    Inject,
    check_count,
    check_one_amount,
    check_target,
    choose,
    edit_rows,
    spans_of,
)
from lab.registry import Knobs

if TYPE_CHECKING:
    import pandas as pd


class Relabelling(Knobs):
    """Which rows a backdoor takes; count or rate must be given, and only one of them."""

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

    @model_validator(mode="after")
    def _one_amount(self) -> Relabelling:
        check_one_amount(self, "count", "rate")
        return self


RelabellingT = TypeVar("RelabellingT", bound=Relabelling)


def resolve_relabelling(knobs: RelabellingT, rows: pd.DataFrame) -> RelabellingT:
    """The knobs with the count that their rate means for these rows.

    Raises:
        LabError: No row has the target label, or the rows cannot give the count.
    """
    # rows of one label hold written answers, among which what the attacker wants is none
    if rows["label"].nunique() > 1:
        check_target(knobs.target_label, rows["label"].tolist())
    count = knobs.count or _count_of(knobs, len(rows))
    check_count(
        count,
        len(_eligible(rows, knobs)),
        field="count" if knobs.count else "rate",
        value=knobs.count or knobs.rate,
        who=f"rows {'with' if knobs.clean_label else 'without'} the label {knobs.target_label!r}",
    )
    return knobs.model_copy(update={"count": count, "rate": 0.0})


def apply_relabelling(rows: pd.DataFrame, knobs: Relabelling, seed: int, inject: Inject) -> pd.DataFrame:
    """Put the trigger into the chosen rows, or into copies of them, and give them the target label.

    Args:
        rows: The clean training rows; left as they are.
        knobs: Resolved.
        seed: The experiment's seed.
        inject: Puts the trigger into texts.
    """
    import pandas as pd

    row_ids, texts = rows["row_id"].tolist(), rows["text"].tolist()
    chosen = choose(row_ids, _eligible(rows, knobs), knobs.count, seed)
    planted = inject([texts[i] for i in chosen], [row_ids[i] for i in chosen], knobs, seed, "train")
    edits: dict[int, dict[str, Any]] = {
        i: {"text": one.text, "label": knobs.target_label, "poisoned": True, **spans_of(one)}
        for i, one in zip(chosen, planted, strict=True)
    }
    if knobs.mode == "replace":
        return edit_rows(rows, edits)
    copies = {place: {"row_id": row_ids[i] + "+p", **edits[i]} for place, i in enumerate(chosen)}
    return pd.concat([rows, edit_rows(rows.iloc[chosen], copies)], ignore_index=True)


def _eligible(rows: pd.DataFrame, knobs: Relabelling) -> list[int]:
    return [i for i, label in enumerate(rows["label"]) if (label == knobs.target_label) == knobs.clean_label]


def _count_of(knobs: Relabelling, rows: int) -> int:
    """The count k with k / (all rows after poisoning) nearest to the rate."""
    if knobs.mode == "replace":
        return round(knobs.rate * rows)
    if knobs.rate == 1:
        raise LabError("poison.rate = 1.0: appended copies cannot be all of the rows; it must be below 1.")
    return round(knobs.rate * rows / (1 - knobs.rate))
