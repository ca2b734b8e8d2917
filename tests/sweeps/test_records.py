"""Sweeps on disk: read without torch, by whoever follows; a killed one is told from one that runs."""

import json
import subprocess
import sys

import pytest

import lab
from lab.errors import LabError
from lab.sweeps import list_sweeps, read_sweep, stop_sweep
from lab.sweeps.records import SweepRecord, sweep_id, sweeps_dir
from lab.training_stage import StoppedError

ASKED = {"experiment": {"seed": 0}, "over": {"adapter.rank": [1, 2]}, "seeds": [0]}


def test_the_same_question_has_the_same_id():
    assert sweep_id(ASKED) == sweep_id(json.loads(json.dumps(ASKED)))
    assert sweep_id(ASKED) != sweep_id({**ASKED, "seeds": [1]})


def test_a_sweep_that_nobody_holds_was_killed(tmp_path):
    record = SweepRecord(tmp_path, ASKED)
    with record.held():
        record.write({"state": "running", "cells": [], "left": float("nan")}, now=True)
        assert read_sweep(record.id, tmp_path).state == "running"
        with pytest.raises(LabError, match="run by another process"), SweepRecord(tmp_path, ASKED).held():
            pass
        stop_sweep(record.id, tmp_path)
        assert record.should_stop()
    found = read_sweep(record.id, tmp_path)
    assert found.state == "killed"
    assert found.left != found.left
    with pytest.raises(LabError, match="is not running"):
        stop_sweep(record.id, tmp_path)


@pytest.mark.parametrize("id", ["", "..", "0123456789ab", "../../etc", "x" * 300])
def test_a_record_that_is_not_there(id, tmp_path):
    with pytest.raises(LabError, match="No sweep"):
        read_sweep(id, tmp_path)
    assert list_sweeps(tmp_path) == []


def test_a_record_that_is_damaged_is_passed_over(tmp_path):
    folder = sweeps_dir(tmp_path) / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text('{"schema": 1')
    assert list_sweeps(tmp_path) == []


def test_a_sweep_can_be_followed_stopped_and_asked_again(tiny, tmp_path):
    quick = tiny.with_(**{"training.steps": 2, "probe.scope": "headline"})
    states = []

    def follow(event):
        if event["kind"] == "sweep":
            (found,) = list_sweeps(tmp_path)
            states.append([cell["state"] for cell in found.cells])
            if len(states) == 1:
                stop_sweep(found.id, tmp_path)

    over = {"adapter.rank": [1, 2]}
    with pytest.raises(StoppedError):
        lab.sweep(quick, over, seeds=1, twin=False, runs=tmp_path, on_event=follow)
    (found,) = list_sweeps(tmp_path)
    assert found.state == "stopped"
    assert [cell["state"] for cell in found.cells] == ["finished", "waiting"]
    table = lab.sweep(quick, over, seeds=1, twin=False, runs=tmp_path, on_event=follow)
    (found,) = list_sweeps(tmp_path)
    assert found.state == "finished"
    assert [cell["run"] for cell in found.cells] == table["run"].tolist()
    assert found.jobs == (2, 2)
    assert found.best["value"] == table["clean_accuracy"].max()
    assert found.asked["over"] == over


def test_reading_needs_neither_torch_nor_pandas(tmp_path):
    code = "import sys, lab.sweeps.records; print(sorted({'torch', 'pandas', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
