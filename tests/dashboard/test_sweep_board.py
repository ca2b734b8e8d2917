import math
import sys

import pytest
from apps import healthy, named, said

from lab.sweeps import read_sweep
from lab.sweeps.asking import Asked
from lab.sweeps.records import SweepRecord


def record(runs, tiny, state="finished", over=None, cells=(), **told):
    """A sweep's record as it lies on disk, without anything being run."""
    over = {"adapter.rank": [2, 4]} if over is None else over
    asked = Asked.read(tiny, over, arms=None, seeds=2, tune=None, twin=True)
    made = SweepRecord(runs, asked.described())
    made.plan()
    made.write(
        {"state": state, "cells": list(cells), "jobs": [len(cells), 4], "stage": "cells", **told}, now=True
    )
    return made.id


def cell(run, rank, seed=0, state="finished", reason=""):
    return {"point": {"adapter.rank": rank}, "seed": seed, "state": state, "run": run, "reason": reason}


def test_without_sweeps_the_page_says_how_to_start_one(page, one):
    app = healthy(page("compare", one))
    assert "No sweep has been run here yet" in said(app)
    assert named(app.selectbox, "First axis").value == "adapter.rank"


def test_a_finished_sweep_is_a_map_of_its_cells(page, one, poisoned, tiny):
    record(one, tiny, cells=[cell(poisoned, 4), cell("", 2, state="failed", reason="too wide")])
    app = healthy(page("compare", one))
    assert "is done: 1 of 2 cells" in said(app)
    assert "too wide" in said(app)


def test_a_sweep_whose_process_is_gone_can_go_on(page, one, poisoned, tiny, monkeypatch):
    id = record(one, tiny, "running", cells=[cell(poisoned, 4), cell("", 2, state="waiting")])
    assert read_sweep(id, one).state == "killed", "nobody holds it"
    started = []
    monkeypatch.setattr("lab.sweeps.background.start_detached", lambda words, **_: started.append(words))
    app = healthy(page("compare", one, sweep=id))
    named(app.button, "Go on").click().run()
    assert started == [["sweep", "--go-on", id, "--runs", str(one)]]


def test_a_grid_is_put_together_and_started(page, one, monkeypatch):
    started = []
    monkeypatch.setattr("lab.sweeps.background.start_detached", lambda words, **_: started.append(words))
    app = healthy(page("compare", one))
    named(app.text_input, "Values, with commas").set_value("2, 4").run()
    named(app.number_input, "Seeds").set_value(1).run()
    assert "8 cells" in said(app)
    named(app.button, "Start the sweep").click().run()
    healthy(app)
    [words] = started
    sweep = read_sweep(words[2], one)
    assert sweep.state == "waiting"
    assert sweep.asked["over"] == {"adapter.rank": [2, 4], "poison.count": [10, 20, 40, 80]}
    assert sweep.asked["seeds"] == [0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("", "has no value"),
        ("0, 4", "adapter.rank"),
        ("four", "adapter.rank"),
        (", ".join(map(str, range(1, 200))), "500 at most"),
    ],
)
def test_a_grid_that_cannot_be_is_one_sentence_and_starts_nothing(page, one, values, message):
    app = page("compare", one)
    named(app.text_input, "Values, with commas").set_value(values).run()
    assert not app.exception
    assert message in said(app)
    assert not [b for b in app.button if b.label == "Start the sweep"]


def test_hostile_words_of_a_record_are_shown_as_words(page, one, poisoned, tiny):
    record(one, tiny, cells=[cell("", 4, state="failed", reason="<img src=x onerror=alert(1)>**x**")])
    app = healthy(page("compare", one))
    assert r"\<img src\=x onerror\=alert\(1\)\>\*\*x\*\*" in app.warning[0].value


def test_a_torn_record_leaves_the_page_as_it_is(page, one, tiny):
    id = record(one, tiny, cells=[])
    (one / ".sweeps" / id / "state.json").write_text('{"cells": [')
    healthy(page("compare", one))
    assert math.isnan(read_sweep(id, one).left)


def test_the_editor_needs_no_torch():
    before = set(sys.modules)
    import lab.sweeps  # noqa: F401

    assert "torch" not in set(sys.modules) - before
