"""What every lesson keeps to; each file in `notebooks/` is looked at."""

import ast
import functools
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
ABSOLUTE = re.compile(
    r"(?<![\w./:~>])/(?:root|home|work|Users|Volumes|tmp|opt|mnt|usr|var|etc|srv|data|content)/\w"
    r"|file:///|(?<![\w.])~/\w|\b[A-Z]:[\\/]+\w"
)
INSTALLS = re.compile(
    r"(?:^|[\s%!\"'])(?:pip3?|conda|mamba|uv|apt|apt-get|npm)[\"',\s]+(?:-\S+\s+)*(?:pip\s+)?install\b"
)
#: What every lesson has, in its words.
PARTS = (
    "**Claim.**", "You will\n", "## See it happen", "does not show", "negative control",
    "The picture to remember", "To read on",
)  # fmt: skip


@functools.cache
def public_names():
    """Every function and class that the package defines, by name."""
    found = set()
    for path in Path(lab.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found.add(node.name)
    return found


def broken_rules(source):
    """What a lesson does that no lesson may, in a word each.

    Args:
        source: The notebook, as `read_source` gives it.
    """
    cells = {kind: [c.source for c in source.cells if c.cell_type == kind] for kind in ("code", "markdown")}
    code, told = ("\n".join(cells[kind]) for kind in ("code", "markdown"))
    tree = ast.parse(re.sub(r"^\s*[!%].*$", "", code, flags=re.M))  # a notebook's own commands are no Python
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    tests = [ast.unparse(n.test) for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    tags = [tag for cell in source.cells for tag in cell.metadata.get("tags", [])]
    picture = told.find("The picture to remember") >= 0 and re.search(r"figures?\.\w+\(", code)
    broken = {
        "absolute path": ABSOLUTE.search(code + told),
        "installs": INSTALLS.search(code),
        "has the package's function": own & public_names(),
        "parameter cell": tags.count("parameters") != 1,
        "three to six exercises": not 3 <= tags.count("exercise") <= 6,
        "asserts nothing at the small size": all("SMALL" in test for test in tests),
        "figure of the lab's": not picture,
        "something to read": told[told.find("To read on") :].count("\n- ") < 3,
        **{f"no {part.strip()!r}": part.lower() not in f"{told}\n".lower() for part in PARTS},
    }
    return [name for name, is_so in broken.items() if is_so]


def test_every_source_is_a_lesson_and_built():
    assert [lesson.source for lesson in LESSONS.values()] == SOURCES
    assert [lesson.built for lesson in LESSONS.values()] == BUILT


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_source_keeps_to_the_rules(path):
    assert not broken_rules(read_source(path))


def more_code(text):
    return lambda s: s + f"\n# %%\n{text}\n"


# each rule, and a change to a lesson that breaks it
@pytest.mark.parametrize(
    ("rule", "change"),
    [
        *[
            ("absolute path", more_code(f"open({path!r})"))
            for path in ("/var/log/x", "/data/x", "/content/x", "~/x", "C:/Documents/x", "C:\\Documents\\x", "file:///x")
        ],
        *[
            ("installs", more_code(f"# {text}"))
            for text in ("!pip install x", "%pip install x", "!mamba install x", "!pip3 -q install x",
                         "!apt-get -qq install x", "uv pip install x")
        ],
        ("installs", more_code('import subprocess; subprocess.run(["pip", "install", "x"])')),
        ("has the package's function", more_code("def audit_adapter():\n    pass")),
        ("parameter cell", lambda s: s.replace('tags=["parameters"]', "")),
        ("three to six exercises", lambda s: s.replace('tags=["exercise"', 'tags=["other"')),
        *[
            ("asserts nothing at the small size", lambda s, to=to: re.sub(r"^assert ", to, s, flags=re.M))
            for to in ("", "assert SMALL or ")
        ],
        ("figure of the lab's", lambda s: s.replace("run.figure.", "run.numbers.")),
        ("something to read", lambda s: s[: s.rindex("# - arXiv 2605")]),
        *[(f"no {part.strip()!r}", lambda s, p=part: s.replace(p.strip(), "so")) for part in PARTS],
    ],
)  # fmt: skip
def test_a_lesson_that_breaks_a_rule_is_found(tmp_path, rule, change):
    text = LESSONS["00"].source.read_text(encoding="utf-8")
    (tmp_path / "changed.py").write_text(change(text), encoding="utf-8")
    assert rule in broken_rules(read_source(tmp_path / "changed.py"))


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
