"""A linter's report as one HTML file that makes no request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab import page
from lab.page import Html
from lab.paths import expanded

if TYPE_CHECKING:
    from lab.lint.findings import Finding, LintReport

_WORDS = 100


def write_lint_page(report: LintReport, path: str | Path) -> Path:
    """Write a report's page; a file that is there is replaced as a whole.

    Raises:
        LabError: The place cannot be written.
    """
    from lab.files import write_text

    path = expanded(path)
    write_text(path, lint_html(report))
    return path


def lint_html(report: LintReport) -> str:
    """The page of a report."""
    found = len(report.artefacts)
    told = (
        f"{found} mark{'s' * (found != 1)} that no reader decides by give{'s' * (found == 1)} a label away."
    )
    return page.document(
        f"Lint of {report.name} · LoRA backdoor lab",
        page.paragraph("Dataset linter of the LoRA backdoor lab", "eyebrow"),
        page.heading(report.name, 1),
        page.warning(
            "Artefacts found." if found else "No artefact found.",
            told if found else "This says what was looked for and not found, not that the data are sound.",
            bool(found),
        ),
        page.facts(
            [
                ("texts", f"{report.rows:,}"),
                *((label, f"{n:,}") for label, n in report.labels.items()),
                ("features tested", f"{report.features:,}"),
                ("expected share of false findings", f"{report.settings.get('error_rate', '–')}"),
            ]
        ),
        *([page.section("Artefacts", 2, *_artefacts(report.artefacts))] if found else []),
        page.section(
            "Vocabulary",
            2,
            page.paragraph(
                "Words that predict a label, strongest first. Honest ones are among them.", "note"
            ),
            _table("Words and what they speak for", report.vocabulary[:_WORDS]),
        ),
    )


def _artefacts(findings: Sequence[Finding]) -> list[Html]:
    parts = [_table("Marks and what they speak for", findings)]
    for finding in findings:
        parts += [
            page.quotation(text, f"{finding.what}, row {row + 1}") for row, text in finding.examples[:1]
        ]
    return parts


def _table(caption: str, findings: Sequence[Finding]) -> Html:
    head = ["what", "kind", "speaks for", "texts of the class", "all texts", "share of the class", "purity",
            "H(y|t), bits", "PMI, bits", "z", "q"]  # fmt: skip
    lines = [
        [
            f.what, f.kind, f.label, f"{f.k:,}", f"{f.n:,}", f"{100 * f.k / f.of:.1f} %",
            f"{f.purity:.3f}", f"{f.entropy:.3f}", f"{f.pmi:.2f}", f"{f.z:.1f}", f"{f.q:.1g}",
        ]
        for f in findings
    ]  # fmt: skip
    return page.table(caption, head, lines, numbers=range(3, 11))
