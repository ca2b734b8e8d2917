"""Keep what `lab reproduce` measured as committed numbers: data/reference/passes/<arxiv>.csv.

    lab reproduce rora --runs RUNS
    python benchmarks/keep_pass.py rora RUNS [TABLES]

A source takes the place of its former lines once all of its cells are finished; others keep theirs. With
TABLES, a folder, each source's cells are written there too, as `lab sweep --csv` writes them: what
`rora_table.py` and `sweep_table.py` make the lines of data/reference/<arxiv>.csv from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import lab
from lab.paper_cards import PaperClaims, load_claims
from lab.paper_cards.passes import pass_path, pass_table
from lab.paper_cards.reproducing import SEEDS, run_source, steps

DIGITS = 6


def keep(claims: PaperClaims, runs: Path) -> list[str]:
    """Write a paper's pass; returns the sources whose lines are new."""
    listing = lab.list_runs(runs)
    found = steps(claims, "cpu", SEEDS, listing, runs)
    whole = [step.name for step in found if step.cells and not step.missing]
    new = pass_table(claims, listing, runs).round(DIGITS)
    new = new[new["source"].isin(whole)]
    target = pass_path(claims.paper.arxiv)
    target.parent.mkdir(parents=True, exist_ok=True)
    measured = list(dict.fromkeys(new["source"]))
    if target.is_file():
        former = pd.read_csv(target)
        new = pd.concat([former[~former["source"].isin(measured)], new], ignore_index=True)
    for column in new.columns[new.columns.str.endswith(".n")]:
        new[column] = new[column].astype("Int64")  # another source's measures make it float
    new.to_csv(target, index=False)
    sys.stdout.write(f"wrote {target.name}: {len(new)} cells, of which new: {', '.join(measured)}\n")
    return measured


def write_tables(claims: PaperClaims, measured: list[str], runs: Path, folder: Path) -> None:
    """Write the table of each source as a sweep gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in measured:
        table = run_source(claims.sources[name], runs=runs)
        table.to_csv(folder / f"{name}.csv", index=False)
        sys.stdout.write(f"wrote {name}.csv: {len(table)} cells\n")


def main() -> None:
    """Read the paper, the runs folder and perhaps a folder for tables."""
    paper, runs, *tables = sys.argv[1:]
    claims = load_claims(paper)
    measured = keep(claims, Path(runs))
    if tables:
        write_tables(claims, measured, Path(runs), Path(tables[0]))


if __name__ == "__main__":
    main()
