"""Turn the table of `lint_recall.py` into reference lines: data/reference/2506.11402.csv.

    python benchmarks/lint_recall.py lint_recall.csv
    python benchmarks/lint_table.py lint_recall.csv

Recall of planted cues by dataset and share, with Wilson's interval, and the artefacts on clean rows.
"""

from __future__ import annotations

import sys

import pandas as pd
from reference_lines import MACHINE, as_lines, replace_lines

from lab.stats import rate


def reference(table: pd.DataFrame) -> pd.DataFrame:
    """The reference lines of a recall table."""
    nothing = float("nan")
    lines: list[list[object]] = []
    planted = table[table["cue"].notna()]
    for (dataset, share), group in planted.groupby(["dataset", "share"], sort=False):
        found = rate(int(group["found"].sum()), len(group))
        seeds = " ".join(str(seed) for seed in sorted(set(group["seed"])))
        own = [found.value, found.n, found.low, found.high, seeds, MACHINE]
        lines.append([f"lint.{dataset}.recall at {share:.3g}", "", nothing, *own])
    for line in table[table["cue"].isna()].to_dict("records"):
        claim = f"lint.{line['dataset']}.artefacts on clean rows"
        lines.append([claim, "", nothing, line["artefacts"], 1, nothing, nothing, "", MACHINE])
    return as_lines(lines)


def main() -> None:
    """Replace the linter's lines; those of sweeps stay."""
    replace_lines("2506.11402", reference(pd.read_csv(sys.argv[1])), lambda claim: claim.startswith("lint."))


if __name__ == "__main__":
    main()
