"""A lesson's source, cell by cell: stubs, their folded solutions, and the same lesson solved.

A lesson is a file in jupytext's form `py:percent`. A cell that the learner fills in has the tag `exercise`
and the exercise's id as another tag. Its solution stands further down in a Markdown cell, folded:

    # <details><summary>Solution of 00.1</summary>
    #
    # ```python
    # def …
    # ```
    # </details>
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    from nbformat import NotebookNode

_SOLUTION = re.compile(
    r"<details>\s*<summary>Solution of (?P<id>[\w.]+)</summary>\s*```python\n(?P<code>.*?)\n```\s*</details>",
    re.DOTALL,
)
EXERCISE_TAG = "exercise"


def read_source(path: Path) -> NotebookNode:
    """A lesson's source as a notebook without outputs.

    Raises:
        LabError: jupytext is not installed, or the file cannot be read.
    """
    require_notebooks()
    import jupytext

    try:
        return jupytext.read(path, fmt="py:percent")
    except OSError as error:
        raise LabError(f"The lesson {path.name} cannot be read ({error.strerror}).") from None


def require_notebooks() -> None:
    """Refuse where the tools of the extra `notebooks` are missing, and say how to get them."""
    from importlib.util import find_spec

    missing = [name for name in ("jupytext", "nbclient", "nbformat") if find_spec(name) is None]
    if missing:
        raise LabError(f"Lessons need {', '.join(missing)}: pip install 'lora-backdoor-lab[notebooks]'.")


def stubs(notebook: NotebookNode) -> dict[str, str]:
    """The code of the cells that learners fill in, by exercise."""
    return {name: cell.source for cell in notebook.cells for name in _exercise_of(cell)}


def solutions(notebook: NotebookNode) -> dict[str, str]:
    """The code of the folded solutions, by exercise."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return {found["id"]: found["code"] for found in _SOLUTION.finditer(text)}


def solved(notebook: NotebookNode) -> NotebookNode:
    """The same notebook with every stub replaced by its solution.

    Raises:
        LabError: An exercise has no solution.
    """
    import copy

    answers, out = solutions(notebook), copy.deepcopy(notebook)
    for cell in out.cells:
        for name in _exercise_of(cell):
            if name not in answers:
                raise LabError(f"Exercise {name} has no folded solution.")
            cell.source = answers[name]
    return out


def _exercise_of(cell: NotebookNode) -> list[str]:
    tags = cell.metadata.get("tags", []) if cell.cell_type == "code" else []
    return [tag for tag in tags if tag != EXERCISE_TAG] if EXERCISE_TAG in tags else []
