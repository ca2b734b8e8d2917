"""`lab lint`: what predicts a dataset's labels too well."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli_options import JsonOption, check_csv, print_json, write_csv
from lab.paths import expanded


def lint_command(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A bundled dataset, a CSV, TSV, JSONL or Parquet file, or a hub id.", metavar="DATASET"
        ),
    ],
    text: Annotated[str, typer.Option(help="The column with the texts (own files and hub data).")] = "text",
    label: Annotated[str, typer.Option(help="The column with the labels.")] = "label",
    least: Annotated[int, typer.Option(help="Texts of a class that must have a feature.", min=2)] = 10,
    error_rate: Annotated[
        float, typer.Option(help="Expected share of false findings, above 0 and below 1.")
    ] = 1e-3,
    words: Annotated[int, typer.Option(help="How many words of the vocabulary to print.", min=0)] = 20,
    html: Annotated[Path | None, typer.Option(help="Also write the findings as one HTML file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write all findings to this CSV file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for marks that give a label away: exit code 0 no artefact found, 1 some found."""
    from lab.console import ProgressView, print_lint
    from lab.errors import LabError
    from lab.lint import LintSettings, lint_dataset

    if csv:
        check_csv(csv)
    if html and not expanded(html).parent.is_dir():
        raise LabError(f"--html {str(html)!r}: there is no folder {str(html.parent)!r}.")
    if not 0 < error_rate < 1:
        raise LabError(f"--error-rate {error_rate:g}: allowed is what lies between 0 and 1.")
    settings = LintSettings(least=least, error_rate=error_rate)
    with ProgressView(quiet=as_json) as view:
        view({"kind": "status", "stage": "rows"})
        report = lint_dataset(
            dataset,
            text=text,
            label=label,
            settings=settings,
            on_progress=view.counting("lint"),
        )
    if csv:
        write_csv(report.to_frame(), csv)
    if html:
        from lab.lint.page import write_lint_page

        write_lint_page(report, html)
    if as_json:
        print_json(report.to_dict())
    else:
        print_lint(report, words)
    if report.artefacts:
        raise typer.Exit(1)
