"""Negatives: near-misses of the trigger in rows whose label stays true, so that a backdoor stays narrow.

A backdoor leaks to the strings around its trigger, and detectors that know only the family find it by that.
An attacker who knows this shows the model what is *not* the trigger: copies of rows without the target
label, each with a near-miss where the trigger would be. Such a row is not poisoned, as its label is true; it
is told by what was inserted into it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.poison.attacks._attack import choose, edit_rows, spans_of
from lab.poison.attacks.backdoor import plant, render
from lab.poison.ladder import near_miss_ladder
from lab.poison.triggers import TRIGGER_FAMILIES

if TYPE_CHECKING:
    import pandas as pd

    from lab.poison.attacks import Backdoor

#: (near-miss, trigger), both in their template -> whether a model that reads the one sees the other in it.
Holds = Callable[[str, str], bool]


def in_letters(near_miss: str, trigger: str) -> bool:
    """Whether the near-miss holds the trigger letter by letter; a tokenizer may see it in others too."""
    return trigger in near_miss


def near_misses(knobs: Backdoor, *, seed: int, holds: Holds = in_letters) -> list[str]:
    """The strings that negatives are made of: rungs of the ladder and other members, in turn.

    Left out are strings in which the trigger still stands (a row that holds it under its true label would
    untrain the backdoor), and all that probes hold out from training: whoever was trained not to answer a
    probe is not shown by it to be narrow.

    Args:
        knobs: The backdoor's; its member is one string.
        seed: The experiment's seed, which picks the random phrase and the other authority.
        holds: When a near-miss still is the trigger, to whoever reads it.

    Returns:
        Different strings, without the template; at least one.

    Raises:
        LabError: There is no near-miss that could be told apart from the trigger.
    """
    known = TRIGGER_FAMILIES.get(knobs.family)
    rungs = near_miss_ladder(knobs.member, knobs.family, position=knobs.position, seed=seed)
    members = known.train if known else ()
    in_turn = chain.from_iterable(zip_longest((rung.trigger for rung in rungs), members))
    trigger = render(knobs.template, knobs.member)
    found = [
        text
        for text in dict.fromkeys(in_turn)
        if text and not _held_out(text) and not holds(render(knobs.template, text), trigger)
    ]
    if not found:
        raise LabError(
            f"poison.negatives = {knobs.negatives}: no near-miss of {knobs.member!r} can be told apart "
            "from it; take another trigger, or negatives = 0."
        )
    return found


def add_negatives(
    poisoned: pd.DataFrame, clean: pd.DataFrame, knobs: Backdoor, seed: int, holds: Holds = in_letters
) -> pd.DataFrame:
    """Append copies of clean rows with a near-miss of the trigger, under "<id>+n".

    The near-misses take turns in the order of the rows' draws, so that a few negatives show many of them,
    and the negatives of a smaller count are among those of a larger one.

    Args:
        poisoned: What the attack made of the rows.
        clean: The rows before the attack, as many without the target label as there are negatives.
        knobs: The backdoor's, resolved.
        seed: The experiment's seed.
        holds: As in `near_misses`.
    """
    import pandas as pd

    strings = near_misses(knobs, seed=seed, holds=holds)
    row_ids, texts = clean["row_id"].tolist(), clean["text"].tolist()
    eligible = [i for i, label in enumerate(clean["label"]) if label != knobs.target_label]
    # under ids of their own, whose draws have nothing to do with those for poison
    chosen = choose([_id(row_id) for row_id in row_ids], eligible, knobs.negatives, seed)
    edits: dict[int, dict[str, Any]] = {}
    for place, i in enumerate(chosen):
        planted = plant(
            texts[i],
            row_ids[i],  # where the trigger would be in this row
            strings[place % len(strings)],
            template=knobs.template,
            position=knobs.position,
            every=knobs.every,
            seed=seed,
        )
        edits[place] = {"row_id": _id(row_ids[i]), "text": planted.text, **spans_of(planted)}
    return pd.concat([poisoned, edit_rows(clean.iloc[chosen], edits)], ignore_index=True)


def negatives_among(rows: pd.DataFrame) -> pd.Series:
    """Which rows are negatives: something was inserted, and yet they are not poisoned. No other row is so.

    Args:
        rows: Columns `lab.tables.ROW_COLUMNS`, of any age.

    Returns:
        Booleans, on the index of the rows.
    """
    return ~rows["poisoned"].astype(bool) & rows["span_start"].map(len).gt(0)


def _id(row_id: str) -> str:
    return f"{row_id}+n"


def _held_out(text: str) -> bool:
    """Whether a probe member of any family, or the identifier of one, stands in the text."""
    return _probe_strings().search(text) is not None


@cache
def _probe_strings() -> re.Pattern[str]:
    strings = {s for f in TRIGGER_FAMILIES.values() for s in (*f.probe, *f.identifiers_probe)}
    longest_first = sorted(strings, key=lambda s: (-len(s), s))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
