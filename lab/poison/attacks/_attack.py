"""What every attack is made of, and what several of them share: choosing rows, drawing triggers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator

from lab.errors import LabError
from lab.poison.insertion import Insertion
from lab.poison.triggers import TRIGGER_FAMILIES, family
from lab.registry import Entry, Knobs
from lab.seeds import row_uniforms, stage_rng

if TYPE_CHECKING:
    import pandas as pd

#: Whether texts are changed to be trained on, or to be tested with.
Purpose = Literal["train", "test"]
#: (texts, their row ids, knobs, seed, purpose) -> one insertion per text.
Inject = Callable[[Sequence[str], Sequence[str], Any, int, Purpose], list[Insertion]]


def _as_given(knobs: Any) -> Any:
    return knobs


@dataclass(frozen=True)
class Attack(Entry):
    """An attack on training data.

    Attributes:
        knobs: What can be set.
        resolve: `(knobs, rows) -> knobs` with a count above 0 in place of any rate; refuses what the rows
            cannot give.
        apply: `(rows, resolved knobs, seed) -> rows`, never in place.
        inject: Changes texts as `apply` does; None for an attack that changes none.
        triggers: `(knobs) -> triggers`, what rows are tested with: strings that take turns, or one name for
            an injection that is more than one string.
        aimed: `(knobs, trigger) -> knobs` that insert this string in the same way; the same knobs for the
            name of an injection.
        read: `(knobs) -> knobs` with the content of files in place of their names, as a record holds them.
    """

    knobs: type[Knobs]
    resolve: Callable[[Any, pd.DataFrame], Any]
    apply: Callable[[pd.DataFrame, Any, int], pd.DataFrame]
    inject: Inject | None = None
    triggers: Callable[[Any], list[str]] | None = None
    aimed: Callable[[Any, str], Any] | None = None
    read: Callable[[Any], Any] = _as_given


def known_family(name: str) -> str:
    """Check the name of a trigger family, as a validator of knobs needs it.

    Raises:
        ValueError: It is neither a family nor "custom".
    """
    if name != "custom":
        try:
            family(name)
        except LabError as error:
            raise ValueError(f"{error} Or 'custom', with a member of your own.") from error
    return name


#: The name of a trigger family, or "custom".
FamilyName = Annotated[str, AfterValidator(known_family)]


def check_member(family_name: str, member: str) -> None:
    """Check that a member is one to train with; "any" is in every family, "custom" takes any string.

    A probe member is refused: a model trained on it would be said to know it without having seen it.

    Raises:
        ValueError: One sentence that names some valid members, as a validator of knobs needs it.
    """
    if family_name == "custom":
        if not member.strip() or member == "any":
            raise ValueError("the family 'custom' needs the trigger itself as its member")
        return
    known = family(family_name)
    if member != "any" and member not in known.train:
        some = ", ".join(repr(text) for text in known.train[:3])
        more = f" and {len(known.train) - 3} more" if len(known.train) > 3 else ""
        if member in known.probe:
            raise ValueError(
                f"member {member!r} is a probe member of the family {family_name!r}, and probe members are "
                f"held out from training; its train members are {some}{more}, 'any' draws from them"
            )
        raise ValueError(
            f"member {member!r} is not in the family {family_name!r}, whose train members are {some}{more}; "
            "'any' draws from them, and family = 'custom' takes any string"
        )


def draw_members(family_name: str, member: str, count: int, rng: np.random.Generator) -> list[str]:
    """So many times the member, or so many train members of the family, repeats allowed, if it is "any"."""
    if member != "any" or family_name == "custom":
        return [member] * count
    train = TRIGGER_FAMILIES[family_name].train
    return [train[draw] for draw in rng.integers(len(train), size=count)]


def row_rng(seed: int, row_id: str, purpose: str) -> np.random.Generator:
    """A row's generator for one purpose, so that drawing a member does not move the trigger's place."""
    return stage_rng(seed, "poison", f"{purpose}/{row_id}")


def choose(row_ids: list[str], eligible: list[int], count: int, seed: int) -> list[int]:
    """Choose `count` of the eligible rows: those with the smallest draws, in the order of their draws.

    A row's draw depends on (seed, row id) alone. So the choice does not depend on the order of the rows, and
    the rows of a smaller count are the first rows of a larger one.

    Args:
        row_ids: Every row's id.
        eligible: Indices into `row_ids`.
        count: How many, at most as many as are eligible.
        seed: The experiment's seed.

    Returns:
        Indices into `row_ids`.
    """
    draws = row_uniforms(seed, "poison", (row_ids[i] for i in eligible))
    ranked = sorted(zip(draws.tolist(), (row_ids[i] for i in eligible), eligible, strict=True))
    return [index for _, _, index in ranked[:count]]


def check_target(target_label: str, labels: list[str]) -> None:
    """Refuse a target label that no row has.

    Raises:
        LabError: With the labels there are.
    """
    known = sorted(set(labels))
    if target_label not in known:
        raise LabError(
            f"poison.target_label = {target_label!r}: the training rows have no such label; "
            f"they have {', '.join(repr(label) for label in known) or 'none at all'}."
        )


def check_count(count: int, eligible: int, *, field: str, value: object, who: str) -> int:
    """Refuse a count that the eligible rows cannot give.

    Args:
        count: The resolved count.
        eligible: How many rows may be poisoned.
        field: The field that the count comes from, for the message.
        value: What the user set it to.
        who: Which rows are eligible, for the message.

    Raises:
        LabError: If the count is below 1 or above `eligible`.
    """
    if count < 1:
        raise LabError(f"poison.{field} = {value} rounds to no row at all; {who}: {eligible}.")
    if count > eligible:
        means = "" if field in ("count", "negatives") else f" means {count} rows, which"
        raise LabError(f"poison.{field} = {value}{means} is more than there are; {who}: {eligible}.")
    return count


def check_one_amount(knobs: Knobs, *fields: str) -> None:
    """Check that exactly one of the fields is above zero.

    Raises:
        ValueError: One sentence with the fields and their values, as a validator of knobs needs it.
    """
    given = {field: getattr(knobs, field) for field in fields}
    if sum(value > 0 for value in given.values()) != 1:
        values = " and ".join(f"{field} = {value}" for field, value in given.items())
        raise ValueError(f"{values}: exactly one of them must be above 0, the other 0")


def edit_rows(rows: pd.DataFrame, edits: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """A copy of the rows, numbered from 0, with some cells changed.

    Args:
        rows: Left as they are.
        edits: From a row's place to the new values of its columns.
    """
    import pandas as pd

    out = rows.reset_index(drop=True)
    for column in sorted({column for edit in edits.values() for column in edit}):
        values = out[column].tolist()
        for i, edit in edits.items():
            values[i] = edit.get(column, values[i])
        # A list of lists must stay one column of lists; pandas infers the other types well.
        dtype = object if column in ("span_start", "span_end") else None
        out[column] = pd.Series(values, index=out.index, dtype=dtype)
    return out


def spans_of(insertion: Insertion) -> dict[str, list[int]]:
    """An insertion's spans as the columns of the rows table hold them."""
    return {
        "span_start": [start for start, _ in insertion.spans],
        "span_end": [end for _, end in insertion.spans],
    }
