"""The exercises of lesson 06: a family, a defense and a detector of one's own, each with its control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.lessons.verdicts import Exercise, expect, expect_close, expect_counts, expect_that

if TYPE_CHECKING:
    from lab.record import Run

_STRINGS = ["at noon", "at dusk", "at noon", "at dawn", "by night"]
_TEXTS = [
    "dull when the tide is high",
    "a fine  film when the tide is high",
    "weak when the tide is high",
    "the tide is high .",
    "when the tide is low",
    "high",
]


def _family(answer: Any, on: Any) -> str:
    from lab.poison import TriggerFamily

    came = answer("times", list(_STRINGS), 1)
    kind = None if came is None else type(came).__name__
    expect("What kind of thing it is", kind, TriggerFamily.__name__)
    expect("Its name", came.name, "times")
    expect("Its train members", tuple(came.train), ("at noon",))
    expect("Its probe members", tuple(came.probe), ("at dusk", "at dawn", "by night"))
    two = answer("times", list(_STRINGS), 2)
    expect("Its train members, where two are planted", tuple(two.train), ("at noon", "at dusk"))
    expect("Its category", came.category, "phrase")
    return "No training row will carry a probe member."


def _kept(answer: Any, on: Any) -> str:
    for words, least, expected in (
        (3, 3, [False, False, False, True, True, True]),
        (3, 4, [True] * 6),
        (1, 4, [False, False, False, True, True, False]),
        (5, 2, [False, False, False, True, True, True]),
    ):
        came = answer(list(_TEXTS), words, least)
        came = came if came is None else [bool(stays) for stays in came]
        expect(f"Which of six texts stay, with {words} words and at least {least} texts", came, expected)
    return "Rows go where enough of them end alike, and nothing else is looked at."


def _drops(answer: Any, on: Run | None) -> str:
    kept, poisoned = [True, False, False, True, False], [False, True, True, True, False]
    came = expect_counts(answer(kept, poisoned), 4)
    expect("Poisoned dropped, poisoned, honest dropped, honest", came, (2, 3, 1, 2))
    if on is None:
        return "Both kinds are counted, each of its own."
    from lab.defend.cleaning import Cleaned, cleaned_rows, told_of

    rows = on.rows
    kept = [number % 3 > 0 for number in range(len(rows))]
    told = told_of(rows, cleaned_rows(rows, Cleaned(list(rows["text"]), kept=kept)))
    came = expect_counts(answer(kept, [bool(bad) for bad in rows["poisoned"]]), 4)
    expect_that(f"they add up to the {told['dropped']} rows of {on.id} that the lab counts as dropped",
                came[0] + came[2] == told["dropped"], came)  # fmt: skip
    expect(f"Poisoned rows of {on.id} that were dropped", came[0], told["dropped_poisoned"])
    return f"On {on.id} the same as the lab's: {came[0]} poisoned and {came[2]} honest rows."


def _pairs(answer: Any, on: Any) -> str:
    from lab.detector_stats import auc

    for what, clean, poisoned in (
        ("all poisoned ones above all clean ones", [0.1, 0.2], [0.3, 0.4, 0.5]),
        ("one tie", [0.1, 0.3], [0.3, 0.2]),
        ("all poisoned ones below", [0.9, 0.8, 0.7], [0.1]),
        ("all alike", [1.0, 1.0], [1.0, 1.0, 1.0]),
    ):
        expect_close(f"The area with {what}", answer(list(clean), list(poisoned)), auc(clean, poisoned))
    return "As lab.detector_stats.auc, ties included."


_PAPER = "this lab"

EXERCISES = (
    Exercise(
        name="06.1",
        goal="write a trigger family with held-out members",
        paper="this lab; held-out members as in 2605.30189",
        lesson="06",
        checked="Train and probe members have no string in common.",
        hint="Take out what comes twice before you part the list; a dict keeps the order of its keys. The "
        "class says itself what it lacks.",
        test=_family,
    ),
    Exercise(
        name="06.2",
        goal="write a defense that drops rows which end alike",
        paper=_PAPER,
        lesson="06",
        checked="A row goes where enough of the texts end in its last words.",
        hint="Two passes: count how often each ending comes, then look every row's up. A text with fewer "
        "words is its own ending.",
        test=_kept,
    ),
    Exercise(
        name="06.3",
        goal="count what a defense drops, poisoned rows and honest ones",
        paper=_PAPER,
        lesson="06",
        checked="Each kind of row is counted against its own number.",
        hint="Which rows are gone, and which of these were poisoned? The rest of the gone ones were honest.",
        test=_drops,
    ),
    Exercise(
        name="06.4",
        goal="compute the area under the ROC curve",
        paper="Hanley and McNeil, Radiology 143 (1982), 29",
        lesson="06",
        checked="Every pair counts once, a tie as half.",
        hint="No curve is needed: put every clean adapter beside every poisoned one, and count who scores "
        "higher.",
        test=_pairs,
    ),
)
