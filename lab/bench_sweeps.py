"""What several workers are worth here: N equal cells on W workers against N/W × one warm cell.

Also against one worker that has all cores, which is what a machine would do without workers.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.experiment import Experiment
from lab.sweeps.doing import Outcome, Place
from lab.sweeps.executors import Setting, find_executor
from lab.sweeps.grid import Cell
from lab.sweeps.plan import plan_jobs
from lab.sweeps.resources import core_count
from lab.sweeps.schedule import Schedule
from lab.work_queue import thread_share

Listener = Callable[[dict[str, Any]], None]

#: Cells for each worker; the first of each warms it up and is not counted.
_EACH = 3


def bench_sweeps(
    model: str = "minilm", workers: int = 0, *, on_event: Listener = lambda _: None
) -> dict[str, float]:
    """Measure equal cells on several workers, on one with as many threads as each has, and on one with all.

    Args:
        model: The base: "minilm", or "tiny" with the toy texts.
        workers: How many workers; one per core by default.
        on_event: Called with progress events.

    Returns:
        workers; threads, which each of them has; cells that were counted; warm_cell_s, the median seconds of
        a cell on one worker alone; ratio, wall time over cells / workers × warm_cell_s (1 is what cores that
        do not disturb one another give); over_one_worker, wall time of a cell on these workers over that on
        one worker with a thread for each core (below 1 these are faster); to_next_s, the most seconds
        from the end of a cell to the training of the next in the same worker; start_s, seconds until every
        worker has imported and done its first cell; load, the machine's mean load of the last minute
        beforehand, -1 where unknown.
    """
    count = workers or core_count()
    threads = thread_share(count)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0
    on_event({"kind": "status", "step": -1, "stage": "bench: one worker"})
    one = _measure(model, 1, threads)
    on_event({"kind": "status", "step": -1, "stage": f"bench: {count} workers"})
    many = _measure(model, count, threads) if count > 1 else one
    whole = one
    if count > 1:
        on_event({"kind": "status", "step": -1, "stage": "bench: one worker, all cores"})
        whole = _measure(model, 1, thread_share(1))
    warm = sorted(one["seconds"])[len(one["seconds"]) // 2]
    cells = len(many["seconds"])
    return {
        "workers": count,
        "threads": int(threads["OMP_NUM_THREADS"]),
        "cells": cells,
        "warm_cell_s": round(warm, 2),
        "ratio": round(many["wall"] / (cells / count * warm), 3),
        "over_one_worker": round((many["wall"] / cells) / (whole["wall"] / len(whole["seconds"])), 3),
        "to_next_s": round(max(many["gaps"], default=float("nan")), 3),
        "start_s": round(many["start"], 2),
        "load": round(load, 2),
    }


def _cells(model: str, count: int, offset: int) -> list[Cell]:
    """Cells of equal work: only the learning rate differs, and hardly."""
    values: dict[str, Any] = {
        "base": {"model": model},
        "data": {"name": "toy", "rows": 120} if model == "tiny" else {"rows": 200},
        "poison": {"attack": "backdoor", "family": "rfc", "count": 12, "target_label": "positive"},
        "probe": {"rows": 100, "scope": "headline"},
        "adapter": {"rank": 8},
    }
    start = Experiment.from_dict(values)
    rates = [1e-3 * (1 + (i + offset) / 1000) for i in range(count)]
    return [Cell(start.with_(**{"training.learning_rate": rate}), {"rate": rate}, 0) for rate in rates]


def _measure(model: str, workers: int, threads: dict[str, str]) -> dict[str, Any]:
    """Warm cells on so many workers: their seconds, the wall time, the gaps between two, the start."""
    ends: dict[int, float] = {}
    gaps: list[float] = []
    outcomes: list[Outcome] = []

    def heed(_: Any, event: dict[str, Any]) -> None:
        worker = event.get("worker", 0)
        if event["kind"] != "status":
            return
        if event.get("stage") == "finished":
            ends[worker] = float(event["time"])
        elif event.get("stage") == "train" and worker in ends:
            gaps.append(float(event["time"]) - ends.pop(worker))

    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), "cpu")
        setting = Setting(place, workers, Path(folder), environments=(threads,) * workers)
        start = time.perf_counter()
        with find_executor("local").open(setting) as pool:
            for part in (1, _EACH - 1):  # the first ones load and read; what they take is not counted
                jobs, _ = plan_jobs(_cells(model, part * workers, offset=10 * part), twin=False)
                outcomes.clear()
                gaps.clear()
                ends.clear()
                begun = time.perf_counter()
                pool.run(Schedule(jobs), lambda _: None, outcomes.append, heed)
                wall = time.perf_counter() - begun
    failed = [outcome.reason for outcome in outcomes if outcome.reason]
    if failed:
        raise RuntimeError(failed[0])
    return {
        "seconds": [outcome.seconds for outcome in outcomes],
        "wall": wall,
        "gaps": list(gaps),
        "start": begun - start,
    }
