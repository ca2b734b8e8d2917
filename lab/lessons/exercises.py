"""Every exercise of every lesson, by its id."""

from __future__ import annotations

from typing import Any

from lab.lessons import lesson_00, lesson_01, lesson_02, lesson_03, lesson_04, lesson_05, lesson_06
from lab.lessons.verdicts import Exercise, Verdict, judge
from lab.registry import lookup

#: A lesson's exercises live in a module of its own, `lab/lessons/lesson_NN.py`, in their order.
_LESSONS = (lesson_00, lesson_01, lesson_02, lesson_03, lesson_04, lesson_05, lesson_06)
EXERCISES: dict[str, Exercise] = {e.name: e for lesson in _LESSONS for e in lesson.EXERCISES}


def check(exercise: str, answer: Any, on: Any = None) -> Verdict:
    """Say whether an exercise is solved; nothing is changed by it.

    Args:
        exercise: Its id, such as "00.1".
        answer: What the exercise asks for, mostly a function.
        on: A run, on which the answer is then held against what the lab measured.

    Returns:
        The verdict, true where the answer is right; it shows itself in a notebook.

    Raises:
        LabError: No such exercise.
    """
    return judge(lookup(EXERCISES, exercise, "exercise"), answer, on)
