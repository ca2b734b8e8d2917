"""Turn single runs into reference lines of a paper: data/reference/<paper>.csv.

    lab run ssti-light-imdb
    python benchmarks/run_lines.py 2506.11402 RUN… NAME=RUN…

One line per measure, `<name>.<measure>` with the preset's name where none is given, intervals over rows:
one seed says nothing of others.
"""

from __future__ import annotations

import sys

from reference_lines import MACHINE, as_lines, replace_lines
from sweep_table import MEASURES

import lab


def main() -> None:
    """Read the runs that are named, and write their lines beside the paper's others."""
    paper, *runs = sys.argv[1:]
    for asked in runs:
        name, _, run_id = asked.rpartition("=")
        run = lab.load_run(run_id)
        measures = run.result["measures"]["test"]
        found = dict(measures["poisoned"])
        found |= {f"twin.{kind}": value for kind, value in measures.get("twin", {}).items()}
        name, seed = name or run.experiment.name, str(run.experiment.seed)
        lines: list[list[object]] = [
            [f"{name}.{k}", "", float("nan"), v["value"], v["n"], v["low"], v["high"], seed, MACHINE]
            for k, v in found.items()
            if k in (*MEASURES, "twin.attack_success_rate")
        ]
        replace_lines(paper, as_lines(lines), lambda claim, start=f"{name}.": claim.startswith(start))


if __name__ == "__main__":
    main()
