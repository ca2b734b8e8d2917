"""The directive `constants`: a package's public tables of names, each with its comment and what it holds.

Autodoc finds no comment on a constant that a package takes from one of its files, and would print a
registry as one line of Python.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from keys import key_lines
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


class Constants(SphinxDirective):
    """`.. constants:: lab.poison`: every name of its `__all__` that is neither a class nor a function."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = importlib.import_module(self.arguments[0])
        homes = _homes(package)
        lines: list[str] = []
        for name in (n for n in package.__all__ if not _is_described_by_autodoc(getattr(package, n))):
            home = homes.get(name, package.__name__)
            comment = ModuleAnalyzer.for_module(home).find_attr_docs().get(("", name), [])
            lines += [f".. py:data:: {name}", f"   :module: {package.__name__}", ""]
            told = _held(getattr(package, name), frozenset(package.__all__))
            lines += [f"   {line}".rstrip() for line in (*comment, "", *told, "")]
        return self.parse_text_to_nodes("\n".join(lines))


def _is_described_by_autodoc(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def _homes(package: ModuleType) -> dict[str, str]:
    """The module that each name of a package is imported from."""
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    direct = {alias.name: str(node.module) for node in imports for alias in node.names}
    return {name: _homes_further(module, name) for name, module in direct.items()}


def _homes_further(module: str, name: str) -> str:
    """Follow a name through packages that only pass it on."""
    source = importlib.import_module(module)
    if Path(str(source.__file__)).name != "__init__.py":
        return module
    return _homes(source).get(name, module)


def _held(value: Any, described: frozenset[str]) -> Iterator[str]:
    """What a constant holds; `described` are the names of the package, whose keys need not stand here too."""
    if isinstance(value, Mapping):
        yield from (".. list-table::", "   :widths: auto", "")
        for name, entry in value.items():
            yield from (f"   * - ``{name}``", f"     - {_entry(entry)}")
            knobs = getattr(entry, "knobs", None)
            if knobs is not None and knobs.__name__ not in described:
                yield from ("", *(f"       {line}" for line in key_lines(knobs, without="name")), "")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield ", ".join(f"``{item}``" for item in value)
    else:
        yield f"``{value!r}``"


def _entry(entry: Any) -> str:
    """A registry's entry in one line; a plain table's value as it is."""
    if isinstance(entry, str):
        return _literal(entry)
    if isinstance(entry, tuple):
        return ", ".join(f"``{item}``" for item in entry)
    goal = _literal(str(getattr(entry, "goal", "")))
    stage = getattr(entry, "stage", "")
    source = _literal(str(getattr(entry, "paper", "")))
    return "; ".join(filter(None, (f"*{stage}*: {goal}" if stage else goal, source)))


def _literal(text: str) -> str:
    for sign in "\\*|`":
        text = text.replace(sign, f"\\{sign}")
    return text


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("constants", Constants)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
