"""What is asked as references of an audit: clean adapters that are there, or some to be trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from lab.errors import LabError
from lab.registry import Knobs

MOST_REFERENCES = 20
#: Fewer texts than this teach no task.
FEWEST_TEXTS = 40
_AUTO = re.compile(r"auto(?::(.*))?", re.DOTALL)


class ReferencePlan(Knobs):
    """How clean references are trained. The cost is about proportional to count, rows and epochs."""

    # what a cohort's threshold for the search is made for; with fewer there is no verdict, only what moves it
    count: int = Field(5, ge=1, le=MOST_REFERENCES, description="how many references")
    # half a minute on MiniLM and one core
    rows: int = Field(400, ge=FEWEST_TEXTS, description="texts for each, of which it gets its own draw")
    epochs: float = Field(3.0, gt=0, le=1000, description="passes over them")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")


def reference_plan(asked: str) -> ReferencePlan | None:
    """Read "auto" or "auto:8"; None for anything else, which is a path.

    Raises:
        LabError: The number is none, or out of range.
    """
    found = _AUTO.fullmatch(asked)
    if found is None:
        return None
    if found[1] is None:
        return ReferencePlan()
    if not re.fullmatch("[0-9]{1,3}", found[1]) or not 1 <= int(found[1]) <= MOST_REFERENCES:
        raise LabError(
            f"--reference {asked[:40]}: allowed are auto, and auto:1 to auto:{MOST_REFERENCES} for that many."
        )
    return ReferencePlan(count=int(found[1]))


def asked_references(
    references: str | ReferencePlan | Sequence[str | Path],
) -> tuple[ReferencePlan | None, list[str | Path]]:
    """What is asked as references: a plan of training, or paths of adapters.

    Raises:
        LabError: Both are asked for, or more than one plan; or as `reference_plan`.
    """
    if isinstance(references, ReferencePlan):
        return references, []
    given: list[str | Path] = [references] if isinstance(references, str) else list(references)
    plans = [plan for r in given if isinstance(r, str) and (plan := reference_plan(r))]
    if plans and len(given) > 1:
        raise LabError("--reference: give either clean adapters, or auto once to train some; not both.")
    return (plans[0], []) if plans else (None, given)
