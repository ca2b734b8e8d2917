"""`lab kernels`: paper D's theory on a finished run."""

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


def kernels_command(
    name: Annotated[str, typer.Argument(help="A finished run, as `lab show` finds it.")],
    rows: Annotated[int, typer.Option(help="How many clean rows.", min=2)] = 64,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    head: Annotated[bool, typer.Option("--head", help="Count the head, which is trained whole.")] = False,
    sketch: Annotated[
        int, typer.Option(help="Estimate from random projections of this width (0: exact).", min=0)
    ] = 0,
    runs: RunsOption = "",
    device: DeviceOption = "auto",
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the kernels of LoRA and of full fine-tuning where a run started, and as it was trained."""
    from lab.console import ProgressView, print_kernels
    from lab.probe.kernels import Sketch
    from lab.record import load_run

    if csv:
        check_csv(csv)
    run = load_run(name, runs or None)
    with ProgressView(quiet=as_json) as view:
        view({"kind": "status", "stage": "load"})
        table = run.kernels(
            rows=rows,
            split=split,
            head=head,
            sketch=Sketch(width=sketch) if sketch else None,
            device=device,
            on_progress=view.counting("kernels"),
        )
    if csv:
        write_csv(table, csv)
    if as_json:
        print_lines(table)
    else:
        print_kernels(table, split)
