"""What the terminal shows of a sweep: its preview, a line for each job that ends, and how fast it goes."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from lab.console.sweeps import print_preview, sweep_line, sweep_pace
from lab.sweeps import following
from lab.sweeps.doing import Outcome
from lab.sweeps.following import Following
from lab.sweeps.grid import Cell
from lab.sweeps.plan import SweepJob
from lab.sweeps.preview import SweepPreview

NAN = float("nan")


def cell(rank):
    return Cell(None, {"adapter.rank": rank}, 0)


def job(key, kind="cell"):
    return SweepJob(key, kind, {"seed": 0}, True, (), "")


@pytest.fixture
def told(monkeypatch):
    """Follow four cells and a twin: `told(seconds, outcome, line)` is the event of one that has ended."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: clock.now))
    events, record = [], SimpleNamespace(write=lambda *_, **__: None)
    watch = Following(record, events.append, "clean_accuracy", {"executor": "inline", "workers": 1})
    keys = ["a", "b", "c", "d"]
    jobs = [job("t", "twin"), *map(job, keys)]
    watch.begin("cells", [cell(rank) for rank in (1, 2, 4, 8)], jobs, keys)

    def end(seconds, outcome, line=None):
        clock.now += seconds
        watch.ended(outcome, line or {})
        return events[-1]

    return end


def test_pace_counts_what_was_trained_and_the_best_what_is_there(told):
    there = told(0.1, Outcome("a", "run-a", worked=False), {"clean_accuracy": 0.75})
    assert sweep_line(there) == "1 of 4 cells: adapter.rank = 1, seed = 0: accuracy 75.0 %"
    assert sweep_pace(there) == "best accuracy 75.0 % (adapter.rank = 1, seed = 0)", "nothing was trained yet"
    twin = told(19.9, Outcome("t", "run-t", worked=True))
    assert sweep_line(twin) == "1 of 4 cells: twin run-t"
    assert sweep_pace(twin) == "about 60 s left; best accuracy 75.0 % (adapter.rank = 1, seed = 0)"
    line = {"clean_accuracy": 0.8, "attack_success_rate": 1.0}
    trained = told(20, Outcome("b", "run-b", worked=True), line)
    assert sweep_line(trained).endswith("adapter.rank = 2, seed = 0: accuracy 80.0 %, ASR 100.0 %")
    # a cell in 40 s; two jobs are left, at 20 s each
    assert sweep_pace(trained) == (
        "1.5 cells a minute; about 40 s left; best accuracy 80.0 % (adapter.rank = 2, seed = 0)"
    )
    failed = told(20, Outcome("c", reason="too wide."))
    assert sweep_line(failed) == "3 of 4 cells: adapter.rank = 4, seed = 0: failed: too wide."
    last = told(20, Outcome("d", "run-d", worked=True), {"clean_accuracy": 0.7})
    assert sweep_line(last).startswith("4 of 4 cells")
    assert sweep_pace(last) == "1.5 cells a minute; best accuracy 80.0 % (adapter.rank = 2, seed = 0)"


def test_a_sweep_that_was_done_before_has_no_pace(told):
    events = [told(0.01, Outcome(key, f"run-{key}")) for key in ("t", "a", "b", "c", "d")]
    assert [sweep_pace(event) for event in events] == [""] * 5
    assert sweep_line(events[-1]) == "4 of 4 cells: adapter.rank = 8, seed = 0"


def preview(**change):
    cells = [
        {"adapter.rank": 1, "seed": 0, "run": "tiny-1", "state": "finished", "reason": ""},
        {"adapter.rank": 2, "seed": 0, "run": "tiny-2", "state": "new", "reason": ""},
        {"adapter.rank": 99, "seed": 0, "run": "", "state": "failed", "reason": "99 is too wide."},
    ]
    train = {"runs": 1, "twins": 2, "parents": 0, "bases": 0, "tunings": 0}
    whole = {
        "cells": cells, "finished": 1, "train": train,
        "seconds": {"middle": 600.0, "low": 80.0, "high": 7200.0},
        "basis": "from 2 finished runs of tiny here", "executor": "local", "workers": 2, "why": "2 cores",
    }  # fmt: skip
    return SweepPreview(**whole | change)


def printed(found):
    with open("/dev/null", "w") as nowhere:
        console = Console(width=120, record=True, file=nowhere)
        print_preview(found, console)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_a_preview_is_its_cells_what_is_to_do_and_how_long_that_takes():
    assert printed(preview()) == [
        "adapter.rank seed run state",
        "1 0 tiny-1 finished",
        "2 0 tiny-2 new",
        "99 0 failed",
        "would fail: 99 is too wide.",
        "1 of 3 cells are finished. To do: 1 run, 2 clean twins.",
        "About 10 min (80 s to 2.0 h) with 2 workers (2 cores); from 2 finished runs of tiny here.",
    ]
    assert "with 1 worker;" in printed(preview(workers=1))[-1]


def test_a_preview_with_nothing_to_do_speaks_of_no_time():
    lines = printed(preview(train={"runs": 0}, basis="nothing is left to do"))
    assert lines[-1] == "1 of 3 cells are finished. To do: nothing."


def test_a_preview_of_a_cluster_says_whose_time_it_is():
    lines = printed(preview(executor="ray", workers=0, seconds={}, basis="how long is the cluster's to say"))
    assert lines[-1] == "With the executor ray; how long is the cluster's to say."


def test_a_preview_of_many_cells_lists_the_first():
    many = [{"seed": n, "run": "", "state": "new", "reason": ""} for n in range(1234)]
    lines = printed(preview(cells=many))
    assert "… and 1,034 more" in lines
    assert len(lines) == 1 + 200 + 3
