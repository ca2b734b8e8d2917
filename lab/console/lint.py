"""What a linter found, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.console.words import ATTACK, QUIET, highlighted, percent, standard_output, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.lint import Finding, LintReport


def print_lint(report: LintReport, words: int = 20, console: Console | None = None) -> None:
    """Print a linter's report: the artefacts with a text each, then the first words of the vocabulary.

    Args:
        report: The report.
        words: How many words.
        console: Where to; standard output by default.
    """
    console = console or standard_output()
    classes = ", ".join(f"{n:,} {label}" for label, n in report.labels.items())
    console.print(
        Text(f"{report.name}: {report.rows:,} texts ({classes}), {report.features:,} features tested")
    )
    console.print()
    if report.artefacts:
        console.print(_table("Artefacts: marks that no reader decides by", report.artefacts))
        for finding in report.artefacts[:5]:
            _example(console, finding)
    else:
        console.print(Text("No artefact found: no markup, identifier, phrase, place, format or odd "
                           "character gives a label away.", style="bold"))  # fmt: skip
    if words and report.vocabulary:
        console.print()
        console.print(
            _table("Vocabulary: words that predict a label, honest ones too", report.vocabulary[:words])
        )


def _table(title: str, findings: Sequence[Finding]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("what", "kind", "speaks for"):
        table.add_column(name, overflow="fold")
    for name in ("texts", "of the class", "purity", "H(y|t)", "z"):
        table.add_column(name, justify="right", no_wrap=True)
    for f in findings:
        table.add_row(
            Text(visible(f.what)), Text(f.kind, style=QUIET), Text(visible(f.label), style=ATTACK),
            f"{f.k:,} of {f.n:,}", percent(f.k / f.of), percent(f.purity), f"{f.entropy:.2f}", f"{f.z:.1f}",
        )  # fmt: skip
    return table


def _example(console: Console, finding: Finding) -> None:
    from lab.lint import flagged_spans

    if not finding.examples:
        return
    row, text = finding.examples[0]
    spans = flagged_spans(text, [finding])
    shown = highlighted(text, [start for start, _ in spans], [end for _, end in spans])
    console.print()
    console.print(Text(f"{visible(finding.what)}, row {row + 1}:", style=QUIET))
    console.print(shown)
