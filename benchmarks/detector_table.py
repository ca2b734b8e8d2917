"""Turn the tables of `lab cohort judge NAME --csv FILE` into data/reference/2605.30189.csv.

    lab cohort judge minilm --csv minilm.csv
    lab cohort judge minilm-narrow --calibrated-by cohorts/minilm --csv minilm-narrow.csv
    python benchmarks/detector_table.py minilm.csv minilm-narrow.csv

One line per claim: `<cohort>.<detector>.<measure>`, the cohort being the file's name. A cohort's lines take
the place of its former ones. The paper's numbers beside the battery's and the weights' are of 34 adapters of
a 1.5 B language model, most of which its batteries resemble; ours are of a 22 M encoder, and of families
that no battery holds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from reference_lines import MACHINE, as_lines, replace_lines

#: detector → place, AUC: of the most distant subset of the paper's calibration battery; of its weights.
PAPER = {
    "paper_battery_mean": ("notebook 09, battery C", 0.942),
    "paper_battery_gap": ("notebook 09, battery C", 0.925),
    "weight_spread": ("notebook 10", 1.0),
}


def reference(cohort: str, table: pd.DataFrame) -> pd.DataFrame:
    """The reference lines of one cohort's table: AUC; recall and false positives at each allowed share."""
    lines: list[list[object]] = []
    for line in table.to_dict("records"):
        claim = f"{cohort}.{line['detector']}"
        both = int(line["recall.n"] + line["false_positives.n"])
        place, theirs = PAPER.get(str(line["detector"]), ("", float("nan")))
        if line["allowed"] == 0:
            own = [line["auc"], both, line["auc.low"], line["auc.high"]]
            lines.append([f"{claim}.auc", place, theirs, *own, 0, MACHINE])
        for kind in ("recall", "false_positives"):
            own = [line[kind], int(line[f"{kind}.n"]), line[f"{kind}.low"], line[f"{kind}.high"]]
            lines.append([f"{claim}.{kind}.at{line['allowed']:.2f}", "", float("nan"), *own, 0, MACHINE])
    return as_lines(lines)


def main() -> None:
    """Read the tables, and write their lines beside those of other cohorts."""
    for path in map(Path, sys.argv[1:]):
        new, start = reference(path.stem, pd.read_csv(path)), f"{path.stem}."
        replace_lines("2605.30189", new, lambda claim, start=start: claim.startswith(start))


if __name__ == "__main__":
    main()
