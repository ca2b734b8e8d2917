"""What several commands of the command line share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RunsOption = Annotated[
    str, typer.Option("--runs", help="The runs folder (default: LAB_RUNS, the nearest runs/, or ./runs).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a dotted key; may be repeated.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]


def print_json(content: Any) -> None:
    """Print one JSON document to standard output."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=1))


def check_csv(path: Path) -> None:
    """Refuse a CSV file that cannot be written, before the work that it would hold is begun."""
    from lab.errors import LabError

    if path.is_dir():
        raise LabError(f"--csv {str(path)!r} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise LabError(f"--csv {str(path)!r}: there is no folder {str(path.parent)!r}.")
