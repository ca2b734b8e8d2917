"""Turn single runs into reference lines of a paper: data/reference/<paper>.csv.

    lab run ssti-light-imdb
    python benchmarks/run_lines.py 2506.11402 RUN…

One line per measure, `<preset>.<measure>`, its interval over rows: one seed says nothing of others.
"""

from __future__ import annotations

import sys

from reference_lines import MACHINE, as_lines, replace_lines
from sweep_table import MEASURES

import lab


def main() -> None:
    """Read the runs that are named, and write their lines beside the paper's others."""
    paper, *runs = sys.argv[1:]
    for run in map(lab.load_run, runs):
        measures = run.result["measures"]["test"]
        found = dict(measures["poisoned"])
        found |= {f"twin.{kind}": value for kind, value in measures.get("twin", {}).items()}
        name, seed = run.experiment.name, str(run.experiment.seed)
        lines: list[list[object]] = [
            [f"{name}.{k}", "", float("nan"), v["value"], v["n"], v["low"], v["high"], seed, MACHINE]
            for k, v in found.items()
            if k in (*MEASURES, "twin.attack_success_rate")
        ]
        replace_lines(paper, as_lines(lines), lambda claim, start=f"{name}.": claim.startswith(start))


if __name__ == "__main__":
    main()
