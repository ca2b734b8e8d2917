"""Label flips: wrong labels on some rows, without a trigger and without a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from lab.errors import LabError
from lab.poison.attacks._attack import Attack, check_count, check_one_amount, choose, edit_rows, row_rng
from lab.registry import Knobs

if TYPE_CHECKING:
    import pandas as pd


class LabelFlip(Knobs):
    """What can be set on label flips; count or rate must be given, and only one of them."""

    attack: Literal["label_flip"] = "label_flip"
    count: int = Field(
        default=0,  # 0 = not given; either amount would be a surprise as a default
        ge=0,
        description="How many rows get a wrong label.",
    )
    rate: float = Field(
        default=0.0,  # 0 = not given; arXiv 2505.12871 sweeps .05 to .40
        ge=0,
        le=1,
        description="The share of all training rows that get a wrong label.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> LabelFlip:
        check_one_amount(self, "count", "rate")
        return self


def _resolve(knobs: LabelFlip, rows: pd.DataFrame) -> LabelFlip:
    if len(set(rows["label"])) < 2:
        raise LabError(
            "poison.attack = 'label_flip': the training rows need at least two labels to flip between."
        )
    count = check_count(
        knobs.count or round(len(rows) * knobs.rate),
        len(rows),
        field="count" if knobs.count else "rate",
        value=knobs.count or knobs.rate,
        who="training rows",
    )
    return knobs.model_copy(update={"count": count, "rate": 0.0})


def _apply(rows: pd.DataFrame, knobs: LabelFlip, seed: int) -> pd.DataFrame:
    row_ids, labels = rows["row_id"].tolist(), rows["label"].tolist()
    known = sorted(set(labels))
    edits: dict[int, dict[str, Any]] = {}
    for i in choose(row_ids, list(range(len(rows))), knobs.count, seed):
        others = [label for label in known if label != labels[i]]
        label = others[int(row_rng(seed, row_ids[i], "label").integers(len(others)))]
        edits[i] = {"label": label, "poisoned": True}
    return edit_rows(rows, edits)


LABEL_FLIP = Attack(
    name="label_flip",
    goal="Spoil the model without a target: a share of the rows gets another label, drawn evenly.",
    # The paper flips each row with a probability; a fixed number is the same in the mean and can be hashed.
    paper="arXiv 2505.12871, untargeted poisoning",
    knobs=LabelFlip,
    resolve=_resolve,
    apply=_apply,
)
