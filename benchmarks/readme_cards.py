"""Print the four papers' cards as the README shows them, from committed numbers alone.

    python benchmarks/readme_cards.py

A claim that nothing answers yet has a dash for our number.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from lab import reproduce_paper
from lab.paper_cards.card import number, title
from lab.paper_cards.claims import paper_names


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A claim as the cells of its line."""
    measured = f"{row['measured']}: {number(row)}" if row["held"] else "–"
    seeds = ", ".join(str(row["seeds"]).split()) or "–"
    return title(row), f"{row['paper']} ({row['place']})", measured, seeds, row["verdict"]


def main() -> None:
    """Print a heading, a line of counts and a table for each paper."""
    for name in paper_names():
        with tempfile.TemporaryDirectory() as nothing:
            card = reproduce_paper(name, run=False, runs=nothing)
        counts = ", ".join(f"{verdict} {count}" for verdict, count in card.counts.items() if count)
        lines = [f"`{name}`, arXiv {card.claims.paper.arxiv}: {counts}.", ""]
        lines += ["| claim | the paper | here [95 %], n | seeds | verdict |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in cells(row)) + " |" for row in card.lines]
        sys.stdout.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
