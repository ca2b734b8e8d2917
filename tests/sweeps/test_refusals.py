"""What `lab sweep` refuses: exit code 2, one sentence, and no record that would wait for ever."""

import contextlib
import importlib.util
import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import lab
from lab import cli
from lab.errors import LabError
from lab.sweeps import go_on_sweep, list_sweeps, preview_sweep, read_sweep, records, start_sweep
from lab.sweeps.records import SweepRecord, sweeps_dir

ASKED = {"experiment": {"seed": 0}, "over": {"adapter.rank": [1, 2]}, "seeds": [0]}


@pytest.fixture
def no_ray(monkeypatch):
    """A machine without Ray."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "ray" else find(name, *a)
    )


@pytest.fixture
def refused(tiny, tmp_path, monkeypatch, capsys):
    """What `lab sweep` says on standard error to a mistake."""
    (tmp_path / "tiny.toml").write_text(tiny.to_toml())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lab", "sweep", str(tmp_path / "tiny.toml"), *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert (stopped.value.code, out) == (2, "")
        assert err.count("\n") == 1, err
        assert list_sweeps() == []
        assert lab.list_runs().empty
        return err

    return run


MISTAKES = [
    (["--over", "adapter.rank=[]"], "adapter.rank = []: give a list with at least one value"),
    (["--over", "adapter.rank="], "write KEY=V1,V2"),
    (["--over", "adapter.rnk=1"], "Unknown key"),
    (["--over", "adapter.rank=four"], "adapter.rank = 'four'"),
    (["--over", "seed=1,2"], "not with the key 'seed'"),
    (["--over", "adapter.rank=1", "--over", "adapter.rank=2"], "--over adapter.rank is given twice"),
    (["--over", "adapter.rank=1", "--over", " adapter.rank =2"], "--over adapter.rank is given twice"),
    (["--tune", "adapter.rank=1", "--tune", "adapter.rank=2"], "--tune adapter.rank is given twice"),
    (["--tune", "adapter.rank"], "--tune 'adapter.rank': write KEY=V1,V2"),
    (["--over", "adapter.rank=1,2", "--seeds", "5001"], "10,002 cells"),
    (["--workers", "0"], "workers = '0'"),
    (["--workers", "many"], "workers = 'many'"),
    (["--executor", "slurm"], "Unknown executor 'slurm'"),
    (["--executor", "inline", "--workers", "2"], "this process alone"),
    (["--address", "10.0.0.1:6379"], "goes with the executor 'ray' alone"),
    (["--executor", "ray", "--address", "nonsense"], "write auto or HOST:PORT"),
    (["--executor", "ray", "--address", "ray://host:10001"], "write auto or HOST:PORT"),
]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["sweep", "dry run"])
@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_mistakes_are_one_sentence_and_leave_nothing(refused, arguments, words, dry):
    assert words in refused(*arguments, *dry)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["sweep", "dry run"])
@pytest.mark.parametrize("where", [(), ("--address", "auto")])
def test_without_ray_nothing_is_left_either(refused, no_ray, where, dry):
    assert "pip install" in refused("--executor", "ray", *where, *dry)


def test_a_cluster_that_does_not_answer_leaves_nothing(refused):
    pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")
    with socket.socket() as closed:
        closed.bind(("127.0.0.2", 0))
        address = f"127.0.0.2:{closed.getsockname()[1]}"
    assert "no Ray cluster answers there" in refused("--executor", "ray", "--address", address)


def test_a_record_that_was_there_before_outlives_a_refusal(tiny, no_ray):
    start = {"seeds": 1, "twin": False}
    lab.sweep(tiny.with_(**{"training.steps": 1, "probe.scope": "headline"}), {}, **start)
    (before,) = list_sweeps()
    with pytest.raises(LabError, match="pip install"):
        lab.sweep(tiny.with_(**{"training.steps": 1, "probe.scope": "headline"}), {}, executor="ray", **start)
    assert list_sweeps() == [before]


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_new_record_goes_where_its_sweep_had_not_begun(tmp_path, has_begun):
    record = SweepRecord(tmp_path, ASKED)
    with contextlib.suppress(KeyboardInterrupt), record.held():
        if has_begun:
            record.write({"state": "running"}, now=True)
        raise KeyboardInterrupt
    assert [sweep.state for sweep in list_sweeps(tmp_path)] == ["killed"] * has_begun


def older(record, seconds):
    """Make a record so much older."""
    for path in record.folder.glob("*.json"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_sweep_that_died_before_it_wrote_anything_was_killed(tmp_path):
    record = SweepRecord(tmp_path, ASKED)
    record.plan()
    assert read_sweep(record.id, tmp_path).state == "waiting", "its process is on its way"
    older(record, records._BEGINS + 1)
    assert read_sweep(record.id, tmp_path).state == "killed"
    with record.held():
        assert read_sweep(record.id, tmp_path).state == "waiting", "it is there, and still reads what to do"


@pytest.mark.parametrize("state", ["stopped", "running", "failed"])
def test_a_sweep_that_is_to_go_on_waits_until_its_process_is_there(tmp_path, monkeypatch, state):
    monkeypatch.setattr("lab.sweeps.background.start_detached", lambda *_, **__: None)
    record = SweepRecord(tmp_path, ASKED)
    record.plan()
    record.write({"state": state}, now=True)
    older(record, 600)
    before = read_sweep(record.id, tmp_path).state
    assert before == ("killed" if state == "running" else state)
    go_on_sweep(record.id, tmp_path)
    assert read_sweep(record.id, tmp_path).state == "waiting"
    os.utime(record.folder / "plan.json", (time.time() - records._BEGINS - 1,) * 2)
    assert read_sweep(record.id, tmp_path).state == before, "it never came"


@pytest.fixture
def started(monkeypatch):
    """Words of the processes that would have been started."""
    words = []
    monkeypatch.setattr("lab.sweeps.background.start_detached", lambda asked, **_: words.append(asked))
    return words


def test_a_sweep_that_has_just_been_started_is_the_only_one(tiny, tmp_path, started):
    first = start_sweep(tiny, {"adapter.rank": [1]}, runs=tmp_path)
    for start in (lambda: start_sweep(tiny, {}, runs=tmp_path), lambda: go_on_sweep(first, tmp_path)):
        with pytest.raises(LabError, match=f"The sweep {first} is about to begin"):
            start()
    assert [sweep.id for sweep in list_sweeps(tmp_path)] == [first]
    assert len(started) == 1
    os.utime(sweeps_dir(tmp_path) / first / "plan.json", (time.time() - records._BEGINS - 1,) * 2)
    start_sweep(tiny, {}, runs=tmp_path)
    assert len(started) == 2, "the first never came"


def test_who_looks_whether_a_sweep_runs_looks_alone(tiny, tmp_path, started):
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(start_sweep, tiny, {"adapter.rank": [n]}, runs=tmp_path) for n in range(1, 9)]
    refused = [call.exception() for call in asked if call.exception()]
    assert len(started) == 1
    assert {type(error) for error in refused} == {LabError}
    assert len(refused) == 7


def test_a_damaged_state_that_nobody_works_on_was_killed(tmp_path):
    record = SweepRecord(tmp_path, ASKED)
    record.plan()
    record.write({"state": "finished"}, now=True)
    (sweeps_dir(tmp_path) / record.id / "state.json").write_text('{"state": ')
    older(record, 600)
    assert read_sweep(record.id, tmp_path).state == "killed"


def test_the_preview_of_a_cluster_says_nothing_of_its_time(tiny, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")
    found = preview_sweep(tiny, {}, seeds=2, executor="ray", address="10.0.0.1:6379")
    assert (found.executor, found.workers, found.seconds) == ("ray", 0, {})
    assert "the cluster's" in found.basis
    json.dumps(vars(found), allow_nan=False)
    monkeypatch.setattr("lab.sweeps.crew.core_count", lambda: 4)
    here = preview_sweep(tiny, {}, seeds=2, executor="ray", workers="auto")
    assert (here.executor, here.workers, here.why) == ("ray", 4, "Ray on this machine")
    assert here.seconds["middle"] > 0
    assert preview_sweep(tiny, {}, seeds=2, executor="ray", workers=3).workers == 3


def test_the_preview_has_the_workers_that_the_sweep_has(tiny, monkeypatch):
    from lab.sweeps import resources

    monkeypatch.setattr(resources, "core_count", lambda: 4)
    monkeypatch.setattr(resources, "available_bytes", lambda: 64 * 2.0**30)
    over = {"base.model": ["tiny", "some/model-7B"]}
    found = preview_sweep(tiny, over, seeds=2, device="cpu", workers="auto")
    assert (found.executor, found.workers) == ("inline", 1), "room for the largest base of the grid"
