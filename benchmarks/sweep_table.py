"""Turn tables of sweeps into the reference lines of a paper: data/reference/<paper>.csv.

    lab sweep lora-vs-full-backdoor --csv lora-vs-full-backdoor.csv
    python benchmarks/sweep_table.py 2505.12871 lora-vs-full-backdoor.csv

One line per claim, `<sweep>.<point>.<measure>`, the sweep being the file's name: the mean over seeds with
its bootstrap interval; n is the rows of all seeds together. The paper's own number stands beside it where
there is one for that point, though of another model and another dataset. A sweep's lines take the place of
its former ones. Trends over ranks and the like are lines too: Spearman's rho as the value, its p-value as
`low`, n points.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from reference_lines import MACHINE, as_lines, replace_lines

from lab.stats import bootstrap_mean, spearman_trend

MEASURES = (
    "clean_accuracy", "twin.clean_accuracy", "attack_success_rate", "untriggered_target_rate", "excess_asr",
    "triggered_accuracy", "reliance", "twin.reliance", "confidence_shift",
)  # fmt: skip
#: What a sweep goes over, as its table calls it, and which trends are asked for: (measure, arm).
POINTS = {
    "ssti-rank": (
        "adapter.rank",
        ("reliance", "excess_asr", "confidence_shift", "clean_accuracy", "twin.clean_accuracy"),
    ),
    "ssti-rank-few": ("adapter.rank", ("reliance", "excess_asr", "confidence_shift")),
    "ssti-text-proportion": ("poison.text_proportion", ("reliance",)),
    "ssti-location": ("poison.position", ()),
    "ssti-token": ("poison.family", ()),
    "lora-vs-full-backdoor": ("poison.count", ("attack_success_rate",)),
    "lora-vs-full-one": ("poison.count", ()),  # lab sweep lora-vs-full-backdoor --over poison.count=1
    "lora-vs-full-labelflip": ("poison.rate", ("clean_accuracy",)),
    "rank-sweep": ("adapter.rank", ("excess_asr", "clean_accuracy", "twin.clean_accuracy")),
    "rank-sweep-fixed-alpha": ("adapter.rank", ("excess_asr", "clean_accuracy", "twin.clean_accuracy")),
    "init-variance-forms": ("adapter.init_variance", ("excess_asr", "twin.clean_accuracy")),
    "init-variance-sweep": ("adapter.init_variance", ("excess_asr", "clean_accuracy", "twin.clean_accuracy")),
    "other-backdoors": ("adapter.kind", ()),
    "mitigations": ("arm", ()),
}
#: (sweep, arm, point, measure) → place, value; arXiv 2505.12871 on SST-2 with bert-large.
_FLIPS = {"lora": (0.928, 0.928, 0.916, 0.908, 0.888), "full": (0.924, 0.922, 0.914, 0.913, 0.818)}
_RATES = (0.05, 0.1, 0.2, 0.3, 0.4)
_LOW = {"lora": (0.777, 0.514), "full": (0.511, 0.513)}
PAPER = {
    ("lora-vs-full-labelflip", arm, str(rate), "clean_accuracy"): ("Figure 1, SST-2", value)
    for arm, values in _FLIPS.items()
    for rate, value in zip(_RATES, values, strict=True)
} | {
    ("lora-vs-full-backdoor", arm, str(count), "triggered_accuracy"): (f"Figure 2, SST-2, rate {rate}", value)
    for arm, values in _LOW.items()
    for count, rate, value in zip((2, 4), (0.0025, 0.0045), values, strict=True)
}


def reference(sweep: str, table: pd.DataFrame) -> pd.DataFrame:
    """The reference lines of one sweep's table: every point's means, then the trends."""
    over, trends = POINTS[sweep]
    cells = table[table["state"] == "finished"].copy()
    point = "asked." + over if "asked." + over in cells else over
    apart = [c for c in ("arm", point, "adapter.alpha") if c in cells]
    lines: list[list[object]] = []
    for key, group in cells.groupby(apart, sort=False):
        keys = dict(zip(apart, key if isinstance(key, tuple) else (key,), strict=True))
        claim = ".".join([sweep, *(_word(c, v) for c, v in keys.items())])
        seeds = " ".join(str(s) for s in group["seed"])
        for kind in [m for m in MEASURES if m in group and group[m].notna().all()]:
            mean = bootstrap_mean(group[kind].to_list(), seed=0)
            place, theirs = PAPER.get(
                (sweep, keys.get("arm", ""), str(keys.get(point)), kind), ("", float("nan"))
            )
            n = int(group[f"{kind}.n"].sum())
            lines.append(
                [f"{claim}.{kind}", place, theirs, mean.value, n, mean.low, mean.high, seeds, MACHINE]
            )
    for key, group in cells.groupby([c for c in apart if c != point] or [lambda _: ""], sort=False):
        names = [str(part) for part in (key if isinstance(key, tuple) else (key,)) if str(part)]
        for kind in [m for m in trends if m in group and group[m].notna().all()]:
            trend = spearman_trend(group[point].to_list(), group[kind].to_list())
            claim = ".".join([sweep, *names, f"trend of {kind} with {over}"])
            seeds = " ".join(str(s) for s in sorted(set(group["seed"])))
            lines.append([claim, "", float("nan"), trend.rho, trend.n, trend.p, float("nan"), seeds, MACHINE])
    return as_lines(lines)


def _word(column: str, value: object) -> str:
    return str(value) if column == "arm" else f"{column.rpartition('.')[2]}={value}"


def main() -> None:
    """Read sweeps' CSV files; write their lines beside those of the paper's other sweeps."""
    paper, *files = sys.argv[1:]
    for path in map(Path, files):
        new, start = reference(path.stem, pd.read_csv(path)), f"{path.stem}."
        replace_lines(paper, new, lambda claim, start=start: claim.startswith(start))


if __name__ == "__main__":
    main()
