"""`lab audit`: a verdict on an adapter that nobody here trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lab.cli_options import DeviceOption, RunsOption
from lab.paths import expanded


def audit_command(
    adapter: Annotated[
        str,
        typer.Argument(help="A peft folder, a safetensors file, a zip, or a run's id.", metavar="ADAPTER"),
    ],
    base: Annotated[
        str, typer.Option(help="Its base: bundled name, hub id or folder (default: what it names).")
    ] = "",
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            help="A clean adapter for the same task; may be repeated. Or auto (auto:8 for eight): train some "
            "on the adapter's own answers to texts without any prefix.",
        ),
    ] = None,
    rows: Annotated[str, typer.Option(help="Texts of its task, without labels: a .txt or a table.")] = "",
    labels: Annotated[
        str,
        typer.Option(
            help="Label names in the order of its outputs, with commas; of a language model's adapter the "
            "words that it answers, needed where it is no run."
        ),
    ] = "",
    system: Annotated[
        str | None,
        typer.Option(
            help="System prompt for a language model's adapter, empty for none (default: its run's, or that "
            "of the preset injection-classifier).",
            show_default=False,
        ),
    ] = None,
    battery: Annotated[str, typer.Option(help="Which battery of prefixes to put to it.")] = "broad",
    seed: Annotated[
        int, typer.Option(help="Of the drawn rows, and of references that are trained.", min=0)
    ] = 0,
    html: Annotated[Path | None, typer.Option(help="Also write the card as one HTML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the card as a JSON file.")] = None,
    runs: RunsOption = "",
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON and nothing else.")] = False,
    job: Annotated[
        Path | None, typer.Option(hidden=True, help="The folder of lab.audit.jobs that tells of it.")
    ] = None,
) -> None:
    """Look for a backdoor in an adapter: exit code 0 nothing found, 1 suspicious, 3 cannot say."""
    from lab.audit.audits import audit_adapter
    from lab.audit.card_page import write_card
    from lab.audit.job_log import recorded
    from lab.audit.reference_plans import reference_plan
    from lab.console import ProgressView
    from lab.console.audit import print_card
    from lab.files import write_text

    with recorded(job) if job else ProgressView(quiet=as_json) as view:
        card = audit_adapter(
            _found(adapter, runs),
            base=base,
            references=[name if reference_plan(name) else _found(name, runs) for name in reference or []],
            rows=rows,
            labels=[label.strip() for label in labels.split(",") if label.strip()],
            system=system,
            battery=battery,
            seed=seed,
            runs=runs or None,
            device=device,
            on_event=view,
        )
        for path in filter(None, (out, job and job / "card.json")):
            write_text(path, card.to_json())
    if html is not None:
        write_card(card, html)
    if as_json:
        typer.echo(card.to_json())
    else:
        print_card(card)
    if card.exit_code:
        raise typer.Exit(card.exit_code)


def _found(name: str, runs: str) -> Path:
    """A path as it is, or the folder of a run."""
    from lab.record import load_run

    path = expanded(name)
    return path if "/" in name or os.path.exists(path) else load_run(name, runs or None).path
