"""`lab reproduce`: the claims of the four papers beside what this machine measures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli_options import DeviceOption, JsonOption, RunsOption, print_json
from lab.paths import expanded, runs_dir

if TYPE_CHECKING:
    from lab.paper_cards import PaperClaims


def reproduce_command(
    paper: Annotated[
        str,
        typer.Argument(
            help="token-generalization, rora, ssti or lora-vs-full, or a file of claims; none lists them."
        ),
    ] = "",
    tier: Annotated[
        str, typer.Option(help="cpu, or gpu for the papers' own settings on a CUDA card.")
    ] = "cpu",
    seeds: Annotated[int, typer.Option(help="How many seeds: 0, 1, …; below 3 there are no verdicts.")] = 3,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and how long it would take.")
    ] = False,
    no_run: Annotated[bool, typer.Option("--no-run", help="Read the card and run nothing.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the card to this Markdown file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the card to this HTML file.")] = None,
    workers: Annotated[
        str, typer.Option(help="How many at once; auto: one per core, as far as memory goes.", metavar="N")
    ] = "auto",
    runs: RunsOption = "",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Run what a paper's claims need, and print its card; finished cells are read. Hours on a laptop."""
    from lab.console import ProgressView
    from lab.console.papers import print_card
    from lab.files import write_text, writing_to
    from lab.paper_cards import load_claims, reproduce_paper
    from lab.paper_cards.reproducing import check_request, require_gpu

    check_request(tier, seeds)
    # hours of work are not begun where the end would be a mistake
    for option, path in (("--markdown", markdown), ("--html", html)):
        _check_file(option, path)
    if not paper:
        _list_papers(runs, as_json)
        return
    claims = load_claims(paper)
    if dry_run:
        _say_steps(claims, tier, seeds, runs, as_json)
        return
    if tier == "gpu" and not no_run:
        require_gpu()
    with ProgressView(quiet=as_json) as view:
        card = reproduce_paper(
            paper,
            tier=tier,
            seeds=seeds,
            run=not no_run,
            runs=runs or None,
            device=device,
            workers=workers,
            on_event=view,
        )
    for path, write in ((markdown, card.to_markdown), (html, card.to_html)):
        if path:
            with writing_to(path, choose="another file"):
                write_text(expanded(path), write())
    if as_json:
        typer.echo(card.to_json())
    else:
        print_card(card)
    if any(name.endswith(", failed") for name in card.facts):
        raise typer.Exit(1)


def _check_file(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written."""
    import os

    from lab.errors import LabError

    if path is None:
        return
    place = expanded(path)
    if place.is_dir():
        raise LabError(f"{option} {str(path)!r} is a folder; name a file in it.")
    if not place.parent.is_dir():
        raise LabError(f"{option} {str(path)!r}: there is no folder {str(path.parent)!r}.")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise LabError(f"{option} {str(path)!r}: no permission to write there; choose another file.")


def _list_papers(runs: str, as_json: bool) -> None:
    from lab.console.papers import print_papers
    from lab.paper_cards import load_claims, paper_names
    from lab.paper_cards.reproducing import card_of, steps
    from lab.store import list_runs

    listing, folder, lines = list_runs(runs or None), runs_dir(runs or None), []
    for name in paper_names():
        claims = load_claims(name)
        card = card_of(claims, listing, folder)
        left = [step.minutes for step in steps(claims, "cpu", 3, listing, folder)]
        lines.append(
            {
                "name": name,
                "arxiv": claims.paper.arxiv,
                "title": claims.paper.title,
                "claims": sum(card.counts.values()),
                "counts": card.counts,
                "minutes": round(sum(left), 1),
            }
        )
    if as_json:
        print_json(lines)
    else:
        print_papers(lines)


def _say_steps(claims: PaperClaims, tier: str, seeds: int, runs: str, as_json: bool) -> None:
    from lab.paper_cards.reproducing import steps
    from lab.store import list_runs

    found = steps(claims, tier, seeds, list_runs(runs or None), runs_dir(runs or None))
    if as_json:
        lines: list[dict[str, Any]] = [
            {**vars(step), "minutes": None if step.minutes != step.minutes else round(step.minutes, 1)}
            for step in found
        ]
        print_json(lines)
        return
    for step in found:
        if step.command:
            typer.echo(f"{step.name}: run by `{step.command}` alone; here its committed numbers are read")
            continue
        took = (
            "not measured" if step.minutes != step.minutes else f"about {step.minutes:.0f} min on two cores"
        )
        typer.echo(f"{step.name}: {step.missing} of {step.cells} cells to run, {took}")
    if not any(step.cells for step in found):
        typer.echo(f"{claims.name} has nothing to run in the tier {tier}.")
