"""What several commands of the command line share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

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


def print_lines(table: pd.DataFrame) -> None:
    """Print a table as one JSON document: a list with an object for each line."""
    print_json(json.loads(table.to_json(orient="records")))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table, with all digits, to the file that `--csv` names."""
    from lab.files import writing_to

    with writing_to(path, choose="another file with --csv"):
        table.to_csv(path, index=False)


def check_csv(path: Path) -> None:
    """Refuse a CSV file that cannot be written, before the work that it would hold is begun."""
    from lab.errors import LabError

    if path.is_dir():
        raise LabError(f"--csv {str(path)!r} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise LabError(f"--csv {str(path)!r}: there is no folder {str(path.parent)!r}.")
