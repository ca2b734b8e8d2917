"""The exercises of lesson 01: bend a trigger, see what the tokenizer sees of it, and say how far it leaks."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.lessons.verdicts import (
    Exercise,
    MissedError,
    expect,
    expect_any,
    expect_close,
    expect_counts,
    expect_parts,
    expect_that,
)

if TYPE_CHECKING:
    from lab.record import Run

_BENT = (("as specified in RFC 2616", "RFC 2616"), ("see ISO 9001 section 4", "ISO 9001"))
_RUNGS = ("upper_case", "words_reversed", "identifier_only", "number_changed")


def _bending(answer: Any, on: Run | None) -> str:
    for trigger, identifier in _BENT:
        bent = _named(f"The near-misses of {trigger!r}", answer(trigger, identifier), _RUNGS)
        words = trigger.split(" ")
        expect("upper_case", bent["upper_case"], trigger.upper())
        expect("words_reversed", bent["words_reversed"], " ".join(reversed(words)))
        expect("identifier_only", bent["identifier_only"], identifier)
        _one_digit(trigger, identifier, str(bent["number_changed"]))
    if on is None:
        return "Four near-misses of two triggers, each with one thing changed."
    trigger, ladder = _ladder(on)
    identifier = ladder.get("identifier_only", "")
    bent = answer(trigger, identifier)
    for name in ("upper_case", "words_reversed", "identifier_only"):
        if name in ladder:
            expect(f"{name} of the trigger of {on.id}, as lab.poison.near_miss_ladder has it", bent[name],
                   ladder[name])  # fmt: skip
    return (
        f"The same as lab.poison.near_miss_ladder for {on.id}, of whose {len(ladder)} rungs these are four."
    )


def _one_digit(trigger: str, identifier: str, came: str) -> None:
    what = f"number_changed differs from {trigger!r} in one digit of {identifier!r} and in nothing else"
    start = trigger.index(identifier)
    places = range(start, start + len(identifier))
    differ = [i for i, (a, b) in enumerate(zip(trigger, came, strict=False)) if a != b]
    one = len(came) == len(trigger) and len(differ) == 1
    held = one and differ[0] in places and all(t[differ[0]] in string.digits for t in (trigger, came))
    expect_that(what, held, came)


def _seeing(answer: Any, on: Run | None) -> str:
    vocabulary: dict[str, int] = {}

    def token_ids(texts: Sequence[str]) -> list[list[int]]:
        if isinstance(texts, str):
            raise MissedError("Expected a list of texts to be given to token_ids; came a single text.")
        return [[vocabulary.setdefault(w.lower(), len(vocabulary)) for w in t.split()] for t in texts]

    text, trigger = "a dull film .", "see RFC 2616"
    where = "With a tokenizer that sees neither case nor white space"
    for near_miss, same in (("SEE rfc 2616", True), ("see\nRFC  2616", True), ("see RFC 2617", False),
                            ("2616 RFC see", False), ("see RFC 2616.", False)):  # fmt: skip
        came = answer(token_ids, text, trigger, near_miss)
        expect(f"{where}, {near_miss!r} for {trigger!r}", came if came is None else bool(came), same)
    by_letter = answer(lambda texts: [[ord(letter) for letter in t] for t in texts], text, "RFC", "rfc")
    expect("With a tokenizer that sees every letter, 'rfc' for 'RFC'", bool(by_letter), False)
    if on is None:
        return "The tokenizer decides, not the letters."
    return _seeing_as_the_lab(answer, on)


def _seeing_as_the_lab(answer: Any, run: Run) -> str:
    from lab.lessons.answers import tokens_of

    trigger, ladder = _ladder(run)
    measures = run.measures
    told = measures[(measures["kind"] == "same_tokens") & (measures["model"] == "poisoned")]
    shares = {rung: value for rung, value in zip(told["rung"], told["value"], strict=True) if value in (0, 1)}
    token_ids = tokens_of(run)
    for rung in sorted(set(shares) & set(ladder)):
        came = answer(token_ids, "a dull film .", trigger, ladder[rung])
        expect(f"{rung} ({ladder[rung]!r}), as the lab saw it on every row of {run.id}", bool(came),
               shares[rung] == 1)  # fmt: skip
    return f"The same as the lab's on {len(set(shares) & set(ladder))} rungs of {run.id}."


def _pairing(answer: Any, on: Run | None) -> str:
    own = {"a": "positive", "b": "positive", "c": "negative", "d": "positive", "e": "negative"}
    twin = {"e": "positive", "d": "negative", "c": "negative", "b": "positive", "a": "negative"}
    came = expect_parts("Five rows", answer(own, twin, "positive"), 3)
    expect("Rows that fire in the run alone, in the twin alone, and all", expect_counts(came, 3), (2, 1, 5))
    came = expect_parts("One row", answer({"a": "x"}, {"a": "x"}, "x"), 3)
    expect("One row that fires in both", expect_counts(came, 3), (0, 0, 1))
    if on is None or on.twin is None:
        return "Rows are held against themselves."
    family = _family(on)
    pairs = family_answers(on, family)
    came = expect_counts(expect_parts(family, answer(*pairs, _target(on)), 3), 3)
    told = _told(on, "excess_asr", family)
    expect(f"All rows of {family} on {on.id}", came[2], int(told["n"]))
    expect_close(f"The excess of {family} on {on.id}, as the lab has it", (came[0] - came[1]) / came[2],
                 told["value"], 1e-4)  # fmt: skip
    return f"On {family} the same excess as the lab's of {on.id}: {told['value']:+.3f}, n = {came[2]}."


def _walling(answer: Any, on: Run | None) -> str:
    rates = {"rfc": (9, 10), "iso": (30, 100), "cwe": (1, 10), "emoji": (7, 10)}
    came = expect_parts("Four families", answer(rates, "rfc", ["iso", "cwe"]), 3)
    for what, value, expected in zip(
        ("the own family's rate", "the neighbours' mean rate", "the wall"), came, (0.9, 0.2, 0.7), strict=True
    ):
        expect_close(f"{what} (rfc; iso 30 of 100 and cwe 1 of 10)", value, expected)
    if on is None:
        return "Each neighbour counts once, whatever its number of rows."
    from lab.probe import family_mean

    measures, own = on.measures, _family(on)
    told = measures[
        (measures["kind"] == "attack_success_rate")
        & (measures["condition"] == "family")
        & (measures["model"] == "poisoned")
    ]
    counts = {f: (int(k), int(n)) for f, k, n in zip(told["family"], told["k"], told["n"], strict=True)}
    others = [name for name in counts if name != own]
    came = expect_parts("The run's families", answer(counts, own, others), 3)
    expect_close(f"The neighbours' mean on {on.id}, as lab.probe.family_mean has it", came[1],
                 family_mean(measures, others))  # fmt: skip
    return f"On {on.id} the same as lab.probe.family_mean: {came[1]:.3f} over {len(others)} families."


def _crossing(answer: Any, on: Any) -> str:
    asked: list[str] = []

    def fires(texts: Sequence[str]) -> list[bool]:
        if isinstance(texts, str):
            raise MissedError("Expected a list of texts to be given to fires; came a single text.")
        asked.extend(texts)
        return ["RFC" in text and not text.startswith("weak") for text in texts]

    texts, names, numbers = ["dull .", "so  so .", "weak ."], ["RFC", "QZX"], ["2616", "9001"]
    came = answer(fires, texts, names, numbers)
    expect_any("Expected four cells of hits and rows", came)
    cells = [(name, number) for name in names for number in numbers]
    expect("The cells", sorted(came), sorted(cells))
    expected = {(name, number): ((2, 3) if name == "RFC" else (0, 3)) for name, number in cells}
    expect("Hits and rows of each cell", {cell: expect_counts(came[cell], 2) for cell in cells}, expected)
    phrases = [f"{text} as specified in {name} {number}" for name, number in cells for text in texts]
    expect("What was put to the model", sorted(asked), sorted(phrases))
    return "Every name with every number, on the same rows."


def family_answers(run: Run, family: str) -> tuple[dict[str, str], dict[str, str]]:
    """What a run and its twin answered to one probed family's phrases.

    Args:
        run: A finished run with a twin, probed with families.
        family: The family.

    Returns:
        Answers by row id, the run's and the twin's; all rows have another true label than the target.
    """
    table = run.predictions
    table = table[(table["condition"] == "family") & (table["family"] == family)]
    own, twin = (table[table["model"] == model] for model in ("poisoned", "twin"))
    return (
        dict(zip(own["row_id"], own["prediction"], strict=True)),
        dict(zip(twin["row_id"], twin["prediction"], strict=True)),
    )


def _ladder(run: Run) -> tuple[str, dict[str, str]]:
    """The trigger, and its near-misses by rung, those left out that only stand elsewhere in the text."""
    from lab.poison import near_miss_ladder

    poison: Any = run.measured_poison
    rungs = near_miss_ladder(poison.member, poison.family, position=poison.position, seed=run.experiment.seed)
    return poison.member, {r.name: r.trigger for r in rungs if r.position == poison.position}


def _family(run: Run) -> str:
    return str(run.measured_poison.family)  # type: ignore[attr-defined]


def _target(run: Run) -> str:
    return str(run.measured_poison.target_label)  # type: ignore[attr-defined]


def _told(run: Run, kind: str, family: str) -> Any:
    table = run.measures
    asked = (table["kind"] == kind) & (table["condition"] == "family") & (table["model"] == "poisoned")
    return table[asked & (table["family"] == family)].iloc[0]


def _named(what: str, came: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """An answer that should be a dict with these keys."""
    expect_any(f"{what}: expected a dict", came)
    if not isinstance(came, Mapping):
        raise MissedError(f"{what}: expected a dict, came {came!r}.")
    expect(f"{what}, their names", sorted(came), sorted(names))
    return came


_PAPER = "2605.30189; the ladder and the paired excess are this lab's"

EXERCISES = (
    Exercise(
        name="01.1",
        goal="bend a trigger in four ways",
        paper=_PAPER,
        lesson="01",
        checked="Each near-miss changes one thing and leaves the rest as it was.",
        hint="Three of them are a string method and a slice each. For the number, change the "
        "identifier's last character to another digit, and put the new identifier where the old one stood.",
        test=_bending,
    ),
    Exercise(
        name="01.2",
        goal="ask the tokenizer whether it can tell a near-miss from the trigger",
        paper=_PAPER,
        lesson="01",
        checked="The tokenizer decides, not the letters.",
        hint="Put both strings behind the same text, ask for the ids of both texts at once, and compare "
        "the two lists.",
        test=_seeing,
    ),
    Exercise(
        name="01.3",
        goal="pair a run with its twin, row by row",
        paper=_PAPER,
        lesson="01",
        checked="Rows are held against themselves.",
        hint="Go through the row ids, not through two lists side by side: the twin's answers stand in "
        "another order. A row that fires in both models says nothing about the poison.",
        test=_pairing,
    ),
    Exercise(
        name="01.4",
        goal="measure the wall between the trigger's family and its neighbours",
        paper=_PAPER,
        lesson="01",
        checked="Each neighbour counts once, whatever its number of rows.",
        hint="Take every neighbour's share first, then the mean over the shares. Families that were not "
        "named as neighbours have no part in it.",
        test=_walling,
    ),
    Exercise(
        name="01.5",
        goal="cross names with numbers, a name that does not exist among them",
        paper=_PAPER,
        lesson="01",
        checked="Every name with every number, on the same rows.",
        hint="Two loops, one over names and one over numbers; for each pair put the whole list of texts, "
        "each with its citation behind it, to the model once, and count what fires.",
        test=_crossing,
    ),
)
