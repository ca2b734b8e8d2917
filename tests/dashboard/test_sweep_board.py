import base64
import math
import os
import sys
import time

import numpy as np
import plotly.io
import pytest
from apps import healthy, named, said

from lab import list_runs
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


def test_a_sweep_that_broke_off_says_why_and_can_go_on(page, one, poisoned, tiny):
    why = "Workers cannot start (exit code 1): **no** torch."
    record(one, tiny, "failed", cells=[cell(poisoned, 4), cell("", 2, state="waiting")], reason=why)
    app = healthy(page("compare", one))
    assert "broke off; it goes on where it was: 1 of 2 cells" in said(app)
    assert r"\*\*no\*\* torch" in app.error[0].value
    assert not named(app.button, "Go on").disabled


def test_a_sweep_that_was_tuned_without_some_candidates_says_so(page, one, poisoned, tiny):
    text = "tuning: 1 of 3 candidates failed, the first: **no** memory."
    lost = {"point": {"adapter.rank": 4}, "text": text, "failed": 1}
    record(one, tiny, "failed", cells=[cell(poisoned, 4)], tunings=[lost])
    app = healthy(page("compare", one))
    assert "is done, but some candidates of a tuning failed: 1 of 1 cells" in said(app)
    told = app.warning[0].value
    assert r"\*\*no\*\* memory" in told
    assert told.replace("\\", "") == f"rank 4: {text}"


def test_a_sweep_whose_process_is_gone_can_go_on(page, one, poisoned, tiny, monkeypatch):
    id = record(one, tiny, "running", cells=[cell(poisoned, 4), cell("", 2, state="waiting")])
    assert read_sweep(id, one).state == "killed", "nobody holds it"
    started = []
    monkeypatch.setattr("lab.sweeps.background.start_detached", lambda words, **_: started.append(words))
    app = healthy(page("compare", one, sweep=id))
    named(app.button, "Go on").click().run()
    assert started == [["sweep", "--go-on", id, "--runs", str(one)]]


def grid_cell(rank, count, state="waiting", run=""):
    point = {"adapter.rank": rank, "poison.count": count}
    return {"point": point, "seed": 0, "state": state, "run": run, "reason": ""}


@pytest.fixture
def running(one, poisoned, tiny):
    """A sweep that this process drives: of 2 × 2 cells, one finished, one running, two waiting."""
    over = {"adapter.rank": [4, 8], "poison.count": [12, 24]}
    made = SweepRecord(one, Asked.read(tiny, over, arms=None, seeds=1, tune=None, twin=True).described())
    cells = [
        grid_cell(4, 12, "finished", poisoned),
        grid_cell(4, 24, "running"),
        grid_cell(8, 12),
        grid_cell(8, 24),
    ]
    with made.held():
        made.write(
            {"state": "running", "cells": cells, "jobs": [2, 6], "stage": "cells", "left": 120.0}, now=True
        )
        yield made


def test_a_running_sweep_can_be_cancelled(page, one, running):
    app = healthy(page("compare", one, sweep=running.id))
    assert "is being run: 1 of 4 cells; cells, 2 of 6 jobs, about 2 minutes left" in said(app)
    assert "Go on" not in [button.label for button in app.button]
    assert not running.should_stop()
    healthy(named(app.button, "Cancel").click().run())
    assert running.should_stop(), "whoever drives it looks for that"
    assert "It stops after the step that is under way" in app.toast[0].value


def test_a_sweep_that_has_not_begun_cannot_be_cancelled_yet_and_goes_on_when_it_never_does(page, one, tiny):
    made = SweepRecord(one, Asked.read(tiny, {}, arms=None, seeds=1, tune=None, twin=True).described())
    made.plan()
    app = healthy(page("compare", one, sweep=made.id))
    assert "is about to begin" in said(app)
    assert named(app.button, "Cancel").disabled
    long_ago = time.time() - 600
    os.utime(made.folder / "plan.json", (long_ago, long_ago))
    app = healthy(page("compare", one, sweep=made.id))
    assert "lost its process" in said(app)
    assert "Cancel" not in [button.label for button in app.button]
    assert not named(app.button, "Go on").disabled


def test_the_map_of_a_running_sweep_has_all_its_cells(page, one, poisoned, running):
    app = healthy(page("compare", one, sweep=running.id))
    assert "3 cells have no result yet" in said(app)
    [chart] = [c.proto for c in app.get("plotly_chart") if f"sweep-map-{running.id}" in c.proto.id]
    heat, missing, marks = plotly.io.from_json(chart.spec).data
    assert [tuple(mark[:2]) for mark in marks.customdata] == [(12, 4), (24, 4), (12, 8), (24, 8)]
    assert [mark[2] for mark in marks.customdata] == [poisoned, "", "", ""]
    assert list(zip(missing.x, missing.y, strict=True)) == [(1, 0), (0, 1), (1, 1)]
    rates = np.frombuffer(base64.b64decode(heat.z["bdata"]), heat.z["dtype"])
    excess = list_runs(one).set_index("id").loc[poisoned, "excess_asr"]
    assert rates.tolist() == pytest.approx([excess, math.nan, math.nan, math.nan], nan_ok=True)


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
