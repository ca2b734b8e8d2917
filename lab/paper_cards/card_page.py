"""A card as parts of a page: one HTML file that makes no request, and what a notebook shows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import page
from lab.page import Html
from lab.paper_cards.verdicts import RULE

if TYPE_CHECKING:
    from lab.paper_cards.card import Card


def card_html(card: Card) -> str:
    """A card as a whole document, with its figure."""
    from lab.figures import claim_forest

    paper = card.claims.paper
    figure = page.figure(
        claim_forest(card.table),
        "The paper's numbers beside those measured here",
        "Filled markers with 95 % intervals were measured here, open diamonds are the paper's.",
        "claims",
    )
    return page.document(
        f"{card.claims.name} · LoRA backdoor lab",
        page.paragraph("Paper card of the LoRA backdoor lab", "eyebrow"),
        page.heading(paper.title, 1),
        *card_parts(card, level=2),
        page.section("In one figure", 2, figure),
    )


def card_parts(card: Card, level: int) -> list[Html]:
    """What a card says, without its title: summary, facts, claims, rule and notes.

    Args:
        card: The card.
        level: Of the headings in it.
    """
    paper = card.claims.paper
    notes = [(line["says"], f"{line['note']}") for line in card.lines if line["note"]]
    return [
        page.paragraph(f"arXiv {paper.arxiv}. {paper.says}", "lead"),
        page.paragraph(card.summary),
        page.facts([("theirs", paper.theirs), ("ours", paper.ours), *card.facts.items()]),
        page.section("Claims", level, _claims(card)),
        page.section("The rule", level, page.paragraph(RULE, "note")),
        *([page.section("Notes", level, page.glossary(notes))] if notes else []),
    ]


def _claims(card: Card) -> Html:
    from lab.paper_cards.card import held, number, title

    head = [
        "claim",
        "verdict",
        "the paper's",
        "place",
        "measured here",
        "expected",
        "value [95 %], n",
        "where",
    ]
    lines = [
        [
            title(line), str(line["verdict"]), str(line["paper"]), str(line["place"]),
            str(line["measured"]) or "–", str(line["expected"]) or "–", number(line), held(line),
        ]
        for line in card.lines
    ]  # fmt: skip
    return page.table("Each claim, the paper's number and this laboratory's", head, lines, numbers=[6])
