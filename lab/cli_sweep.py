"""`lab sweep`: a grid of experiments × seeds, on one worker, many, or a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
        str, typer.Option(help="inline, local or ray (default: inline for one worker, local for more).")
    ] = "auto",
    workers: Annotated[
        str, typer.Option(help="How many at once; auto: one per core, as far as memory goes.", metavar="N")
    ] = "auto",
    address: Annotated[
        str, typer.Option(help="Of a Ray cluster: auto or HOST:PORT (default: Ray on this machine).")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is there and what would be trained; train nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Also a grid of more than 10,000 cells.")] = False,
    go_on: Annotated[
        str, typer.Option("--go-on", metavar="ID", help="A sweep of this runs folder, by its record's id.")
    ] = "",
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a grid of experiments × seeds; finished cells are read, failed ones recorded."""
    from lab import sweeps
    from lab.console import ProgressView, print_sweep

    # hours of work are not begun where the end would be a mistake
    if csv:
        check_csv(csv)
    if go_on:
        start, how = sweeps.recorded_sweep(go_on, runs or None)
        how |= {"grid": how.pop("over"), "most_cells": 10**9}
        twin = how.pop("twin")
    else:
        start, how = _asked(experiment, over, seeds, set_, tune_over, tune_measure)
    how |= {"runs": runs or None, "twin": twin, "device": device}
    how |= {"executor": executor, "workers": workers, "address": address}
    how |= {"most_cells": 10**9} if yes else {}
    if dry_run:
        _show_preview(sweeps.preview_sweep(start, how.pop("grid"), **how), as_json)
        return
    grid = how.pop("grid")
    with ProgressView(quiet=as_json) as view:
        table = sweeps.sweep(start, grid, on_event=view, **how)
    if csv:
        write_csv(table, csv)
    if as_json:
        print_lines(table)
    else:
        asked = [str(column) for column in table if str(column).startswith("asked.")]
        tuned = (how["tune"] or {}).get("over", {})
        print_sweep(table, [*grid, *(["arm"] if how["arms"] else []), *tuned, *asked])
        for reason in table.loc[table["state"] == "failed", "reason"]:
            typer.echo(f"failed: {reason}", err=True)
        _tell_lost(table, [*(["arm"] if how["arms"] else []), *grid])
    if (table["state"] != "finished").any() or ("tuning.failed" in table and table["tuning.failed"].any()):
        raise typer.Exit(1)


def _asked(
    experiment: str,
    over: list[str] | None,
    seeds: int | None,
    set_: list[str] | None,
    tune_over: list[str] | None,
    tune_measure: str | None,
) -> tuple[Any, dict[str, Any]]:
    """What to start from, and the arguments of `lab.sweep`, with the grid under "grid"."""
    from lab.errors import unknown_name
    from lab.experiment import parse_assignments
    from lab.presets import SweepPlan, is_sweep, load_experiment, load_sweep
    from lab.tables import MEASURE_KINDS

    if tune_measure is not None and tune_measure not in MEASURE_KINDS:
        raise unknown_name("measure (--tune-measure)", tune_measure, MEASURE_KINDS)
    plan = (
        load_sweep(experiment)
        if is_sweep(experiment)
        else SweepPlan({}, load_experiment(experiment), {}, None, 3)
    )
    start = plan.experiment.with_(**parse_assignments(set_ or []))
    grid = plan.over | _grid("--over", over)
    tuning = dict(plan.tune or {})
    tuned = tuning.get("over", {}) | _grid("--tune", tune_over)
    if tuned:
        tuning |= {"over": tuned} | ({"measure": tune_measure} if tune_measure else {})
    return start, {
        "grid": grid,
        "arms": plan.arms,
        "seeds": plan.seeds if seeds is None else seeds,
        "tune": tuning or None,
    }


def _grid(option: str, pieces: list[str] | None) -> dict[str, list[Any]]:
    """What an option that may be repeated says, each key once."""
    from lab.errors import LabError

    grid: dict[str, list[Any]] = {}
    for piece in pieces or []:
        key, values = _grid_piece(option, piece)
        if key in grid:
            raise LabError(f"{option} {key} is given twice; write all its values at once: {key}=V1,V2,….")
        grid[key] = values
    return grid


def _grid_piece(option: str, piece: str) -> tuple[str, list[Any]]:
    """`adapter.rank=1,4,16` → ("adapter.rank", [1, 4, 16]); a TOML list works too."""
    from lab.errors import LabError
    from lab.experiment import parse_value

    key, separator, text = piece.partition("=")
    if not separator or not text.strip():
        raise LabError(f"{option} {piece!r}: write KEY=V1,V2,…, for example {option} adapter.rank=1,4,16.")
    whole = parse_value(text.strip())
    if isinstance(whole, list):
        return key.strip(), whole
    return key.strip(), [parse_value(part.strip(), key.strip()) for part in text.split(",")]


def _tell_lost(table: Any, point: list[str]) -> None:
    """Say once for each point that it was tuned without some of its candidates."""
    from lab.console.sweeps import tuning_line

    if "tuning" not in table:
        return
    for line in table[table["tuning"] != ""].drop_duplicates([*point, "tuning"]).to_dict("records"):
        told = {"point": {key: line[key] for key in point}, "text": line["tuning"]}
        typer.echo(tuning_line(told), err=True)


def _show_preview(found: Any, as_json: bool) -> None:
    """Print what a sweep would do."""
    from dataclasses import asdict

    from lab.console.sweeps import print_preview

    if as_json:
        print_json(asdict(found))
    else:
        print_preview(found)
