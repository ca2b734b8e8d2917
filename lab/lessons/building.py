"""Building lessons: run the source from top to bottom, and keep what it shows beside it.

The built notebook holds every figure in its interactive form and as a PNG, since code hosts run no
JavaScript.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, RunFailedError
from lab.files import write_text
from lab.lessons.catalogue import SIZE_VARIABLE, Lesson
from lab.lessons.sources import read_source, require_notebooks
from lab.lessons.verdicts import STRICT_VARIABLE
from lab.paths import import_path, runs_dir

if TYPE_CHECKING:
    from nbformat import NotebookNode

#: A built notebook is looked at on code hosts and kept in git.
LARGEST = 1_000_000
#: Seconds that one cell may take: a training on a slow laptop.
_PATIENCE = 3600
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
#: Plotly's interactive form beside a PNG; none of them fetches anything.
_RENDERER = "plotly_mimetype+png"


def build_lesson(lesson: Lesson, *, small: bool = False, runs: str | Path | None = None) -> Path:
    """Run a lesson's source as it stands, stubs included, and write the built notebook beside it.

    Args:
        lesson: The lesson.
        small: At the small size.
        runs: The runs folder.

    Returns:
        The built notebook.

    Raises:
        LabError: A tool is missing, a cell failed, or the notebook is too large.
    """
    notebook = execute(read_source(lesson.source), small=small, runs=runs, renderer=_RENDERER)
    text = dumped(notebook)
    if len(text.encode()) > LARGEST:
        raise LabError(
            f"{lesson.built.name} would have {len(text.encode()):,} bytes; allowed are {LARGEST:,}."
        )
    write_text(lesson.built, text)
    return lesson.built


def execute(
    notebook: NotebookNode,
    *,
    small: bool = False,
    strict: bool = False,
    runs: str | Path | None = None,
    renderer: str = "plotly_mimetype",
) -> NotebookNode:
    """Run a notebook in a kernel of its own, in an empty folder.

    Args:
        notebook: What to run; it is changed in place and returned.
        small: At the small size.
        strict: Stop where an exercise is not solved.
        runs: The runs folder.
        renderer: How plotly shows figures.

    Raises:
        RunFailedError: A cell failed; the message holds its error.
    """
    require_notebooks()
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook.metadata["kernelspec"] = dict(_KERNEL)
    environment = {
        **_without(os.environ, STRICT_VARIABLE),
        SIZE_VARIABLE: "small" if small else "full",
        "LAB_RUNS": str(runs_dir(runs)),
        "PYTHONPATH": import_path(),
        "PLOTLY_RENDERER": renderer,
        **({STRICT_VARIABLE: "1"} if strict else {}),
    }
    if sys.platform == "win32":  # the kernel's sockets need the older loop there
        asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=_PATIENCE,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            store_widget_state=False,
            record_timing=False,
        )
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            raise RunFailedError(f"A cell failed: {error}") from None
    return notebook


def dumped(notebook: NotebookNode) -> str:
    """A notebook as the text of its file: cells numbered, warnings of this machine left out."""
    import nbformat

    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"  # drawn at random otherwise, so that every build would differ
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.get("outputs", []) if not _is_noise(output)]
    notebook.metadata = {
        "kernelspec": dict(_KERNEL),
        "language_info": {"name": "python"},
    }
    return str(nbformat.writes(notebook, version=4)) + "\n"


def in_step(lesson: Lesson) -> bool:
    """Whether the built notebook holds the cells of the source, word for word."""
    import nbformat

    if not lesson.built.is_file():
        return False
    built = nbformat.read(lesson.built, as_version=4)
    return _cells(built) == _cells(read_source(lesson.source))


def _cells(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def _is_noise(output: Any) -> bool:
    """Progress and warnings of the machine that built it: standard error, and widgets, which are not kept."""
    if output.get("output_type") == "stream":
        return bool(output["name"] == "stderr")
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def _without(environment: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key != name}
