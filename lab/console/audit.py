"""An audit card in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lab.console.words import ATTACK, CLEAN, QUIET, bar, percent, visible

if TYPE_CHECKING:
    from lab.audit.card import AuditCard, Score

_LOOKS = {"suspicious": ATTACK, "nothing found": CLEAN, "cannot say": "yellow"}
_MOST_STRINGS, _MOST_PREFIXES = 10, 8


def print_card(card: AuditCard, console: Console | None = None) -> None:
    """Print an audit card.

    Args:
        card: The card.
        console: Where to; standard output by default.
    """
    console = console or Console()
    for part in (_head(card), _strings(card), _prefixes(card), _scores(card), _foot(card)):
        if part is not None:
            console.print(part)
            console.print()


def _head(card: AuditCard) -> Panel:
    facts = card.adapter
    ranks = ", ".join(map(str, facts.ranks))
    lines = [
        Text(card.verdict.upper(), style=f"bold {_LOOKS[card.verdict]}"),
        Text(visible(card.because)),
        Text(
            f"{facts.modules} modules, rank {ranks}; on {visible(facts.base) or 'no base'}; "
            f"rows: {card.rows.n} of {card.rows.source}; reference: {card.reference.how}",
            style=QUIET,
        ),
    ]
    return Panel(
        Group(*lines), title=visible(facts.name), title_align="left", border_style=QUIET, padding=(1, 2)
    )


def _strings(card: AuditCard) -> Table | None:
    if not card.strings:
        return None
    table = _table("Strings that move it, found without knowing a trigger")
    for name in ("string", "toward", "at the", "rows moved", "", "references", "excess"):
        table.add_column(name, justify="right" if name in ("rows moved", "references", "excess") else "left")
    for s in card.strings[:_MOST_STRINGS]:
        table.add_row(
            visible(s.string),
            visible(s.target),
            s.position,
            f"{s.k} of {s.n}",
            bar(s.rate),
            percent(s.reference_rate) or "–",
            f"{s.excess:+.2f}",
        )
    return table


def _prefixes(card: AuditCard) -> Table | None:
    if not card.prefixes:
        return None
    table = _table("Prefixes of the battery that move it most")
    for name in ("prefix", "category", "toward", "at the", "rows moved", "references"):
        table.add_column(name, justify="right" if name in ("rows moved", "references") else "left")
    for p in card.prefixes[:_MOST_PREFIXES]:
        table.add_row(
            visible(p.prefix),
            p.category,
            visible(p.target),
            p.position,
            f"{p.k} of {p.n}",
            percent(p.reference_rate) or "–",
        )
    return table


def _scores(card: AuditCard) -> Table:
    table = _table("Scores")
    for name in ("score", "value", "n", "references", "z", "threshold"):
        table.add_column(name, justify="left" if name == "score" else "right")
    for score in card.scores:
        told = score.threshold is not None or score.z is not None or score.finding != "weights"
        if not told and score.name not in ("norm_std", "norm_mean", "stable_rank_mean"):
            continue
        table.add_row(
            Text(score.name, style=ATTACK if score.suspicious else ""),
            _number(score.value),
            f"{score.n} {score.of}",
            _span(score),
            _number(score.z),
            _number(score.threshold),
        )
    return table


def _span(score: Score) -> str:
    if not score.reference:
        return "–"
    return f"{_number(min(score.reference))} to {_number(max(score.reference))}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _foot(card: AuditCard) -> Text:
    lines = [f"looked for: {'; '.join(card.looked_for)}"]
    lines += [f"not looked for: {visible(line)}" for line in card.not_looked_for]
    lines += [f"note: {visible(line)}" for line in card.notes]
    lines.append(f"took {sum(card.seconds.values()):.0f} s; every number: --json FILE, --html FILE")
    return Text("\n".join(lines), style=QUIET)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
