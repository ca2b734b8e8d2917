"""Turn the table of `lint_recall.py` into reference lines: data/reference/2506.11402.csv.

    python benchmarks/lint_recall.py lint_recall.csv
    python benchmarks/lint_table.py lint_recall.csv

Recall of planted cues by dataset and share, with Wilson's interval, and the artefacts on clean rows.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pandas as pd

from lab.stats import rate

COLUMNS = ["claim_id", "place", "paper_value", "value", "n", "low", "high", "seeds", "machine"]


def reference(table: pd.DataFrame) -> pd.DataFrame:
    """The reference lines of a recall table."""
    machine, nothing = f"{platform.machine()}, CPU", float("nan")
    lines: list[list[object]] = []
    planted = table[table["cue"].notna()]
    for (dataset, share), group in planted.groupby(["dataset", "share"], sort=False):
        found = rate(int(group["found"].sum()), len(group))
        seeds = " ".join(str(seed) for seed in sorted(set(group["seed"])))
        own = [found.value, found.n, found.low, found.high, seeds, machine]
        lines.append([f"lint.{dataset}.recall at {share:.3g}", "", nothing, *own])
    for line in table[table["cue"].isna()].to_dict("records"):
        claim = f"lint.{line['dataset']}.artefacts on clean rows"
        lines.append([claim, "", nothing, line["artefacts"], 1, nothing, nothing, "", machine])
    return pd.DataFrame(lines, columns=COLUMNS).round(4)


def main() -> None:
    """Replace the linter's lines; those of sweeps stay."""
    target = Path(__file__).parents[1] / "data" / "reference" / "2506.11402.csv"
    new = reference(pd.read_csv(sys.argv[1]))
    if target.is_file():
        former = pd.read_csv(target, dtype={"seeds": str})
        new = pd.concat([former[~former["claim_id"].str.startswith("lint.")], new], ignore_index=True)
    new.to_csv(target, index=False)
    sys.stdout.write(f"wrote {target.name}: {len(new)} lines\n")


if __name__ == "__main__":
    main()
