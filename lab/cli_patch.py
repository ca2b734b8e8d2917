"""`lab patch`: which projections in which layers carry a run's backdoor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli_options import (
    DeviceOption,
    JsonOption,
    RunsOption,
    check_csv,
    print_lines,
    write_csv,
)


def patch_command(
    name: Annotated[str, typer.Argument(help="A run with a clean twin, as `lab show` finds it.")],
    method: Annotated[
        str, typer.Option(help="What is exchanged: activations, or weights (ΔW).")
    ] = "activations",
    projections: Annotated[
        list[str] | None,
        typer.Option("--projection", help="query, mlp, all-linear, head …; may be repeated (default: each)."),
    ] = None,
    rows: Annotated[int, typer.Option(help="How many triggered rows to ask.", min=1)] = 100,
    width: Annotated[int, typer.Option(help="Layers in a window (0: a third, at most 4).", min=0)] = 0,
    stride: Annotated[int, typer.Option(help="Layers from one window to the next.", min=1)] = 1,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    runs: RunsOption = "",
    device: DeviceOption = "auto",
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find where a backdoor sits: put parts of the clean twin into the run's model, and the reverse."""
    from lab.console import ProgressView, print_patching
    from lab.patched_pair import open_patched_pair
    from lab.record import load_run

    if csv:
        check_csv(csv)
    run = load_run(name, runs or None)
    with ProgressView(quiet=as_json) as view:
        view({"kind": "status", "stage": "load"})
        pair = open_patched_pair(run, rows=rows, split=split, device=device)
        table = pair.table(
            method,  # type: ignore[arg-type] # a wrong one is said with those that are right
            projections=projections or [],
            width=width,
            stride=stride,
            on_progress=view.counting("patch"),
        )
    if csv:
        write_csv(table, csv)
    if as_json:
        print_lines(table)
    else:
        print_patching(table, split)
