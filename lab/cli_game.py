"""`lab game`: matches of Red and blue, prepared before the workshop; they are played on the dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli_options import DeviceOption, JsonOption, RunsOption, SetOption, print_json

game_app = typer.Typer(
    help="Prepare a match of Red and blue: sealed adapters, a budget of probes, bets. It is played on the "
    "dashboard's page Game.",
    no_args_is_help=True,
)


@game_app.command("new")
def new_command(
    adapters: Annotated[int, typer.Option(help="How many adapters to deal, half of them backdoored.")] = 6,
    budget: Annotated[int, typer.Option(help="Probes that each team has.")] = 200,
    rule: Annotated[str, typer.Option(help="How bets are scored: brier or log.")] = "brier",
    title: Annotated[str, typer.Option(help="What the match is called.")] = "Red and blue",
    source: Annotated[
        str, typer.Option("--from", metavar="DIR", help="Deal finished runs of this folder; train none.")
    ] = "",
    settings: SetOption = None,
    seed: Annotated[int | None, typer.Option(help="Of all draws; as secret as the key.", min=0)] = None,
    runs: RunsOption = "",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train adapters, half of them backdoored, seal them, and open a match; prints the two codes."""
    from lab.console import ProgressView
    from lab.errors import LabError
    from lab.experiment import parse_assignments
    from lab.game.dealing import deal_match, find_candidates
    from lab.game.training import train_match

    more = {"adapters": adapters, "budget": budget, "rule": rule, "title": title, "seed": seed}
    if source and settings:
        raise LabError("--set says how adapters are trained, and --from DIR trains none; give one of them.")
    with ProgressView(quiet=as_json) as view:
        if source:
            groups = find_candidates(source)
            match, host = deal_match(next(iter(groups.values()), []), runs=runs or None, **more)  # type: ignore[arg-type]
        else:
            changes: dict[str, object] = {}
            for piece in settings or []:
                changes |= parse_assignments([piece])
            match, host = train_match(
                runs=runs or None,
                changes=changes,
                device=device,
                on_event=view,
                **more,  # type: ignore[arg-type]
            )
    if as_json:
        print_json({"match": match.id, "join_code": match.join_code, "host_code": host})
        return
    typer.echo(f"match      {match.id}\njoin code  {match.join_code}   (for everybody)")
    typer.echo(f"host code  {host}   (for the host alone; it is shown this once)")
    typer.echo("Play it on the dashboard's page Game: lab dashboard")


@game_app.command("show")
def show_command(runs: RunsOption = "", as_json: JsonOption = False) -> None:
    """List the matches of the runs folder; no adapter's truth is read."""
    from lab.game.match import list_matches
    from lab.game.teams import list_teams

    lines = [
        {
            "match": m.id,
            "title": m.title,
            "state": m.state,
            "join_code": m.join_code,
            "adapters": len(m.adapters),
            "budget": m.budget,
            "rule": m.rule,
            "teams": len(list_teams(m)),
        }
        for m in list_matches(runs or None)
    ]
    if as_json:
        print_json(lines)
        return
    if not lines:
        typer.echo("No match yet; lab game new makes one.")
    for line in lines:
        typer.echo(
            f"{line['match']}  {line['state']:<8}  join {line['join_code']}  {line['adapters']} adapters, "
            f"{line['teams']} teams, {line['budget']} probes  {line['title']}"
        )


@game_app.command("host")
def host_command(
    match: Annotated[str, typer.Argument(help="The match's id, or its join code.")], runs: RunsOption = ""
) -> None:
    """Print a new host code, where the old one is lost; the old one opens nothing any more."""
    from lab.game.match import find_match, list_matches, renew_host_code

    held = {m.id: m for m in list_matches(runs or None)}
    typer.echo(renew_host_code(held.get(match) or find_match(match, runs or None)))
