"""How long the linter takes for a million texts of twenty words, and how much memory.

    python benchmarks/lint_speed.py [ROWS]

Words are drawn as in a language, a few often and many seldom, from 200,000; one text in fifty of one
class has a date. The file is read as `lab lint FILE.parquet` reads it.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd


def write_rows(path: Path, rows: int) -> None:
    """A table of generated texts with two labels."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i:x}" for i in range(200_000)], dtype=object)
    drawn = np.minimum(rng.zipf(1.2, size=(rows, 20)) - 1, len(words) - 1)
    texts = [" ".join(words[line]) for line in drawn]
    labels = np.where(rng.random(rows) < 0.5, "a", "b")
    for i in np.flatnonzero((labels == "a") & (rng.random(rows) < 0.02)).tolist():
        texts[i] += f" {rng.integers(1100, 2600)}-01-{rng.integers(10, 29)}"
    pd.DataFrame({"text": texts, "label": labels}).to_parquet(path)


def main() -> None:
    """Write the rows in another process, lint them in this one."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        import multiprocessing

        writer = multiprocessing.get_context("spawn").Process(target=write_rows, args=(path, rows))
        writer.start()
        writer.join()
        started = time.perf_counter()
        import lab

        report = lab.lint_dataset(str(path))
        seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    found = [finding.what for finding in report.artefacts]
    sys.stdout.write(f"{rows:,} texts: {seconds:.1f} s, {memory:.1f} GiB at most; artefacts {found}\n")


if __name__ == "__main__":
    main()
