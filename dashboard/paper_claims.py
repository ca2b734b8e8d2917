"""The claims of a paper in words, each with its verdict and both numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st

from lab.markup import escaped

if TYPE_CHECKING:
    from lab.paper_cards import Card

_SIGNS = {"agrees": "✓", "direction only": "≈", "disagrees": "✗", "cannot say": "?", "not run here": "–"}


def render_counts(card: Card) -> None:
    """The verdicts and how often each was reached, as chips with their words."""
    chips = [chip(name, f"{name} {count}") for name, count in card.counts.items() if count]
    st.html(f'<p aria-label="Verdicts">{" ".join(chips)}</p>')


def render(card: Card) -> None:
    """Every claim, in the order of the file."""
    st.html("".join(claim_html(line) for line in card.lines))


def chip(verdict: str, said: str = "") -> str:
    """A verdict as a chip: sign, word and colour; HTML."""
    sign = _SIGNS.get(verdict, "")
    kind = verdict.replace(" ", "-")
    return f'<span class="lab-verdict lab-verdict-{escaped(kind)}">{sign} {escaped(said or verdict)}</span>'


def claim_html(line: Mapping[str, Any]) -> str:
    """One claim of a card as HTML; every word of it escaped.

    Args:
        line: A line of a card's table.
    """
    from lab.paper_cards.card import has_number, held, number, title

    ours = "nothing measured yet" if line["measured"] else "nothing here measures it"
    if has_number(line):
        ours = number(line)
    expected = f" (claimed: {line['expected']})" if line["expected"] else ""
    facts = [
        ("the paper's", str(line["paper"]), str(line["place"])),
        ("here", ours, f"{line['measured']}{expected}"),
    ]
    if has_number(line):
        facts.append(("where", held(line), str(line["reason"])))
    cells = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>"
        f'<dd class="lab-small">{escaped(under)}</dd></div>'
        for name, value, under in facts
    )
    note = f'<div class="lab-small">{escaped(line["note"])}</div>' if line["note"] else ""
    return (
        f'<section class="lab-claim">{chip(str(line["verdict"]))}<h3>{escaped(title(line))}</h3>'
        f"<dl>{cells}</dl>{note}</section>"
    )
