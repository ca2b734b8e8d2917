"""Papers: what four papers claim, beside what this machine, or a committed measurement, found."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import panels
import paper_claims
import paper_sources
import readers
import streamlit as st
from text import plain
from widgets import switch

from lab.paper_cards import RULE, Card, load_claims, paper_names

if TYPE_CHECKING:
    from lab.comparison import Listing

#: The order of the reading: attack, its defence, the variants.
_ORDER = ("token-generalization", "rora", "ssti", "lora-vs-full")
_TITLES = {
    "token-generalization": "Triggers generalize",
    "rora": "LoRA fails to forget",
    "ssti": "Spurious tokens",
    "lora-vs-full": "LoRA or full",
}
_FIGURE = (
    "Each line is a claim: a filled marker is what was measured here with its 95 % interval, an open diamond "
    "the paper's number where it is of the same quantity. Shares, differences, AUCs and rank correlations "
    "share the axis, so a line compares with its own diamond and with 0, not with other lines."
)
#: A listing stays the same object until a run changes.
_cards: WeakKeyDictionary[Listing, dict[str, Card]] = WeakKeyDictionary()


def main() -> None:
    """Draw the page."""
    st.markdown("# What the papers claim, and what was found here")
    names = sorted(paper_names(), key=lambda name: (name not in _ORDER, [*_ORDER, name].index(name)))
    chosen = switch("Paper", "paper", {n: _TITLES.get(n, n) for n in names}, names[0], hidden=True)
    with panels.part("The card"):
        _render(_card(chosen))


def _card(name: str) -> Card:
    """The card of a paper; worked out again when a run has changed."""
    from lab.paper_cards.reproducing import card_of

    listing = readers.listing()
    kept = _cards.setdefault(listing, {})
    if name not in kept:
        kept[name] = card_of(load_claims(name), listing.table, readers.runs_folder())
    return kept[name]


def _render(card: Card) -> None:
    paper = card.claims.paper
    st.markdown(f"## {plain(paper.title, 200)}")
    st.markdown(plain(paper.says, 500))
    st.caption(plain(f"arXiv {paper.arxiv}. There: {paper.theirs}. Here: {paper.ours}.", 900))
    paper_claims.render_counts(card)
    # figure and buttons first: on a phone, one column follows the other
    left, right = st.columns([0.46, 0.54], gap="large")
    with left:
        _render_figure(card)
        paper_sources.render(card)
    with right:
        paper_claims.render(card)
        with st.expander("How a verdict is reached"):
            st.markdown(plain(RULE, 1200))


def _render_figure(card: Card) -> None:
    from lab.figures import claim_forest

    panels.figure_panel(
        "The paper's numbers beside those measured here",
        _FIGURE,
        lambda: claim_forest(card.table),
        key=f"claims-{card.claims.name}",
        table=card.table,
        of=(card.claims.name, readers.digest(card.table.drop(columns=["runs"]))),
    )


main()
