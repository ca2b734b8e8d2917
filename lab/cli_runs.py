"""`lab runs`: what to do with runs that are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli_options import JsonOption, RunsOption, print_json

if TYPE_CHECKING:
    from lab.run_garbage import Garbage

runs_app = typer.Typer(help="Clean up the runs folder, and move runs between machines.", no_args_is_help=True)


@runs_app.command("gc")
def gc_command(
    failed: Annotated[
        bool, typer.Option("--failed", help="Also runs that failed, were killed or stopped.")
    ] = False,
    unreferenced: Annotated[
        bool, typer.Option("--unreferenced", help="Also clean runs that no other run rests on.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    runs: RunsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Remove what nobody needs: leftovers of kills and, where asked, failed runs and twins without a run."""
    from lab.errors import LabError
    from lab.run_garbage import KINDS, find_garbage, remove_garbage

    wanted = {"leftover": True, "failed": failed, "unreferenced": unreferenced}
    found = find_garbage(runs or None)
    chosen = [piece for piece in found if wanted[piece.kind]]
    if as_json and not (yes or dry_run):
        raise LabError("lab runs gc --json asks nobody: add --yes or --dry-run.")
    if not as_json:
        for kind, meaning in KINDS.items():
            own = [piece for piece in found if piece.kind == kind]
            size = _size(sum(piece.size for piece in own))
            kept = "" if wanted[kind] or not own else f" (kept; --{kind} takes them too)"
            typer.echo(f"{len(own):5} {kind:13} {size:>10}  {meaning}{kept}")
        for piece in chosen:
            typer.echo(f"  {_size(piece.size):>10}  {piece.run or piece.path.name}{_part(piece)}")
    freed, complaints = 0, list[str]()
    if chosen and not dry_run and (yes or _agreed(len(chosen))):
        freed, complaints = remove_garbage(chosen)
    if as_json:
        pieces = [{"path": str(p.path), "kind": p.kind, "bytes": p.size, "run": p.run} for p in chosen]
        print_json({"found": pieces, "freed": freed, "complaints": complaints})
    else:
        typer.echo(f"Freed {_size(freed)}." if freed else "Nothing was removed.")
        for complaint in complaints:
            typer.echo(complaint, err=True)
    if complaints:
        raise typer.Exit(1)


@runs_app.command("export")
def export_command(
    names: Annotated[list[str], typer.Argument(metavar="RUN…", help="Runs, as `lab show` finds them.")],
    out: Annotated[Path, typer.Option(help="The archive to write.")] = Path("runs.zip"),
    runs: RunsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write finished runs into one archive, with the twins, bases and parents that they rest on."""
    from lab.run_packs import export_runs

    ids = export_runs(names, out, runs or None)
    if as_json:
        print_json({"archive": str(out), "runs": ids})
    else:
        typer.echo(f"Wrote {out}: {', '.join(ids)}.")


@runs_app.command("import")
def import_command(
    archive: Annotated[Path, typer.Argument(help="What `lab runs export` wrote.")],
    runs: RunsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put the runs of an archive into the runs folder; it is opened as something untrusted.

    What was asked is checked: it must make the run's id. The numbers and weights are the sender's word.
    """
    from lab.run_packs import import_runs

    new, there = import_runs(archive, runs or None)
    if as_json:
        print_json({"new": new, "there": there})
        return
    typer.echo(f"{len(new)} runs were put there{': ' if new else ''}{', '.join(new)}.")
    if there:
        typer.echo(f"{len(there)} were there already and stay as they are: {', '.join(there)}.")


def _agreed(count: int) -> bool:
    return typer.confirm(f"Remove {count} of them for good?", default=False)


def _part(piece: Garbage) -> str:
    """Which part of a run it is; "" for a whole run, and for what belongs to none."""
    part = piece.path.relative_to(piece.run_folder).as_posix()
    return f"/{part}" if piece.run and part != "." else ""


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
