"""Turn the table of `lab sweep rora-table --csv FILE` into data/reference/2601.06305.csv.

    lab sweep rora-table --csv rora.csv
    python benchmarks/rora_table.py rora.csv

Sweeps may come in parts: an arm's lines are added, or take the place of that arm's former ones.

One line per claim: ours for each trigger, arm, measure and base, and their mean over the bases, with the
paper's own number beside it where there is one. The paper's are of RoBERTa-large on SST-2 and come from third
parties' quotations of its Tables 4 and 5; ours are of a 22 M encoder on rotten_tomatoes.
"""

from __future__ import annotations

import sys

import pandas as pd
from reference_lines import MACHINE, as_lines, replace_lines

from lab.stats import bootstrap_mean

TRIGGERS = {"mn": "rare-word", "I watched this 3D movie": "sentence"}
MEASURES = {
    "clean_accuracy": "clean accuracy",
    "attack_success_rate": "ASR",
    "untriggered_target_rate": "untriggered target rate",
    "excess_asr": "excess ASR",
}
#: (trigger, arm) → place, clean accuracy, ASR; NaN where it was not recovered.
PAPER = {
    ("rare-word", "lora"): ("Table 4", 0.9571, 0.9974),
    ("rare-word", "cl"): ("Table 4", 0.9616, 0.1034),
    ("rare-word", "tr"): ("Table 4", 0.9533, 0.1342),
    ("rare-word", "rora"): ("Table 4", 0.9599, 0.0649),
    ("rare-word", "dora"): ("Table 5", 0.9561, 0.6623),
    ("rare-word", "rora-dora"): ("Table 5", 0.9638, 0.0616),
    ("sentence", "lora"): ("Table 4", 0.9568, 0.8709),
    ("sentence", "cl"): ("Table 4", 0.9616, 0.6568),
    ("sentence", "tr"): ("Table 4", 0.9586, 0.9384),
    ("sentence", "rora"): ("Table 4", 0.9583, 0.1705),
    ("sentence", "dora"): ("Table 5", 0.9599, 0.9934),
    ("sentence", "rora-dora"): ("Table 5", 0.9533, 0.2156),
}


def reference(table: pd.DataFrame) -> pd.DataFrame:
    """The reference lines of a sweep's table; every cell and every mean over the bases."""
    lines: list[list[object]] = []
    finished = table[table["state"] == "finished"]
    for (member, arm), cells in finished.groupby(["trigger", "arm"], sort=False):
        trigger = TRIGGERS.get(str(member), str(member))
        place, accuracy, asr = PAPER.get((trigger, str(arm)), ("", float("nan"), float("nan")))
        theirs = {"clean_accuracy": accuracy, "attack_success_rate": asr}
        for kind in MEASURES:
            if kind not in cells or cells[kind].isna().all():
                continue
            claim = f"{trigger}.{arm}.{kind}"
            mean = bootstrap_mean(cells[kind].to_list(), seed=0)
            lines.append(
                [
                    claim,
                    place if kind in theirs else "",
                    theirs.get(kind, float("nan")),
                    mean.value,
                    int(cells[f"{kind}.n"].sum()),
                    mean.low,
                    mean.high,
                    " ".join(str(s) for s in cells["seed"]),
                    MACHINE,
                ]
            )
            for cell in cells.to_dict("records"):
                own = [cell[kind], int(cell[f"{kind}.n"]), cell[f"{kind}.low"], cell[f"{kind}.high"]]
                lines.append([f"{claim}.base{cell['seed']}", "", float("nan"), *own, cell["seed"], MACHINE])
    return as_lines(lines)


def _arm(claim: str) -> str:
    """The trigger and arm of a claim: "rare-word.lora" of "rare-word.lora.excess_asr.base0"."""
    return ".".join(claim.split(".")[:2])


def main() -> None:
    """Read a sweep's CSV files; write their lines beside the paper's own and what was measured before."""
    new = reference(pd.concat([pd.read_csv(path) for path in sys.argv[1:]], ignore_index=True))
    # an arm measured anew on a trigger takes the place of its former lines
    measured = set(new["claim_id"].map(_arm))
    replace_lines("2601.06305", new, lambda claim: _arm(claim) in measured)


if __name__ == "__main__":
    main()
