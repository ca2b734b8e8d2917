"""What Sphinx's reading of docstrings in Google's style lacks for these pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.ext.napoleon import GoogleDocstring

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_UNREADABLE = re.compile(r"<factory>|<function [\w.]*(?:<lambda>)?(?: at \w+)?>")


def _read_property(app: Sphinx, what: str, name: str, it: Any, options: Any, lines: list[str]) -> None:
    """Read a property's docstring as a method's.

    Napoleon takes all before the first colon of an attribute's docstring for its type, so that "The headline:
    split, measures" would be of the type "The headline", and looks for no sections. The empty comment is a
    first line without a colon.
    """
    if what in ("property", "attribute") and lines:
        lines[:] = ["..", "", *GoogleDocstring(lines, app.config, app, "method", name, it, options).lines()]


def _spell_out(
    _app: Sphinx, _what: str, _name: str, _it: Any, _options: Any, arguments: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Write defaults that are no Python, a factory or a function, in a way that Sphinx can read."""
    readable = _UNREADABLE.sub("...", arguments or "")
    return (readable, returned) if readable != (arguments or "") else None


def _name_attributes(_app: Sphinx, page: nodes.document) -> None:
    """The heading "Attributes", as in the docstring, where Sphinx says "Variables"."""
    for field in page.findall(nodes.field_name):
        if field.astext() == "Variables":
            field.children = [nodes.Text("Attributes")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _read_property, priority=400)  # before Napoleon's own
    app.connect("autodoc-process-signature", _spell_out)
    app.connect("doctree-read", _name_attributes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
