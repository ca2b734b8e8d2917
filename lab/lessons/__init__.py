"""Lessons: what they are, the runs they use, and the visible tests of their exercises.

The lessons themselves are Jupyter notebooks in `notebooks/`; `lab notebook` opens a copy of them. In one,
`lab.lessons.check("00.1", my_function)` says whether an exercise is solved, and if not, what was expected and
what came.
"""

from lab.lessons.catalogue import LESSONS, Lesson, LessonRun, is_small, shrunk
from lab.lessons.exercises import EXERCISES, check
from lab.lessons.verdicts import Exercise, Verdict

__all__ = [
    "EXERCISES",
    "LESSONS",
    "Exercise",
    "Lesson",
    "LessonRun",
    "Verdict",
    "check",
    "is_small",
    "shrunk",
]
