"""`lab doctor`: is this machine ready for a workshop?"""

from __future__ import annotations

import typer

from lab.cli_options import JsonOption, RunsOption, print_json


def doctor_command(runs: RunsOption = "", as_json: JsonOption = False) -> None:
    """Check whether this machine is ready: exit code 0 fine, 1 something has to be done."""
    from dataclasses import asdict

    from lab.doctor import examine, gather_facts

    findings = examine(gather_facts(runs or None))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            typer.echo(f"{finding.state:8} {finding.subject:{width}}  {finding.told}")
            if finding.todo:
                typer.echo(f"{'':8} {'':{width}}  → {finding.todo}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
