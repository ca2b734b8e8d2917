"""What every lesson keeps to; each file in `notebooks/` is looked at."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

import lab
from lab.lessons import LESSONS
from lab.lessons.building import LARGEST, dumped, in_step
from lab.lessons.sources import read_source
from lab.paths import notebooks_dir

SOURCES = sorted(notebooks_dir().glob("*.py"))
BUILT = sorted(notebooks_dir().glob("*.ipynb"))
ABSOLUTE = re.compile(r"(?<![\w./:])/(?:root|home|work|Users|tmp|opt|mnt|usr)/\w|[A-Z]:\\\\")
INSTALLS = re.compile(r"(?:^|\s)[%!]?\s*(?:pip|pip3|conda|uv|apt|apt-get)\s+install")


def public_names():
    """Every function and class that the package defines, by name."""
    found = set()
    for path in Path(lab.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found.add(node.name)
    return found


def code_cells(source):
    return [cell.source for cell in source.cells if cell.cell_type == "code"]


def test_every_source_is_a_lesson_and_built():
    assert [lesson.source for lesson in LESSONS.values()] == SOURCES
    assert [lesson.built for lesson in LESSONS.values()] == BUILT


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_source_keeps_to_the_rules(path):
    text, source = path.read_text(encoding="utf-8"), read_source(path)
    assert not ABSOLUTE.findall(text)
    assert not INSTALLS.findall("\n".join(code_cells(source)))
    code = "\n".join(code_cells(source))
    own = {n.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assert not own & public_names(), "call the package's own"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in source.cells) == 1
    assert "assert " in code
    told = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    for part in ("**Claim.**", "does not show", "negative control", "To read on"):
        assert part.lower() in told.lower(), part


@pytest.mark.parametrize("path", BUILT, ids=lambda p: p.stem)
def test_a_built_notebook_keeps_to_the_rules(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert not ABSOLUTE.findall(text)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/png", "application/vnd.plotly.v1+json"} <= kinds
    assert "application/vnd.jupyter.widget-view+json" not in kinds
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert "plotly.js v" not in text, "no library is kept in an output"


@pytest.mark.parametrize("lesson", [e for e in LESSONS.values() if e.built in BUILT], ids=lambda e: e.name)
def test_a_built_notebook_holds_the_cells_of_its_source(lesson):
    assert in_step(lesson), f"run lab lessons build --lesson {lesson.name}"


def test_a_source_that_was_changed_is_noticed(tmp_path, monkeypatch):
    lesson = LESSONS["00"]
    text = lesson.source.read_text(encoding="utf-8")
    (tmp_path / lesson.built.name).write_text(dumped(read_source(lesson.source)), encoding="utf-8")
    monkeypatch.setattr("lab.lessons.catalogue.notebooks_dir", lambda: tmp_path)
    for more, same in (("", True), ("\n# %%\n1\n", False)):
        (tmp_path / lesson.source.name).write_text(text + more, encoding="utf-8")
        assert in_step(lesson) is same
