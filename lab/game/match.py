"""A match on disk, so that several browsers play against one server and nothing is lost with a process.

    <runs>/.games/<id>/match.json          what everybody may know: state, budget, names of the adapters
                       rows.json           held rows to try phrases on
                       adapters/<sealed>/  the sealed adapters
                       teams/<team>.json   name and a digest of the secret (lab.game.teams)
                       bets/<team>.json    the team's bets, by adapter
                       probes/<team>.jsonl what it spent and was told, appended only
                       truth.json          written by the reveal
    <runs>/.games/<id>-key/key.json        the truth; nothing but the reveal reads it

States: lobby → playing → closed → revealed; a match that was closed too early goes back to playing. All that
changes a match is done under one lock, for milliseconds; models answer outside of it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock

from lab.audit.sealing import key_path
from lab.errors import LabError
from lab.files import read_json, write_json, writing_to
from lab.game.rules import RULES
from lab.paths import runs_dir
from lab.registry import lookup

SCHEMA = 1
State = Literal["lobby", "playing", "closed", "revealed"]
#: Which state may follow which.
NEXT: dict[State, tuple[State, ...]] = {
    "lobby": ("playing",),
    "playing": ("closed",),
    "closed": ("playing", "revealed"),
    "revealed": (),
}
#: Without 0 and O, 1 and I and L, which people mix up when they read a code aloud.
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_ID = re.compile(r"[0-9a-f]{16}-[0-9a-f]{6}")
_JOIN_LENGTH, _HOST_LENGTH = 5, 10
BUDGETS = (0, 100_000)


@dataclass(frozen=True)
class Match:
    """A match as everybody may see it.

    Attributes:
        id: Sorts by the time of making.
        path: Its folder.
        title: What the host calls it; text of a person.
        state: One of `NEXT`.
        join_code: What a team types to join.
        budget: Probes that each team has.
        rule: A name in `lab.game.rules.RULES`.
        base: What `base.model` says of every adapter's base.
        data: The dataset whose task they learned.
        labels: Label names, in the order of the logits.
        adapters: Names of the sealed folders, in the order in which they are shown as A, B, C, …
        reference: The sealed folder of an adapter that is known to be clean; "" for none.
        families: Trigger families that can be guessed; every dealt one is among them.
    """

    id: str
    path: Path
    title: str
    state: State
    join_code: str
    budget: int
    rule: str
    base: str
    data: str
    labels: tuple[str, ...]
    adapters: tuple[str, ...]
    reference: str
    families: tuple[str, ...]

    def letter(self, adapter: str) -> str:
        """What people call an adapter: A, B, C and so on."""
        place = self.adapters.index(adapter)
        return chr(ord("A") + place) if place < 26 else f"A{place}"

    def sealed(self, adapter: str) -> Path:
        """The folder of a sealed adapter of this match.

        Raises:
            LabError: It is none of this match.
        """
        if adapter not in (*self.adapters, self.reference) or not adapter:
            raise LabError(f"adapter = {str(adapter)[:60]!r}: this match has no such adapter.")
        return self.path / "adapters" / adapter


def games_dir(runs: str | Path | None = None) -> Path:
    """The folder of all matches; it need not exist."""
    return runs_dir(runs) / ".games"


def create_match(
    runs: str | Path | None,
    *,
    title: str,
    budget: int,
    rule: str = "brier",
    public: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    truths: Mapping[str, Mapping[str, Any]],
    match_id: str = "",
) -> tuple[Match, str]:
    """Write down a match whose adapters are sealed already; it begins in the lobby.

    Args:
        runs: The runs folder.
        title: What the host calls it.
        budget: Probes of each team.
        rule: A name in `RULES`.
        public: base, data, labels, adapters, reference and families, as `Match` has them.
        rows: Held rows: text and label.
        truths: What each adapter is, the reference not among them; goes to the key alone.
        match_id: Of the folder that the adapters were sealed into; a new one if "".

    Returns:
        The match, and the host's code, which is written down nowhere.

    Raises:
        LabError: A setting is none, or the folder cannot be written.
    """
    lookup(RULES, rule, "scoring rule")
    check_budget(budget)
    if set(truths) != set(public["adapters"]):
        raise LabError("The key and the dealt adapters of the match are not the same ones.")
    path = games_dir(runs) / (match_id or new_id())
    host = new_code(_HOST_LENGTH)
    with writing_to(path):
        for folder in ("teams", "bets", "probes"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        key_path(path).parent.mkdir(parents=True, exist_ok=True)
        key_path(path).parent.chmod(0o700)
    write_json(path / "rows.json", list(rows))
    write_json(key_path(path), {"schema": SCHEMA, "host": digest(host), "adapters": dict(truths)})
    content = {
        "schema": SCHEMA,
        "title": clean_name(title, "title", longest=60),
        "state": "lobby",
        "join_code": _free_join_code(path.parent),
        "budget": budget,
        "rule": rule,
        **public,
    }
    write_json(path / "match.json", content)  # last: where it is, the match is whole
    return read_match(path.name, runs), host


def list_matches(runs: str | Path | None = None) -> list[Match]:
    """Every match that can be read, newest first."""
    folder = games_dir(runs)
    names = sorted((p.name for p in folder.iterdir()), reverse=True) if folder.is_dir() else []
    return [m for name in names if _ID.fullmatch(name) and (m := _read(folder / name)) is not None]


def read_match(match_id: str, runs: str | Path | None = None) -> Match:
    """One match by its id.

    Raises:
        LabError: There is none, or its file is damaged.
    """
    found = _read(games_dir(runs) / match_id) if _ID.fullmatch(match_id) else None
    if found is None:
        raise LabError(f"No match {match_id[:60]!r} in this runs folder.")
    return found


def find_match(code: str, runs: str | Path | None = None) -> Match:
    """The match of a join code; small letters and spaces are forgiven.

    Raises:
        LabError: No match has this code.
    """
    wanted = plain_code(code)
    for match in list_matches(runs):
        if hmac.compare_digest(match.join_code.encode(), wanted.encode()):
            return match
    raise LabError(f"Join code {code[:20]!r}: no match here has it; the host's page shows it.")


def is_host(match: Match, code: str) -> bool:
    """Whether this is the host's code."""
    key = read_json(key_path(match.path))
    known = key.get("host", "") if isinstance(key, dict) else ""
    return bool(known) and hmac.compare_digest(str(known), digest(plain_code(code)))


def renew_host_code(match: Match) -> str:
    """A new code for the host, where the old one is lost; the old one opens nothing any more."""
    with locked(match.path):
        code = new_code(_HOST_LENGTH)
        write_json(key_path(match.path), {**_key(match), "host": digest(code)})
    return code


def move_on(match: Match, to: State) -> Match:
    """Start, close, open again or reveal a match.

    Args:
        match: The match; its state is read anew.
        to: The state that it is to have. The reveal reads the key and writes `truth.json`.

    Raises:
        LabError: It is not the turn of this state.
    """
    with locked(match.path):
        now = reread(match)
        if to not in NEXT[now.state]:
            allowed = " or ".join(NEXT[now.state]) or "nothing"
            raise LabError(f"The match is {now.state}: it can become {allowed}, not {str(to)[:20]}.")
        if to == "revealed":
            write_json(match.path / "truth.json", _key(match)["adapters"])
        content: dict[str, Any] = read_json(match.path / "match.json") or {}
        write_json(match.path / "match.json", {**content, "state": to})
        return reread(match)


def read_truths(match: Match) -> dict[str, dict[str, Any]]:
    """What each adapter is.

    Raises:
        LabError: The match is not revealed.
    """
    truths = read_json(match.path / "truth.json") if match.state == "revealed" else None
    if not isinstance(truths, dict):
        raise LabError("The key of this match is sealed until the host reveals it.")
    return truths


def read_rows(match: Match) -> list[dict[str, str]]:
    """The held rows of a match: text and label; nothing was trained on them."""
    rows = read_json(match.path / "rows.json")
    return rows if isinstance(rows, list) else []


def reread(match: Match) -> Match:
    """The match as it is now."""
    return read_match(match.id, match.path.parent.parent)


def locked(path: Path) -> filelock.BaseFileLock:
    """The one lock of a match; held for milliseconds, never while a model answers."""
    return filelock.FileLock(path / ".lock", timeout=30)


def new_id() -> str:
    """An id that sorts by time."""
    return f"{time.time_ns():016x}-{secrets.token_hex(3)}"


def new_code(length: int) -> str:
    """A secret that people can read aloud."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def plain_code(code: str) -> str:
    """A code as it was made, however it was typed."""
    return "".join(c for c in code.upper() if not c.isspace() and c != "-")


def digest(secret: str) -> str:
    """What is kept of a secret. The secrets are random and long, so that a fast hash will do."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def clean_name(name: str, what: str, longest: int = 40) -> str:
    """A name as a person gave it, on one line; where it is drawn it goes through `dashboard/text.py`.

    Raises:
        LabError: Nothing that can be seen is left of it.
    """
    seen = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFKC", name))
    kept = " ".join(seen.split())[:longest].strip()
    if not kept:
        raise LabError(f"{what} = {name[:20]!r}: should have 1 to {longest} characters that can be seen.")
    return kept


def check_budget(budget: int) -> None:
    """Refuse a budget that is none.

    Raises:
        LabError: It is below 0, or larger than anybody can spend.
    """
    if not BUDGETS[0] <= budget <= BUDGETS[1]:
        raise LabError(f"budget = {budget}: should be from {BUDGETS[0]} to {BUDGETS[1]:,} probes.")


def _key(match: Match) -> dict[str, Any]:
    key = read_json(key_path(match.path))
    if not isinstance(key, dict) or not isinstance(key.get("adapters"), dict):
        raise LabError(f"The key of the match {match.id} is missing or damaged.")
    return key


def _free_join_code(folder: Path) -> str:
    taken = {m.join_code for m in list_matches(folder.parent)}
    return next(code for code in iter(lambda: new_code(_JOIN_LENGTH), "") if code not in taken)


def _read(path: Path) -> Match | None:
    content: Any = read_json(path / "match.json")
    try:
        if content["schema"] != SCHEMA or content["state"] not in NEXT:
            return None
        return Match(
            id=path.name,
            path=path,
            **{
                name: str(content[name])
                for name in ("title", "join_code", "rule", "base", "data", "reference")
            },
            state=content["state"],
            budget=int(content["budget"]),
            labels=tuple(map(str, content["labels"])),
            adapters=tuple(map(str, content["adapters"])),
            families=tuple(map(str, content["families"])),
        )
    except (TypeError, KeyError, ValueError):
        return None
