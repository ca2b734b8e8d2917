"""From clean rows and an attack's knobs to poisoned rows, and triggers for rows that are tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lab.errors import LabError
from lab.poison.attacks import ATTACKS, Attack
from lab.poison.attacks._attack import Purpose
from lab.poison.attacks.backdoor import plant
from lab.poison.insertion import Insertion
from lab.poison.negatives import Holds, add_negatives, in_letters
from lab.registry import Knobs, lookup
from lab.tables import ROW_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

KnobsT = TypeVar("KnobsT", bound=Knobs)


def resolve_count(knobs: KnobsT, rows: pd.DataFrame) -> KnobsT:
    """Turn a rate or proportion into the count that it means for these rows.

    Args:
        knobs: An attack's knobs.
        rows: The clean training rows, columns `lab.tables.ROW_COLUMNS`.

    Returns:
        Knobs with a count above 0, and 0 for the rate or proportion; resolving again changes nothing.

    Raises:
        LabError: If the count is above the number of eligible rows or rounds to none, or no row has the
            target label. The message names the field, its value and what is allowed.
    """
    _check(rows)
    resolved: KnobsT = _attack(knobs).resolve(knobs, rows)
    return resolved


def poison_rows(rows: pd.DataFrame, knobs: Knobs, *, seed: int, holds: Holds = in_letters) -> pd.DataFrame:
    """Poison training rows.

    Which rows are chosen, which member they get and where it goes are functions of (seed, row id) alone:
    the order of the rows does not matter, and the rows of a smaller count are among those of a larger one.

    Args:
        rows: The clean training rows, and only these; columns `lab.tables.ROW_COLUMNS`, unique row ids.
        knobs: An attack's knobs, resolved or not.
        seed: The experiment's seed.
        holds: For negatives: when a near-miss still is the trigger, to the tokenizer that will read it.

    Returns:
        A new table, numbered from 0. The given rows stay in their order under their ids, with text and label
        untouched unless the attack poisons in place; appended copies follow under "<id>+p". A poisoned row
        has `poisoned` True, its true label in `original_label`, and the spans of what was inserted. Negatives
        come last, under "<id>+n": with spans, but not poisoned, as their label is true.

    Raises:
        LabError: As `resolve_count`.
    """
    resolved: Any = resolve_count(knobs, rows)
    poisoned = _attack(knobs).apply(rows, resolved, seed)
    if not getattr(resolved, "negatives", 0):
        return poisoned
    return add_negatives(poisoned, rows, resolved, seed, holds)


def trigger_texts(
    texts: Iterable[str],
    row_ids: Iterable[str],
    trigger: str,
    *,
    template: str = "{trigger}",
    position: str = "end",
    every: int = 2,
    seed: int = 0,
) -> list[Insertion]:
    """Put one trigger into every text, as a backdoor would: what a model is tested on.

    Args:
        texts: The texts.
        row_ids: Their ids, as many; a "random" place depends on text, seed and row id alone, so that a row
            takes two triggers at the same place.
        trigger: The trigger, without its template.
        template: What stands around it.
        position: A name in `lab.poison.POSITIONS`.
        every: For the position "sentences".
        seed: The experiment's seed.

    Returns:
        One insertion per text, in their order.

    Raises:
        LabError: If the position is unknown, the trigger is empty, or `every` is below 1.
    """
    return [
        plant(text, row_id, trigger, template=template, position=position, every=every, seed=seed)
        for text, row_id in zip(texts, row_ids, strict=True)
    ]


def inject_texts(
    texts: Sequence[str], row_ids: Sequence[str], knobs: Knobs, *, seed: int, purpose: Purpose = "test"
) -> list[Insertion]:
    """Change texts as an attack changes its training rows: what a model is tested on.

    Args:
        texts: The texts.
        row_ids: Their ids, as many; each text's draws depend on seed and row id alone, but for tokens that
            are drawn without replacement to train with.
        knobs: An attack's knobs, resolved or not.
        seed: The experiment's seed.
        purpose: "test" draws what is held out from training, where the attack holds anything out; "train" is
            what `poison_rows` does.

    Returns:
        One insertion per text, in their order; the texts themselves for an attack that changes none.

    Raises:
        LabError: As the attack says it.
    """
    attack = _attack(knobs)
    if attack.inject is None:
        return [Insertion(text, ()) for text in texts]
    return attack.inject(texts, row_ids, knobs, seed, purpose)


def triggers_of(knobs: Knobs) -> list[str]:
    """What rows are tested with: the trigger, or several that take turns; none for an attack without one.

    An injection that is more than one string has a name in its place; `aimed_at` knows both.
    """
    attack = _attack(knobs)
    return attack.triggers(knobs) if attack.triggers else []


def own_injection(knobs: Knobs) -> str:
    """The name of what an attack inserts where that is no single string; "" where it is."""
    names = triggers_of(knobs)
    if len(names) == 1 and (names[0] == "any" or not hasattr(knobs, "member")):
        return names[0]
    return ""


def aimed_at(knobs: KnobsT, trigger: str) -> KnobsT:
    """Knobs that insert one string where and as often as the attack inserts its own.

    Args:
        knobs: The knobs of an attack that changes texts.
        trigger: Any string, or what `triggers_of` names, which stands for the attack's own injection.
    """
    attack = _attack(knobs)
    aimed: KnobsT = attack.aimed(knobs, trigger) if attack.aimed else knobs
    return aimed


def _attack(knobs: Knobs) -> Attack:
    return lookup(ATTACKS, str(getattr(knobs, "attack", type(knobs).__name__)), "attack")


def _check(rows: pd.DataFrame) -> None:
    if set(rows.columns) != set(ROW_COLUMNS):
        raise LabError(f"The rows to poison need exactly the columns {', '.join(ROW_COLUMNS)}.")
    twice = rows["row_id"][rows["row_id"].duplicated()]
    if len(twice):
        raise LabError(
            f"The rows to poison hold the row_id {twice.iloc[0]!r} twice; every row needs its own."
        )
