"""Paper cards: each claim of a paper beside what was measured here, with a verdict by one stated rule.

Claims are data (`data/claims/<paper>.toml`, `claims`), the rule is one function (`verdicts`), numbers come
from finished runs or committed lines (`evidence`), and a `Card` shows the result (`card`).
"""

from __future__ import annotations

from lab.paper_cards.card import CARD_COLUMNS, Card, evaluate
from lab.paper_cards.claims import PaperClaims, load_claims, paper_names
from lab.paper_cards.evidence import RESULT_COLUMNS, result_table
from lab.paper_cards.reproducing import read_card, reproduce_paper
from lab.paper_cards.verdicts import RULE, VERDICTS, Expected, verdict

__all__ = [
    "CARD_COLUMNS",
    "RESULT_COLUMNS",
    "RULE",
    "VERDICTS",
    "Card",
    "Expected",
    "PaperClaims",
    "evaluate",
    "load_claims",
    "paper_names",
    "read_card",
    "reproduce_paper",
    "result_table",
    "verdict",
]
