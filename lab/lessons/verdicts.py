"""What an exercise is, and what is said of an answer: what was expected and what came, never how to do it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError
from lab.markup import escaped
from lab.registry import Entry

#: Set by tests: an exercise that is not solved then stops the notebook.
STRICT_VARIABLE = "LAB_LESSON_STRICT"
#: Longer values are cut in the middle of a message.
_LONGEST = 160


class MissedError(Exception):
    """An answer that is not what was asked for; the message says what was expected and what came."""


@dataclass(frozen=True)
class Exercise(Entry):
    """One exercise; `name` is lesson and number, such as "00.1", `goal` what the learner writes.

    Attributes:
        lesson: The lesson's number.
        checked: What the visible test looks at, in a sentence.
        hint: What to think of, in a sentence or two; not the solution.
        test: Takes the answer, and the run that it is tried on or None; returns what to say of a right
            answer beyond that, "" for nothing; raises `MissedError` on a wrong one.
    """

    lesson: str
    checked: str
    hint: str
    test: Callable[[Any, Any], str]


@dataclass(frozen=True)
class Verdict:
    """What the visible test says of an answer; true where it is right.

    Attributes:
        exercise: The exercise's id.
        passed: Whether the answer is right.
        told: What was found.
        hint: What to think of; "" where the answer is right.
    """

    exercise: str
    passed: bool
    told: str
    hint: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        head = f"{self.exercise}: {'right' if self.passed else 'not yet'}. {self.told}".rstrip()
        return f"{head}\nHint: {self.hint}" if self.hint else head

    def _repr_html_(self) -> str:
        mark, colour = ("✓ right", "#00735c") if self.passed else ("○ not yet", "#a34a00")
        hint = f"<details><summary>Hint</summary>{escaped(self.hint)}</details>" if self.hint else ""
        return (
            f'<div style="border-left: 4px solid {colour}; padding: .3em .8em">'
            f"<strong>{escaped(self.exercise)} {mark}.</strong> {escaped(self.told)}{hint}</div>"
        )


def judge(exercise: Exercise, answer: Any, on: Any = None) -> Verdict:
    """Put an answer to an exercise's visible test.

    Args:
        exercise: The exercise.
        answer: What the learner wrote.
        on: A run to try it on, where the exercise can be.

    Raises:
        AssertionError: The answer is wrong and `LAB_LESSON_STRICT` is set.
    """
    try:
        verdict = Verdict(exercise.name, True, exercise.test(answer, on) or exercise.checked)
    except MissedError as miss:
        verdict = Verdict(exercise.name, False, str(miss), exercise.hint)
    except LabError:
        raise
    except Exception as error:  # the learner's own code may raise anything
        said = f"Your answer raised {type(error).__name__}: {shown(str(error), quote=False)}."
        verdict = Verdict(exercise.name, False, said, exercise.hint)
    if not verdict and os.environ.get(STRICT_VARIABLE):
        raise AssertionError(repr(verdict))
    return verdict


def expect_any(expected: str, came: Any) -> None:
    """Say that the stub is still there where nothing came; `expected` is the first half of the sentence."""
    if came is None or came is Ellipsis:
        raise MissedError(f"{expected}, and nothing came: the stub is still there.")


def expect(what: str, came: Any, expected: Any) -> None:
    """Hold what came against what was expected; the two are shown where they differ."""
    expect_any(f"{what}: expected {shown(expected)}", came)
    if came != expected:
        raise MissedError(f"{what}: expected {shown(expected)}, came {shown(came)}.")


def expect_close(what: str, came: Any, expected: float, tolerance: float = 1e-6) -> None:
    """Hold a number against what was expected."""
    expect_any(f"{what}: expected {expected:.4g}", came)
    if not abs(float(came) - expected) <= tolerance:
        raise MissedError(f"{what}: expected {expected:.4g}, came {float(came):.4g}.")


def expect_that(what: str, holds: bool, came: Any) -> None:
    """Hold a property that the answer should have; what came is shown where it does not.

    Args:
        what: What should be so, as a sentence without its full stop.
        holds: Whether it is.
        came: What to show.
    """
    if not holds:
        raise MissedError(f"Expected that {what}; came {shown(came)}.")


def expect_parts(what: str, came: Any, count: int) -> tuple[Any, ...]:
    """The parts of an answer that should be a tuple or list of so many."""
    expect_any(f"{what}: expected {count} values", came)
    if not isinstance(came, tuple | list) or len(came) != count:
        raise MissedError(f"{what}: expected {count} values, came {shown(came)}.")
    return tuple(came)


def expect_counts(came: Any, count: int) -> tuple[int, ...]:
    """So many whole numbers, whatever kind of number they came as."""
    parts = expect_parts("The counts", came, count)
    try:
        return tuple(int(part) for part in parts)
    except (TypeError, ValueError, RuntimeError):
        raise MissedError(f"Expected {count} whole numbers, came {shown(came)}.") from None


def shown(value: Any, quote: bool = True) -> str:
    """A value as a message shows it, cut where it is long."""
    text = repr(value) if quote else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
