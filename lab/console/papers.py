"""Paper cards in a terminal: verdict, claim, both numbers; a word always beside a colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lab.console.words import QUIET, standard_output, visible

if TYPE_CHECKING:
    from lab.paper_cards.card import Card

_LOOKS = {
    "agrees": ("✓", "green"),
    "direction only": ("≈", "yellow"),
    "disagrees": ("✗", "red"),
    "cannot say": ("?", "cyan"),
    "not run here": ("–", QUIET),
}


def print_card(card: Card, console: Console | None = None) -> None:
    """Print a paper's card.

    Args:
        card: The card.
        console: Where to; standard output by default.
    """
    (console or standard_output()).print(card_view(card))


def print_papers(lines: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Print the papers with how their claims stand, one line each.

    Args:
        lines: name, arxiv, claims, one count per verdict, and minutes that are left of the CPU tier.
        console: Where to; standard output by default.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("paper", "arXiv", "claims", *_LOOKS, "CPU tier"):
        table.add_column(column, justify="left" if column in ("paper", "arXiv") else "right")
    for line in lines:
        counts = [str(line["counts"][name]) for name in _LOOKS]
        took = f"about {line['minutes']:.0f} min"
        table.add_row(line["name"], line["arxiv"], str(line["claims"]), *counts, took)
    (console or standard_output()).print(table)


def card_view(card: Card) -> Group:
    """What a terminal shows of a card."""
    from lab.paper_cards.card import has_number, held, number, title

    paper = card.claims.paper
    table = Table(box=None, pad_edge=False, show_lines=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", ratio=3)
    table.add_column("the paper's", ratio=2)
    table.add_column("measured here [95 %], n", ratio=2)
    table.add_column("where", ratio=1)
    for line in card.lines:
        sign, look = _LOOKS[line["verdict"]]
        ours = f"{line['measured']}: {number(line)}" if has_number(line) else str(line["measured"]) or "–"
        table.add_row(
            Text(f"{sign} {line['verdict']}", style=look),
            Text(visible(title(line))),
            Text(visible(f"{line['paper']} ({line['place']})"), style=QUIET),
            Text(visible(ours)),
            Text(visible(held(line)), style=QUIET),
        )
    facts = [Text(visible(f"{name}: {value}"), style=QUIET) for name, value in card.facts.items()]
    return Group(
        Text(visible(f"{paper.title} (arXiv {paper.arxiv})"), style="bold"),
        Text(visible(card.summary)),
        table,
        *facts,
    )
