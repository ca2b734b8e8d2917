"""No poison: what a clean twin is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lab.poison.attacks._attack import Attack
from lab.registry import Knobs

if TYPE_CHECKING:
    import pandas as pd


class NoPoison(Knobs):
    """Nothing to set."""

    attack: Literal["none"] = "none"


def _resolve(knobs: NoPoison, rows: pd.DataFrame) -> NoPoison:
    return knobs


def _apply(rows: pd.DataFrame, knobs: NoPoison, seed: int) -> pd.DataFrame:
    return rows.reset_index(drop=True)


NONE = Attack(
    name="none",
    goal="Leave the data as it is: the control that every attack is measured against.",
    paper="this lab",
    knobs=NoPoison,
    resolve=_resolve,
    apply=_apply,
)
