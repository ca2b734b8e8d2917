"""How long a runs folder of thousands of runs takes to read as a table, beside a bare reading of its files.

    python benchmarks/store_scale.py [COUNT …]

Each count is read in a process of its own: pandas is imported and one empty folder read before the clock
starts; the first reading counts. The ratio is to reading and parsing the same JSON files with nothing around
it, in the same process right after: what the table itself costs, whatever the machine and its load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fabricate_runs import fabricate


def measure(folder: Path) -> dict[str, float]:
    """Seconds of wall and CPU time for the table of a folder, and for its files alone."""
    import lab

    with tempfile.TemporaryDirectory() as empty:
        lab.list_runs(empty)
    wall, cpu = time.perf_counter(), time.process_time()
    table = lab.list_runs(folder)
    found = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "runs": len(table)}
    wall = time.perf_counter()
    for name in os.listdir(folder):
        for part in ("experiment.json", "result.json"):
            path = os.path.join(folder, name, part)
            if os.path.isfile(path):
                # some fabricated runs are damaged
                with open(path, "rb") as file, contextlib.suppress(ValueError):
                    json.loads(file.read())
    return {**found, "bare": time.perf_counter() - wall}


def main() -> None:
    """Fabricate runs, read them, and print one line for each count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", nargs="*", type=int, default=[2_000, 20_000])
    parser.add_argument("--read", type=Path, help="only read this folder, and print JSON")
    asked = parser.parse_args()
    if asked.read:
        sys.stdout.write(json.dumps(measure(asked.read)))
        return
    for count in asked.counts:
        with tempfile.TemporaryDirectory() as folder:
            fabricate(Path(folder), count, whole=0)
            command = [sys.executable, __file__, "--read", folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        sys.stdout.write(
            f"{found['runs']:6} runs: {found['seconds']:.2f} s, {found['cpu']:.2f} s of CPU; "
            f"{found['seconds'] / found['bare']:.2f} times a bare reading of the files\n"
        )


if __name__ == "__main__":
    main()
