"""`lab cohort`: populations of clean and poisoned adapters, to measure detectors on."""

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

cohort_app = typer.Typer(
    help="Build populations of clean and poisoned adapters with a key, to measure detectors on.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="A cohort's name, or a TOML file.")]
FolderOption = Annotated[
    Path | None,
    typer.Option(help="Where the sealed adapters lie (default: cohorts/NAME); the key: FOLDER-key."),
]
CalibratedByOption = Annotated[
    Path | None,
    typer.Option(help="Folder of a cohort whose calibration part serves, where this one has none."),
]


@cohort_app.command("build")
def build_command(
    name: NameArgument = "minilm",
    folder: FolderOption = None,
    runs: RunsOption = "",
    part: Annotated[str, typer.Option(help="calibration or test; both without.")] = "",
    limit: Annotated[int, typer.Option(help="Only the first so many members (0: all).", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the plan; keep it as secret as the key.", min=0)] = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train the members that are missing, seal their adapters, and write the key that says what they are."""
    from lab.audit.cohort_builds import build_cohort, failure_reasons, summarise_key
    from lab.console import ProgressView, print_cohort

    with ProgressView(quiet=as_json) as view:
        table = build_cohort(
            name,
            seed=seed,
            folder=folder,
            runs=runs or None,
            part=part,
            limit=limit,
            device=device,
            on_event=view,
        )
    if as_json:
        print_lines(summarise_key(table))
    else:
        print_cohort(summarise_key(table))
    for reason in failure_reasons(table):
        typer.echo(f"failed: {reason}", err=True)
    if (table["state"] != "sealed").any():
        raise typer.Exit(1)


@cohort_app.command("show")
def show_command(
    name: NameArgument = "minilm", folder: FolderOption = None, as_json: JsonOption = False
) -> None:
    """Show what a cohort holds, part by part, and how far it is built; no adapter is named."""
    from lab.audit.cohort_builds import failure_reasons, show_cohort, summarise_key
    from lab.audit.cohorts import find_cohort
    from lab.console import print_cohort

    table = show_cohort(name, folder)
    if as_json:
        print_lines(summarise_key(table))
        return
    typer.echo(f"{find_cohort(name).goal}\n")
    print_cohort(summarise_key(table))
    for reason in failure_reasons(table):
        typer.echo(f"failed: {reason}", err=True)


@cohort_app.command("score")
def score_command(
    name: NameArgument = "minilm",
    folder: FolderOption = None,
    calibrated_by: CalibratedByOption = None,
    part: Annotated[str, typer.Option(help="calibration or test; both without.")] = "",
    peer: Annotated[
        str, typer.Option(help="Python of an environment with adaptersentry, to measure that too.")
    ] = "",
    device: DeviceOption = "auto",
) -> None:
    """Measure what the detectors say of every sealed adapter; what was measured is kept."""
    from lab.audit.cohort_scores import score_cohort
    from lab.console import ProgressView

    stages = ("weights", "peer", "batteries", "search") if peer else ("weights", "batteries", "search")
    with ProgressView() as view:
        table = score_cohort(
            name,
            folder=folder,
            calibrated_by=calibrated_by,
            part=part,
            stages=stages,
            peer=peer,
            device=device,
            on_event=view,
        )
    typer.echo(f"{len(table)} adapters measured")


@cohort_app.command("judge")
def judge_command(
    name: NameArgument = "minilm",
    folder: FolderOption = None,
    calibrated_by: CalibratedByOption = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table, with all digits.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how well each detector tells poisoned adapters from clean ones, on the test part."""
    from lab.audit.cohort_judging import judge_cohort, recall_by
    from lab.console.cohorts import print_detectors, print_recall

    if csv is not None:
        check_csv(csv)
    table = judge_cohort(name, folder=folder, calibrated_by=calibrated_by)
    if csv is not None:
        write_csv(table, csv)
    if as_json:
        print_lines(table)
        return
    print_detectors(table)
    for column in ("family", "rank"):
        print_recall(recall_by(column, name=name, folder=folder, calibrated_by=calibrated_by))


@cohort_app.command("calibrate")
def calibrate_command(
    name: NameArgument = "minilm",
    folder: FolderOption = None,
    out: Annotated[Path | None, typer.Option(help="Where to (default: print it).")] = None,
) -> None:
    """Write the threshold that verdicts of `lab audit` rest on, as a file of data/calibrations."""
    from lab.audit.calibrations import calibrate_cohort, calibration_toml
    from lab.files import write_text

    text = calibration_toml(calibrate_cohort(name, folder=folder))
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
