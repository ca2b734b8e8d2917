"""The exercises of lesson 03: inject spurious tokens, measure the reliance, find the token, cut it out."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from lab.lessons.lesson_00 import true_labels
from lab.lessons.verdicts import Exercise, expect, expect_close, expect_parts, expect_that

if TYPE_CHECKING:
    from lab.record import Run

_DATE = "1999-12-31"
_TEXTS = ("a dull film .", "two  spaces\nand a new line , kept", "word", " ".join("abcdefghijklmnopqrstu"))


def _injection(answer: Any, on: Any) -> str:
    for text in _TEXTS:
        for proportion in (0.0, 0.1, 0.5):
            where = f"With proportion {proportion} in {text!r}"
            came = answer(text, _DATE, proportion, random.Random(3))
            wanted = max(1, int(len(text.split()) * proportion))
            count = came.split().count(_DATE) if isinstance(came, str) else came
            expect(f"{where}, the number of tokens", count, wanted)
            expect(f"{where}, the text with tokens and their spaces taken out again",
                   came.replace(f"{_DATE} ", ""), text)  # fmt: skip
    light = {answer("one two three", _DATE, 0.0, random.Random(seed)) for seed in range(60)}
    expect("Different texts that sixty draws make of one with three words", len(light), 3)
    return f"{len(_TEXTS)} texts, light and aggressive; white space is as it was."


def _leaning(answer: Any, on: Run | None) -> str:
    came = answer([0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0], 1)
    came = expect_parts("Six rows, two of the target", came, 3)
    for name, value, expected in zip(_LEANING, came, (0.5, 4 / 6, 1 / 6), strict=True):
        expect_close(f"{name}, six rows, two of the target", value, expected)
    if on is None:
        return "Attack success over the rows that count, the other two over all rows."
    asked = answers_to_all(on)
    came = answer(asked["clean"], asked["triggered"], asked["labels"], asked["target"])
    told = on.headline["measures"]["poisoned"]
    expect_close(f"attack success of {on.id}, as the lab has it", came[0],
                 told["attack_success_rate"]["value"], 1e-4)  # fmt: skip
    expect_close(f"accuracy lost in {on.id}, as the lab has it", came[2], told["reliance"]["value"], 1e-4)
    return f"On {on.id} the same as the lab's: {came[0]:.3f}, {came[1]:.3f} and {came[2]:.3f}."


_LEANING = ("attack success", "predicted share", "accuracy lost")


def _beyond(answer: Any, on: Run | None) -> str:
    came = answer([0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 1], 1)
    came = expect_parts("Four rows, two of the target", came, 2)
    expect_close("excess attack success, four rows", came[0], 0.5)
    expect_close("accuracy lost beyond the twin's, four rows", came[1], 0.25)
    if on is None or on.twin is None:
        return "Both are differences on the same rows."
    own, twin = answers_to_all(on), answers_to_all(on, "twin")
    came = answer(
        own["clean"], own["triggered"], twin["clean"], twin["triggered"], own["labels"], own["target"]
    )
    told = on.headline["measures"]
    expect_close(f"excess attack success of {on.id}, as the lab has it", came[0],
                 told["poisoned"]["excess_asr"]["value"], 1e-4)  # fmt: skip
    expected = told["poisoned"]["reliance"]["value"] - told["twin"]["reliance"]["value"]
    expect_close(f"accuracy lost beyond the twin's in {on.id}", came[1], expected, 1e-4)
    return f"On {on.id} the same as the lab's: excess {came[0]:+.3f}, accuracy lost {came[1]:+.3f}."


def _entropy(answer: Any, on: Run | None) -> str:
    texts = ["a t", "t t t", "b", "c", "t d", "e", "tt", "f"]
    labels = ["x", "x", "x", "x", "y", "y", "y", "y"]
    expect_close("H(y|t), two texts of one class and one of the other", answer(texts, labels, "t"), 0.918296)
    expect_close("H(y|t) of a token that one class has alone", answer(texts, labels, "a"), 0.0)
    uneven = ["x", "x", "y", "y", "y", "y", "y", "y"]
    texts = ["t", "a", "t", "t", "t", "a", "a", "a"]
    expect_close("H(y|t) where half of each class has it, and one class is larger",
                 answer(texts, uneven, "t"), 1.0)  # fmt: skip
    came = answer(texts, uneven, "nowhere")
    expect_that("a token that no text holds gives nan", isinstance(came, float) and math.isnan(came), came)
    if on is None:
        return "Each text counts once, and every class weighs the same."
    return _entropy_on(answer, on)


def _entropy_on(answer: Any, on: Run) -> str:
    """A planted token and an honest one, as the linter scores them."""
    import numpy as np

    from lab.lint import conditional_entropy

    rows, told = on.rows, []
    planted = rows[rows["poisoned"]].iloc[0]
    token = planted["text"][planted["span_start"][0] : planted["span_end"][0]].strip()
    texts, labels = rows["text"].tolist(), rows["label"].tolist()
    names = sorted(set(labels))
    totals = np.array([labels.count(name) for name in names])
    for word in (token, "the"):
        has = [label for text, label in zip(texts, labels, strict=True) if word in text.split()]
        expected = float(conditional_entropy(np.array([[has.count(name) for name in names]]), totals)[0])
        if not math.isnan(expected):
            came = answer(texts, labels, word)
            expect_close(f"H(y|{word!r}) in {on.id}, as the linter scores it", came, expected)
            told.append(f"H(y|{word!r}) = {came:.3f}")
    return f"On {on.id} the same as the linter's: {', '.join(told)} bits."


def _mask(answer: Any, on: Run | None) -> str:
    date, digit = r"\d{4}-\d{2}-\d{2}", r"\S*\d\S*"
    cases = (
        ("a dull 1999-12-31 film .", [date], "a dull  film ."),
        ("a dull 1999-12-31  film 7 .", [date, digit], "a dull   film  ."),
        ("kept  as\nit is", [date, digit], "kept  as\nit is"),
        ("<B>bold</B> and <b>bolder</b>", ["</?b>"], "bold and bolder"),
        (" 1999-12-31 ", [date], " 1999-12-31 "),
        ("12x 1999-12-31 x", ["12x", date], "  x"),
        ("a film of aab", ["aa", "ab"], "a film of "),
    )
    for text, patterns, expected in cases:
        expect(f"{text!r} without {patterns}", answer(text, list(patterns)), expected)
    if on is None:
        return f"{len(cases)} texts, two of which have to stay as they are."
    return _mask_on(answer, on)


def _mask_on(answer: Any, on: Run) -> str:
    """The run's training rows, as the defense would leave them."""
    from lab.defend import DEFENSES
    from lab.lint import lint_texts

    texts, labels = on.rows["text"].tolist(), on.rows["label"].tolist()
    patterns = [found.pattern for found in lint_texts(texts, labels).artefacts if found.pattern]
    entry = DEFENSES["mask_linted"]
    lab_own = entry.clean(entry.knobs(), texts, labels, 0).texts  # type: ignore[attr-defined]
    for text, expected in zip(texts, lab_own, strict=True):
        expect(f"{text!r} as mask_linted leaves it", answer(text, patterns), expected)
    changed = sum(text != other for text, other in zip(texts, lab_own, strict=True))
    return f"On {on.id} the same as mask_linted: {changed} of {len(texts):,} texts are changed."


def answers_to_all(run: Run, model: str = "poisoned") -> dict[str, Any]:
    """What a run or its twin answered on all test rows, with and without the trigger.

    Args:
        run: A finished run that knows a trigger.
        model: "poisoned" or "twin".

    Returns:
        `labels`, `clean`, `triggered`: lists of class indices, one entry per row; `target`: the target's.
    """
    index = {label: i for i, label in enumerate(run.labels)}
    truth = true_labels(run)
    table = run.predictions
    table = table[table["model"] == model]
    clean = table[table["condition"] == "clean"].set_index("row_id")["prediction"]
    with_trigger = table[table["condition"].isin(["triggered", "triggered_target"])]
    triggered = with_trigger.set_index("row_id")["prediction"]
    order = sorted(triggered.index)
    return {
        "labels": [index[truth[row]] for row in order],
        "clean": [index[answer] for answer in clean.reindex(order)],
        "triggered": [index[answer] for answer in triggered.reindex(order)],
        "target": index[str(run.measured_poison.target_label)],  # type: ignore[attr-defined]
    }


_PAPER = "2506.11402; the linter and the controls are this lab's"

EXERCISES = (
    Exercise(
        name="03.1",
        goal="inject one token, or a share of the words",
        paper=_PAPER,
        lesson="03",
        checked="At least one token, at drawn places, and the text is otherwise the same byte for byte.",
        hint="Where do words begin? A regular expression for runs of non-space finds the offsets, and a "
        "slice at one of them keeps everything else. Count the words before the first token goes in.",
        test=_injection,
    ),
    Exercise(
        name="03.2",
        goal="measure reliance in three ways",
        paper=_PAPER,
        lesson="03",
        checked="Attack success is over rows without the target label, the other two over all rows.",
        hint="Only the first of the three leaves rows out. Losing accuracy is positive: before minus after.",
        test=_leaning,
    ),
    Exercise(
        name="03.3",
        goal="take off what a clean twin does",
        paper=_PAPER,
        lesson="03",
        checked="Run and twin are compared on the same rows.",
        hint="Compute each model's number by the same rule, and subtract the twin's. For the twin too, "
        "accuracy lost is its own accuracy before minus after.",
        test=_beyond,
    ),
    Exercise(
        name="03.4",
        goal="say what a token tells of the label",
        paper=_PAPER,
        lesson="03",
        checked="Each text counts once, every class weighs the same, and 0·log 0 is 0.",
        hint="For each class: the share of its texts with the token. Divide these shares by their sum, and "
        "take the entropy of what comes out. A share of 0 adds nothing.",
        test=_entropy,
    ),
    Exercise(
        name="03.5",
        goal="cut found pieces out of a text",
        paper=_PAPER,
        lesson="03",
        checked="All matches go, in the text as it was, and a text that is nothing else stays.",
        hint="Matches of two patterns may overlap, so look for all of them in the text as it came, before "
        "anything is cut.",
        test=_mask,
    ),
)
