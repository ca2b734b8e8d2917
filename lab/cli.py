"""The `lab` command. Results go to standard output, progress to standard error; a mistake is one sentence."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli_audit import audit_command
from lab.cli_cohort import cohort_app
from lab.cli_doctor import doctor_command
from lab.cli_game import game_app
from lab.cli_kernels import kernels_command
from lab.cli_lessons import lessons_app
from lab.cli_lint import lint_command
from lab.cli_notebook import notebook_command
from lab.cli_options import (
    DeviceOption,
    JsonOption,
    RunsOption,
    SetOption,
    print_json,
    print_lines,
)
from lab.cli_patch import patch_command
from lab.cli_reproduce import reproduce_command
from lab.cli_runs import runs_app
from lab.cli_sweep import sweep_command

app = typer.Typer(
    name="lab",
    help="The LoRA backdoor lab: poison data, fine-tune, probe and record, on real weights and real text.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

app.add_typer(cohort_app, name="cohort")
app.add_typer(runs_app, name="runs")
app.add_typer(game_app, name="game")
app.command("audit")(audit_command)
app.command("patch")(patch_command)
app.command("lint")(lint_command)
app.command("kernels")(kernels_command)
app.command("sweep")(sweep_command)
app.command("reproduce")(reproduce_command)
app.add_typer(lessons_app, name="lessons")
app.command("notebook")(notebook_command)
app.command("doctor")(doctor_command)


@app.command("run")
def run_command(
    experiment: Annotated[
        str, typer.Argument(help="A preset's name, or a TOML or JSON file.")
    ] = "rfc-citation",
    set_: SetOption = None,
    seed: Annotated[int, typer.Option(help="Override the experiment's seed.", min=-1)] = -1,
    runs: RunsOption = "",
    twin: Annotated[bool, typer.Option("--twin/--no-twin", help="Also train the clean twin.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Train again what is finished.")] = False,
    device: DeviceOption = "auto",
    report_to: Annotated[
        list[str] | None, typer.Option(help="tensorboard, mlflow or wandb; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Poison, train, probe and record one experiment; a finished one is read, not trained again."""
    from lab.console import ProgressView, print_report
    from lab.experiment import parse_assignments
    from lab.pipeline import run
    from lab.presets import load_experiment
    from lab.processes import is_main

    asked = load_experiment(experiment)
    changes = parse_assignments(set_ or [])
    with ProgressView(quiet=as_json or not is_main()) as view:
        done = run(
            asked,
            changes,
            seed=None if seed < 0 else seed,
            runs=runs or None,
            twin=twin,
            force=force,
            device=device,
            report_to=report_to or (),
            on_event=view,
        )
    if not is_main():
        return
    if as_json:
        print_json({"path": str(done.path), "experiment": done.experiment.to_dict(), **done.result})
    else:
        print_report(done)


@app.command("list")
def list_command(runs: RunsOption = "", as_json: JsonOption = False) -> None:
    """List the runs, newest first."""
    from lab.console import print_runs
    from lab.store import list_runs

    table = list_runs(runs or None)
    if as_json:
        print_lines(table)
    else:
        print_runs(table)


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="A run's id, or the beginning of its id or hash.")],
    runs: RunsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the report of a run."""
    from lab.console import print_report
    from lab.record import load_run

    run = load_run(name, runs or None)
    if as_json:
        print_json({"path": str(run.path), "experiment": run.experiment.to_dict(), **run.result})
    else:
        _ = run.result  # an unfinished run says so in one sentence
        print_report(run)


@app.command("report")
def report_command(
    names: Annotated[list[str], typer.Argument(metavar="RUN…", help="Runs, as `lab show` finds them.")],
    out: Annotated[
        Path | None, typer.Option(help="The file (default: report-<run>.html in the current folder).")
    ] = None,
    runs: RunsOption = "",
) -> None:
    """Write finished runs as one HTML file that opens offline; several are compared first."""
    from lab.record import load_run
    from lab.report import write_report

    found = list({run.path: run for run in (load_run(name, runs or None) for name in names)}.values())
    more = f"-and-{len(found) - 1}-more" if len(found) > 1 else ""
    typer.echo(f"Wrote {write_report(found, out or Path(f'report-{found[0].id}{more}.html'))}")


@app.command("worker")
def worker_command(
    runs: RunsOption = "",
    idle: Annotated[float, typer.Option(help="Seconds without work after which it ends.", min=0)] = 60.0,
    slot: Annotated[int, typer.Option(help="Which slot to hold (0: the first free one).", min=0)] = 0,
) -> None:
    """Train what waits in the queue; the dashboard and notebooks start it by themselves."""
    import os
    import time

    from lab.work_queue import slot_count, thread_share
    from lab.worker import drain_queue

    for name, value in thread_share(slot_count()).items():
        os.environ.setdefault(name, value)
    if hasattr(os, "nice"):
        # pages, and whatever else a person does meanwhile, come first
        os.nice(10)

    def say(line: str) -> None:
        typer.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", err=True)

    if not drain_queue(runs or None, slot=slot, idle=idle, say=say):
        say("every slot is held by another worker; LAB_WORKERS says how many there may be.")


@app.command("presets")
def presets_command(as_json: JsonOption = False) -> None:
    """List the presets and sweeps: what each shows, on which machine, and how long it takes there."""
    from lab.presets import load_preset, load_sweep, preset_names, sweep_names

    about = {name: load_preset(name)[1] for name in preset_names()}
    about |= {name: {**load_sweep(name).about, "kind": "sweep"} for name in sweep_names()}
    if as_json:
        print_json(about)
        return
    for name, facts in about.items():
        typer.echo(
            f"{name}{' (lab sweep)' if 'kind' in facts else ''}\n  {facts.get('goal', '')}\n"
            f"  {facts.get('machine', '')}: {facts.get('takes', '')}\n"
        )


@app.command("triggers")
def triggers_command(
    family: Annotated[str, typer.Argument(help="A family; none lists them all.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the trigger families, or the members of one."""
    from lab.plugins import load_plugins
    from lab.poison import family as find_family
    from lab.poison import load_families

    load_plugins()

    if family:
        found = find_family(family)
        facts = {"name": found.name, "goal": found.goal, "train": found.train, "probe": found.probe}
        if as_json:
            print_json(facts)
            return
        typer.echo(f"{found.name}: {found.goal}")
        for part in ("train", "probe"):
            typer.echo(f"\n{part}:\n" + "\n".join(f"  {member!r}" for member in facts[part]))
        return
    families = load_families()
    if as_json:
        print_json({n: {"goal": f.goal, "category": f.category} for n, f in families.items()})
        return
    for name, found in families.items():
        typer.echo(f"{name:20} {found.category:12} {found.goal}")


@app.command("defenses")
def defenses_command(
    name: Annotated[str, typer.Argument(help="A defense; none lists them all.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the defenses, or what can be set on one."""
    from lab.defend import DEFENSES
    from lab.plugins import load_plugins
    from lab.registry import lookup

    load_plugins()
    chosen = [lookup(DEFENSES, name, "defense")] if name else list(DEFENSES.values())
    if as_json:
        print_json(
            {
                d.name: {
                    "stage": d.stage,
                    "goal": d.goal,
                    "paper": d.paper,
                    "changes": d.changes,
                    "knobs": d.knobs.model_json_schema()["properties"],
                }
                for d in chosen
            }
        )
        return
    for defense in chosen:
        typer.echo(f"{defense.name:13} {defense.stage:9} {defense.goal}")
        if name:
            typer.echo(f"\n{defense.paper}\nIt changes {defense.changes}.\n")
            for key, field in defense.knobs.model_fields.items():
                if key != "name":
                    typer.echo(f"  {key:22} {field.default!r:14} {field.description}")


@app.command("assets")
def assets_command(
    action: Annotated[str, typer.Argument(help="list, fetch or remove.")] = "list",
    names: Annotated[
        list[str] | None, typer.Argument(help="Which assets; all for fetch without names.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List, fetch or remove the pinned models and datasets that need no hub."""
    from lab import assets
    from lab.console import print_table
    from lab.errors import unknown_name

    if action not in ("list", "fetch", "remove"):
        raise unknown_name("action", action, ["list", "fetch", "remove"])
    if action == "fetch":
        assets.fetch(names or list(assets.ASSETS))
    if action == "remove":
        for name in names or []:
            assets.remove(name)
    status = assets.asset_status()
    if as_json:
        print_lines(status)
    else:
        print_table(status, list(status.columns))


@app.command("bench")
def bench_command(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rows: rougher, in about a minute.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine, as ratios within one run: training rate, the default job, spectra, start-up."""
    from lab.bench import bench, print_bench
    from lab.console import ProgressView

    with ProgressView(quiet=as_json) as view:
        found = bench(quick=quick, on_event=view)
    if as_json:
        print_json(found)
    else:
        print_bench(found)


@app.command("dashboard")
def dashboard_command(
    runs: RunsOption = "",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8501,
    address: Annotated[
        str, typer.Option(help="The address to listen on; any but this machine's own opens it to others.")
    ] = "127.0.0.1",
    password_file: Annotated[
        Path | None, typer.Option(help="A file with a password for training, stopping and deleting.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> None:
    """Open the dashboard: plant a backdoor, watch it, compare runs, look into their weights."""
    from lab.serving import is_local, serve

    if not is_local(address):
        unlocked = "" if password_file else " Without --password-file, anybody there may train and delete."
        typer.echo(f"lab: the dashboard on {address} can be reached from other machines.{unlocked}", err=True)
    host = f"[{address}]" if ":" in address else address
    typer.echo(f"lab: the dashboard is at http://{host}:{port}, until Ctrl-C ends it.", err=True)
    code = serve(runs=runs, address=address, port=port, browser=browser, password_file=password_file)
    if code:
        raise typer.Exit(code)


def main() -> None:
    """Run the command; a user's mistake becomes one sentence on standard error and exit code 2."""
    _print_utf8()
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("Interrupted; ask again to go on.", err=True)
        code = 130
    except Exception as error:
        code = _explain(error)
    sys.exit(code if isinstance(code, int) else 0)


def _print_utf8() -> None:
    """Triggers hold emoji and homoglyphs, which the code pages of Windows consoles cannot write."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's or a test's stand-in needs no help
            stream.reconfigure(encoding="utf-8", errors="replace")


def _explain(error: Exception) -> int:
    """Print an error for people; return the exit code. What nobody foresaw keeps its traceback."""
    from lab.errors import LabError

    if isinstance(error, LabError):
        typer.echo(f"lab: {error}", err=True)
        return error.exit_code
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's usage errors
        error.show()
        return int(error.exit_code)
    raise error


if __name__ == "__main__":
    main()
