"""`lab sweep`: a grid of experiments × seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli_options import (
    DeviceOption,
    JsonOption,
    RunsOption,
    SetOption,
    check_csv,
    print_json,
    print_lines,
    write_csv,
)

if TYPE_CHECKING:
    from lab.experiment import Experiment
    from lab.sweeps import Grid


def sweep_command(
    experiment: Annotated[
        str, typer.Argument(help="A sweep's or a preset's name, or a TOML or JSON file.")
    ] = "rfc-citation",
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY=V1,V2,…", help="Sweep a dotted key; may be repeated."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds: 0, 1, … (default: 3, or what the sweep says).", min=1)
    ] = None,
    set_: SetOption = None,
    tune_over: Annotated[
        list[str] | None,
        typer.Option(
            "--tune",
            metavar="KEY=V1,V2,…",
            help="Choose this key on validation rows, for every point and arm.",
        ),
    ] = None,
    tune_measure: Annotated[
        str | None, typer.Option(help="The measure to maximise in tuning (default: clean_accuracy).")
    ] = None,
    twin: Annotated[bool, typer.Option("--twin/--no-twin", help="Also train the clean twins.")] = True,
    runs: RunsOption = "",
    device: DeviceOption = "auto",
    executor: Annotated[
        str, typer.Option(help="inline, local or ray (default: local where there is work for several).")
    ] = "",
    workers: Annotated[
        int, typer.Option(help="Cells at once (0: as many as serve here).", min=0, show_default=False)
    ] = 0,
    address: Annotated[
        str, typer.Option(help="The Ray cluster: auto, or host:port (default: one is started here).")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List cells, what is done, and the time that is left.")
    ] = False,
    large: Annotated[bool, typer.Option("--yes", help="More than 10,000 cells are meant.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a grid of experiments × seeds; finished cells are read, failed ones recorded."""
    from lab.console import ProgressView, print_sweep
    from lab.errors import unknown_name
    from lab.experiment import parse_assignments
    from lab.presets import SweepPlan, is_sweep, load_experiment, load_sweep
    from lab.sweeps import sweep
    from lab.tables import MEASURE_KINDS

    # hours of work are not begun where the end would be a mistake
    if tune_measure is not None and tune_measure not in MEASURE_KINDS:
        raise unknown_name("measure (--tune-measure)", tune_measure, MEASURE_KINDS)
    if csv:
        check_csv(csv)
    plan = (
        load_sweep(experiment)
        if is_sweep(experiment)
        else SweepPlan({}, load_experiment(experiment), {}, None, 3)
    )
    start = plan.experiment.with_(**parse_assignments(set_ or []))
    grid = plan.over | {k: v for piece in over or [] for k, v in [_grid_piece(piece)]}
    tuning = plan.tune or {}
    tuned = tuning.get("over", {}) | {k: v for piece in tune_over or [] for k, v in [_grid_piece(piece)]}
    if tuned:
        tuning |= {"over": tuned} | ({"measure": tune_measure} if tune_measure else {})
    asked: dict[str, Any] = {
        "arms": plan.arms,
        "seeds": plan.seeds if seeds is None else seeds,
        "tune": tuning or None,
        "large": large,
    }
    if dry_run:
        _tell(start, grid, asked, runs=runs, twin=twin, executor=executor, workers=workers, as_json=as_json)
        return
    with ProgressView(quiet=as_json) as view:
        table = sweep(
            start,
            grid,
            **asked,
            runs=runs or None,
            twin=twin,
            device=device,
            executor=executor,
            workers=workers,
            address=address,
            on_event=view,
        )
    if csv:
        write_csv(table, csv)
    if as_json:
        print_lines(table)
    else:
        apart = [str(column) for column in table if str(column).startswith("asked.")]
        print_sweep(table, [*grid, *(["arm"] if plan.arms else []), *tuned, *apart])
        for reason in table.loc[table["state"] == "failed", "reason"]:
            typer.echo(f"failed: {reason}", err=True)
    if (table["state"] != "finished").any():
        raise typer.Exit(1)


def _tell(
    start: Experiment,
    grid: Grid,
    asked: dict[str, Any],
    *,
    runs: str,
    twin: bool,
    executor: str,
    workers: int,
    as_json: bool,
) -> None:
    """Say what the sweep would do; nothing is trained."""
    from lab.console import print_table
    from lab.paths import runs_dir
    from lab.sweeps.crews import crew_size
    from lab.sweeps.forecast import forecast
    from lab.sweeps.sweeping import sweep_cells

    cells, tuning = sweep_cells(start, grid, **asked)
    folder = runs_dir(runs or None)
    count = crew_size(executor, workers, cells, "auto", folder)
    found = forecast(cells, tuning, runs=folder, twin=twin, workers=count)
    if as_json:
        print_json(found.to_dict())
        return
    shown = [str(c) for c in found.cells if c != "reason" or found.cells[c].any()]
    print_table(found.cells, shown)
    done = int((found.cells["state"] == "finished").sum())
    each = "worker" if count == 1 else "workers"
    typer.echo(
        f"{done} of {len(cells)} cells are finished; {found.left} runs are left with what they need, about "
        f"{_duration(found.seconds)} with {count} {each} ({found.basis})."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _grid_piece(piece: str) -> tuple[str, list[Any]]:
    """`adapter.rank=1,4,16` → ("adapter.rank", [1, 4, 16]); a TOML list works too."""
    from lab.errors import LabError
    from lab.experiment import parse_value

    key, separator, text = piece.partition("=")
    if not separator or not text.strip():
        raise LabError(f"--over {piece!r}: write KEY=V1,V2,…, for example --over adapter.rank=1,4,16.")
    whole = parse_value(text.strip())
    if isinstance(whole, list):
        return key.strip(), whole
    return key.strip(), [parse_value(part.strip(), key.strip()) for part in text.split(",")]
