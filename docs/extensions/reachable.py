"""Two barriers in the pages that Sphinx writes, taken away: axe-core finds both, and calls them serious."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_MENDED = {
    # a block that scrolls on a phone is reached with keys
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    # the arguments of a long signature, one a line, are no list of definitions
    "<dl>\n<dd>": '<dl role="presentation">\n<dd>',
}


def _mend(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    for found, better in _MENDED.items():
        context["body"] = context.get("body", "").replace(found, better)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", _mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
