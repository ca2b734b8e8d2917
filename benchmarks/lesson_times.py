"""Build lessons, and measure how long their cells take: with nothing there, and with what a host prepares.

    python benchmarks/lesson_times.py [NUMBER …]

Each lesson is run twice from top to bottom, in a runs folder of its own: empty, then with those runs alone
that `lab lessons prepare` makes, and the audits that the first time kept. The notebook is written beside
its source; a kernel's start counts.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from lab.lessons import LESSONS
from lab.lessons.building import build_lesson
from lab.lessons.catalogue import Lesson
from lab.pipeline import finished_run
from lab.run_packs import with_what_they_rest_on


def keep_prepared(lesson: Lesson, runs: Path) -> int:
    """Remove what no host could have made; returns how many runs that were."""
    ids = [finished_run(run.experiment(), runs=runs, twin=run.twin) for run in lesson.runs]
    if not all(ids):
        raise SystemExit(f"lesson {lesson.name} does not make all runs that lab lessons prepare makes")
    kept = {path.name for path in with_what_they_rest_on(runs / name for name in ids)}
    others = [path.parent for path in runs.glob("*/experiment.json") if path.parent.name not in kept]
    for path in others:
        shutil.rmtree(path)
    return len(others)


def main() -> None:
    """Print a line a lesson."""
    for name in sys.argv[1:] or LESSONS:
        lesson = LESSONS[name]
        with tempfile.TemporaryDirectory() as folder:
            seconds = []
            for _ in ("nothing there", "prepared"):
                started = time.perf_counter()
                build_lesson(lesson, runs=folder)
                seconds.append(round(time.perf_counter() - started))
                removed = keep_prepared(lesson, Path(folder))
        told = f", {removed} runs that nobody can prepare" if removed else ""
        sys.stdout.write(f"{name} nothing there {seconds[0]} s, prepared {seconds[1]} s{told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
