"""Teams of a match: seats, bets, and the ledger of probes that keeps two browsers from overspending."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.files import read_json, write_json
from lab.game.match import Match, clean_name, digest, locked, new_code, plain_code, reread
from lab.game.rules import Bet

MOST_TEAMS = 60
_SEAT_LENGTH = 10
_TEAM = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Team:
    """A team of a match.

    Attributes:
        id: Random.
        name: Text of a person.
    """

    id: str
    name: str


@dataclass(frozen=True)
class Probe:
    """One move of a team.

    Attributes:
        id: Random.
        move: A name in `lab.game.moves.MOVES`.
        adapter: Which sealed adapter.
        asked: What was asked, as the move understands it.
        cost: Probes that it took.
        time: When, in seconds since 1970.
        answer: What came back; None while no answer did.
    """

    id: str
    move: str
    adapter: str
    asked: dict[str, Any]
    cost: int
    time: float
    answer: dict[str, Any] | None = None


def join_match(match: Match, name: str) -> tuple[Team, str]:
    """Take a seat, until the match is closed.

    Returns:
        The team, and the secret of its seat, which is written down nowhere.

    Raises:
        LabError: The name is none or taken, the match is over, or full.
    """
    wanted = clean_name(name, "team name")
    with locked(match.path):
        now = reread(match)
        if now.state not in ("lobby", "playing"):
            raise LabError(f"The match is {now.state}: no team can join any more.")
        teams = list_teams(now)
        if any(team.name.casefold() == wanted.casefold() for team in teams):
            raise LabError(
                f"team name = {wanted!r}: there is such a team already; its members enter its seat code."
            )
        if len(teams) >= MOST_TEAMS:
            raise LabError(f"The match has {MOST_TEAMS} teams, and no more seats.")
        team, seat = Team(secrets.token_hex(6), wanted), new_code(_SEAT_LENGTH)
        write_json(
            match.path / "teams" / f"{team.id}.json",
            {**asdict(team), "seat": digest(seat), "joined": time.time()},
        )
    return team, seat


def find_team(match: Match, seat: str) -> Team | None:
    """The team of a seat; None where no seat of this match has this secret."""
    wanted = digest(plain_code(seat))
    for file in sorted((match.path / "teams").glob("*.json")):
        told = read_json(file)
        if isinstance(told, dict) and hmac.compare_digest(str(told.get("seat", "")), wanted):
            return Team(str(told["id"]), str(told["name"]))
    return None


def list_teams(match: Match) -> list[Team]:
    """Every team, in the order of joining."""
    told = [read_json(file) for file in (match.path / "teams").glob("*.json")]
    known = [t for t in told if isinstance(t, dict) and _TEAM.fullmatch(str(t.get("id")))]
    return [Team(t["id"], str(t["name"])) for t in sorted(known, key=lambda t: (t["joined"], t["id"]))]


def place_bet(match: Match, team: str, adapter: str, bet: Bet) -> None:
    """Write a bet down in place of an earlier one, while the match is played.

    Raises:
        LabError: The match is not played, there is no such team or adapter, or the bet is none.
    """
    if not 0.0 <= bet.probability <= 1.0:
        raise LabError(f"probability = {bet.probability}: should be from 0 to 1.")
    if bet.family and bet.family not in match.families:
        raise LabError(f"family = {bet.family[:40]!r}: should be one of {', '.join(match.families)}.")
    with locked(match.path):
        now = _played(match, adapter)
        path = _file(now, "bets", team, "json")
        held = read_json(path) or {}
        write_json(path, {**held, adapter: asdict(bet)})


def read_bets(match: Match, team: str) -> dict[str, Bet]:
    """A team's bets, by adapter."""
    held = read_json(_file(match, "bets", team, "json")) or {}
    return {a: Bet(float(b["probability"]), str(b["family"])) for a, b in held.items()}


def spend(match: Match, team: str, move: str, adapter: str, asked: Mapping[str, Any], cost: int) -> Probe:
    """Take probes out of a team's budget and write down what for; all of it or nothing.

    Raises:
        LabError: The match is not played, there is no such team or adapter, or too little is left.
    """
    if cost < 1:
        raise LabError(f"cost = {cost}: a move costs at least 1 probe.")
    with locked(match.path):
        now = _played(match, adapter)
        path = _file(now, "probes", team, "jsonl")
        left = now.budget - _spent(_lines(path))
        if cost > left:
            raise LabError(f"This costs {cost} probes, and {left} are left of {now.budget}.")
        probe = Probe(secrets.token_hex(6), move, adapter, dict(asked), cost, time.time())
        told = {name: value for name, value in asdict(probe).items() if name != "answer"}
        _append(path, {"kind": "spent", **told})
    return probe


def write_answer(match: Match, team: str, probe: str, answer: Mapping[str, Any]) -> None:
    """Write down what a move brought; also after the match was closed."""
    with locked(match.path):
        _append(_file(match, "probes", team, "jsonl"), {"kind": "answered", "id": probe, "answer": answer})


def give_back(match: Match, team: str, probe: str) -> None:
    """Give the probes of a move back that could not be answered; a second time does nothing."""
    with locked(match.path):
        _append(_file(match, "probes", team, "jsonl"), {"kind": "returned", "id": probe})


def probes_left(match: Match, team: str) -> int:
    """What is left of a team's budget."""
    return match.budget - _spent(_lines(_file(match, "probes", team, "jsonl")))


def list_probes(match: Match, team: str) -> list[Probe]:
    """A team's moves in order, those that were given back left out."""
    lines = _lines(_file(match, "probes", team, "jsonl"))
    back = {line["id"] for line in lines if line["kind"] == "returned"}
    answers = {line["id"]: line["answer"] for line in lines if line["kind"] == "answered"}
    names = ("id", "move", "adapter", "asked", "cost", "time")
    return [
        Probe(**{name: line[name] for name in names}, answer=answers.get(line["id"]))
        for line in lines
        if line["kind"] == "spent" and line["id"] not in back
    ]


def _played(match: Match, adapter: str) -> Match:
    now = reread(match)
    if now.state != "playing":
        raise LabError(f"The match is {now.state}: moves and bets are made while it is played.")
    if adapter not in now.adapters:
        raise LabError(f"adapter = {adapter[:60]!r}: this match has no such adapter.")
    return now


def _file(match: Match, folder: str, team: str, ending: str) -> Path:
    if not _TEAM.fullmatch(team) or not (match.path / "teams" / f"{team}.json").is_file():
        raise LabError(f"team = {team[:40]!r}: this match has no such team.")
    return match.path / folder / f"{team}.{ending}"


def _spent(lines: list[dict[str, Any]]) -> int:
    """The probes that are gone: spent and not given back."""
    back = {line["id"] for line in lines if line["kind"] == "returned"}
    return sum(line["cost"] for line in lines if line["kind"] == "spent" and line["id"] not in back)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a ledger; one that a crash tore counts for nothing."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    out = []
    for line in raw.split(b"\n"):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and "kind" in told:
            out.append(told)
    return out


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line, behind a new line where a crash tore the last one."""
    with path.open("ab+") as file:
        size = file.seek(0, 2)
        if size:
            file.seek(size - 1)
            torn = file.read(1) != b"\n"
        else:
            torn = False
        said = json.dumps(line, ensure_ascii=True)
        file.write((("\n" if torn else "") + said + "\n").encode())
