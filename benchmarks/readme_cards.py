"""Print the four papers' cards as the README shows them, from committed numbers alone.

    python benchmarks/readme_cards.py

A claim that nothing answers yet has a dash for our number.
"""

from __future__ import annotations

import sys
import tempfile

from lab import reproduce_paper
from lab.paper_cards.claims import paper_names


def main() -> None:
    """Print a heading, a line of counts and a table for each paper."""
    for name in paper_names():
        with tempfile.TemporaryDirectory() as nothing:
            card = reproduce_paper(name, run=False, runs=nothing)
        counts = ", ".join(f"{verdict} {count}" for verdict, count in card.counts.items() if count)
        lines = [f"`{name}`, arXiv {card.claims.paper.arxiv}: {counts}.", "", *card.markdown_table()]
        sys.stdout.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
