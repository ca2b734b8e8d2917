"""The directive `measured`: numbers of `data/reference/`, read when the site is built.

    ```{measured} 2605.30189.csv
    :columns: detector | AUC | poisoned found
    search, eleven references | minilm.search.auc | minilm.search.recall.at0.05
    ```

Each line is a name and the ids of the numbers beside it; each number is shown with its interval and n. The
role {measured}`2605.30189:minilm.search.auc` gives one number within a sentence.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective, SphinxRole

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

REFERENCE = Path(__file__).resolve().parents[2] / "data" / "reference"


class Measured(SphinxDirective):
    """A table of measured numbers; an id that the file does not have is an error of the build."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {"columns": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        file = REFERENCE / self.arguments[0]
        self.env.note_dependency(str(file))
        found = read_reference(file)
        header = [cell.strip() for cell in self.options["columns"].split("|")]
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: auto", "", *_row(header)]
        for line in filter(str.strip, self.content):
            name, *ids = (cell.strip() for cell in line.split("|"))
            if missing := [i for i in ids if i not in found]:
                raise self.error(f"{file.name} has no line {missing[0]!r}")
            lines += _row([name, *(shown(found[i]) for i in ids)])
        return rst_nodes(self, lines)


class Number(SphinxRole):
    """One measured number: the file's name without its ending, a colon, the id."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        from docutils import nodes

        name, _, claim = self.text.partition(":")
        file = REFERENCE / f"{name}.csv"
        self.env.note_dependency(str(file))
        line = read_reference(file).get(claim)
        if line is None:
            why = self.inliner.reporter.error(f"{file.name} has no line {claim!r}", line=self.lineno)
            return [], [why]
        return [nodes.Text(shown(line))], []


def rst_nodes(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    """What reStructuredText means, also on a page of Markdown."""
    from docutils import nodes
    from docutils.parsers.rst import Parser
    from docutils.utils import new_document

    document = new_document("measured", directive.state.document.settings)
    Parser().parse("\n".join(lines), document)
    return list[nodes.Node](document.children)


def read_reference(file: Path) -> dict[str, dict[str, str]]:
    """The lines of a file of measured numbers by their id."""
    with file.open(encoding="utf-8", newline="") as stream:
        return {line["claim_id"]: line for line in csv.DictReader(stream)}


def shown(line: dict[str, str]) -> str:
    """`.86 [.76, .94], n = 90`; a number without n or interval is not shown."""
    if not all(line[key] for key in ("value", "low", "high", "n")):
        raise ValueError(f"{line['claim_id']} has no interval or no n")
    value, low, high = (digits(float(line[key])) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}], n\u00a0=\u00a0{int(line['n']):,}"


def digits(value: float) -> str:
    """Two digits, without the zero before the point."""
    text = f"{abs(value):.2f}"
    return ("−" if value < 0 and float(text) else "") + text.removeprefix("0")


def _row(cells: list[str]) -> list[str]:
    return [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(cells)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("measured", Measured)
    app.add_role("measured", Number())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
