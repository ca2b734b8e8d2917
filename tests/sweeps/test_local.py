"""Worker processes: the same weights as a fresh process, lost workers, an interruption, the dry run."""

import contextlib
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import lab
from lab import cli
from lab.errors import LabError
from lab.estimates import estimate_seconds
from lab.sweeps import list_sweeps, preview_sweep
from lab.sweeps.doing import job_standing
from lab.sweeps.executors import EXECUTORS
from lab.sweeps.grid import Cell
from lab.sweeps.plan import plan_jobs
from lab.sweeps.resources import core_count
from lab.work_queue import thread_share

OVER = {"adapter.rank": [1, 2], "poison.count": [4, 8]}


@pytest.fixture
def quick(tiny):
    return tiny.with_(**{"training.steps": 4, "training.epochs": 0, "probe.scope": "headline"})


def weights(runs):
    """Hashes of every run's weights, by run."""
    return {
        path.parts[-3]: hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in ("adapter/adapter_model", "model/model")
        for path in runs.glob(f"*/{kind}.safetensors")
    }


def test_every_executor_says_what_it_is_for():
    for name, executor in EXECUTORS.items():
        assert executor.name == name
        assert executor.goal
        assert executor.paper


@pytest.mark.recipe  # starts processes
def test_workers_make_what_a_fresh_process_makes_bit_for_bit(quick, tmp_path, monkeypatch):
    # sums of floats depend on the number of threads
    one_thread = thread_share(core_count())
    monkeypatch.setattr("lab.sweeps.resources.thread_share", lambda _: one_thread)
    arms = {"lora": {}, "full": {"defense": ["full"]}}
    events = []
    how = {"arms": arms, "seeds": 2, "device": "cpu"}
    over = {"poison.count": [4, 8]}
    table = lab.sweep(
        quick, over, runs=tmp_path / "local", executor="local", workers=2, on_event=events.append, **how
    )
    assert table["reason"].tolist() == [""] * 8
    one = lab.sweep(quick, over, runs=tmp_path / "one", executor="local", workers=1, **how)
    pd.testing.assert_frame_equal(table, one)
    assert weights(tmp_path / "local") == weights(tmp_path / "one")
    # a process that has trained nothing before
    last = lab.load_run(table["run"].iloc[-1], tmp_path / "local")
    path = tmp_path / "last.json"
    path.write_text(json.dumps(last.experiment.to_dict()))
    command = [
        sys.executable,
        "-m",
        "lab",
        "run",
        str(path),
        "--runs",
        str(tmp_path / "fresh"),
        "--device",
        "cpu",
    ]
    subprocess.run([*command, "--no-twin"], check=True, capture_output=True, env={**os.environ, **one_thread})
    assert weights(tmp_path / "fresh") == {last.id: weights(tmp_path / "local")[last.id]}
    waits = [event for event in events if event.get("stage") == "wait"]
    trained = [event["run"] for event in events if event.get("stage") == "begin"]
    assert sorted(trained) == sorted(set(trained)), "nothing was begun twice"
    assert len(trained) == len(weights(tmp_path / "local"))
    assert len(waits) <= 1, "at most the last cell of all waits for its twin"


@pytest.mark.recipe  # starts and kills processes
def test_a_killed_worker_costs_no_cell(quick, tmp_path, monkeypatch):
    from lab.sweeps.executors.local import LocalPool

    pools, killed = [], []
    enter = LocalPool.__enter__
    monkeypatch.setattr(LocalPool, "__enter__", lambda pool: pools.append(pool) or enter(pool))

    def kill_once(event):
        if event.get("stage") == "train" and event["kind"] == "status" and not killed:
            child = pools[0]._children[event["worker"]]
            killed.append(child.job.key)
            os.kill(child.process.pid, signal.SIGKILL)

    table = lab.sweep(
        quick,
        {"adapter.rank": [1, 2]},
        seeds=1,
        runs=tmp_path,
        executor="local",
        workers=2,
        on_event=kill_once,
    )
    assert killed
    assert table["state"].tolist() == ["finished"] * 2


@pytest.mark.recipe  # starts and kills processes
def test_a_job_that_kills_its_workers_fails_with_a_reason(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("lab.sweeps.executors.local._DEATHS", 1)
    from lab.sweeps.executors.local import LocalPool

    pools = []
    enter = LocalPool.__enter__
    monkeypatch.setattr(LocalPool, "__enter__", lambda pool: pools.append(pool) or enter(pool))

    def kill(event):
        child = pools[0]._children[event["worker"]] if "worker" in event else None
        if child is not None and child.job.experiment["adapter"]["rank"] == 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.process.pid, signal.SIGKILL)

    table = lab.sweep(
        quick, {"adapter.rank": [1, 2]}, seeds=1, runs=tmp_path, twin=False, executor="local", workers=2,
        on_event=kill,
    )  # fmt: skip
    assert table["state"].tolist() == ["failed", "finished"]
    assert "Its worker died" in table["reason"][0]


@pytest.mark.recipe  # starts and interrupts processes
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("sent", "code", "state"), [("SIGINT", 130, "stopped"), ("SIGKILL", -9, "killed")])
def test_an_interrupted_sweep_goes_on_and_ends_as_if_nothing_had_been(tiny, tmp_path, sent, code, state):
    # when the first of four begins to train, two are yet to come: no machine is too slow to see that
    long = tiny.with_(**{"training.steps": 300, "training.epochs": 0, "probe.scope": "headline"})
    (tmp_path / "long.toml").write_text(long.to_toml())
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "lab", "sweep", str(tmp_path / "long.toml"), "--runs", str(runs)]
    command += ["--over", "adapter.rank=1,2,3,4", "--seeds", "1", "--no-twin"]
    command += ["--workers", "2", "--device", "cpu"]
    # whoever runs the tests in a shell's background has told them, and so this process, to ignore a Ctrl-C
    hears = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=hears
    )
    end = time.monotonic() + 240
    while not any('"kind": "train"' in path.read_text() for path in runs.glob("*/events.jsonl")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(getattr(signal, sent))
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    (found,) = list_sweeps(runs)
    assert found.state == state
    if sent == "SIGINT":  # workers whose sweep was killed save a checkpoint, too, but nobody waits for them
        assert set(lab.list_runs(runs)["state"]) <= {"stopped", "finished", "queued"}
    subprocess.run(command, check=True, capture_output=True)
    (found,) = list_sweeps(runs)
    assert found.state == "finished"
    whole = lab.sweep(
        long, {"adapter.rank": [1, 2, 3, 4]}, seeds=1, twin=False, runs=tmp_path / "whole", device="cpu"
    )
    assert weights(runs) == weights(tmp_path / "whole")
    assert len(whole) == 4


def test_no_worker_starts_only_to_read_what_is_there(quick, tmp_path, monkeypatch):
    class WorkersStartedError(Exception):
        pass

    def start(_):
        raise WorkersStartedError

    monkeypatch.setattr("lab.sweeps.executors.local.LocalPool.__enter__", start)
    how = {"seeds": 1, "twin": False, "runs": tmp_path, "device": "cpu"}
    trained = lab.sweep(quick, {"adapter.rank": [1, 2]}, **how)
    read = lab.sweep(quick, {"adapter.rank": [1, 2]}, workers=2, **how)
    pd.testing.assert_frame_equal(read, trained)
    foreseen = [
        preview_sweep(quick, {"adapter.rank": ranks}, workers=2, seeds=1, twin=False, runs=tmp_path)
        for ranks in ([1, 2], [1, 2, 3])
    ]
    assert [(sweep.executor, sweep.workers) for sweep in foreseen] == [("inline", 1), ("local", 2)]
    with pytest.raises(WorkersStartedError):
        lab.sweep(quick, {"adapter.rank": [1, 2, 3]}, workers=2, **how)
    with pytest.raises(WorkersStartedError):
        lab.sweep(quick, {"adapter.rank": [1, 2]}, workers=2, executor="local", **how)


def test_a_dry_run_counts_twins_once_and_changes_nothing(quick, tmp_path):
    before = preview_sweep(quick, OVER, seeds=1, runs=tmp_path)
    assert before.train == {"runs": 4, "twins": 2, "parents": 0, "bases": 0, "tunings": 0}
    assert [cell["state"] for cell in before.cells] == ["new"] * 4
    assert before.seconds["low"] < before.seconds["middle"] < before.seconds["high"]
    assert list(tmp_path.iterdir()) == []
    table = lab.sweep(quick, {"adapter.rank": [1], "poison.count": [4]}, seeds=1, runs=tmp_path)
    after = preview_sweep(quick, OVER, seeds=1, runs=tmp_path)
    assert after.train == {"runs": 3, "twins": 1, "parents": 0, "bases": 0, "tunings": 0}
    assert (after.finished, after.cells[0]["run"]) == (1, table["run"][0])
    bare = preview_sweep(quick, {"adapter.rank": [1]}, seeds=1, twin=False, runs=tmp_path)
    assert bare.train["twins"] == 0


@pytest.fixture
def fine_tuned(quick, tmp_path):
    """A clean fine-tuning of a poisoned base that is yet to be run, and that base."""
    (tmp_path / "base.toml").write_text(quick.to_toml())
    return quick.twin().with_(**{"base.model": str(tmp_path / "base.toml")}), quick


def test_a_dry_run_counts_a_run_that_failed_and_is_tried_again(quick, tmp_path):
    diverging = quick.with_(**{"training.learning_rate": 1e8})
    table = lab.sweep(diverging, {}, seeds=1, twin=False, runs=tmp_path)
    assert table["state"].tolist() == ["failed"]
    found = preview_sweep(diverging, {}, seeds=1, twin=False, runs=tmp_path)
    assert (found.finished, found.train["runs"]) == (0, 1)


def test_a_dry_run_counts_each_training_over_a_poisoned_base_once(fine_tuned, tmp_path):
    fine, base = fine_tuned
    found = preview_sweep(fine, {"adapter.rank": [1, 2]}, seeds=1, runs=tmp_path / "runs")
    assert found.train == {"runs": 2, "twins": 3, "parents": 0, "bases": 1, "tunings": 0}
    # each of these for a run and its twin
    each = [estimate_seconds(fine.with_(**{"adapter.rank": rank}), with_base=False) for rank in (1, 2)]
    by_hand = sum(estimate.seconds for estimate in (*each, estimate_seconds(base)))
    assert found.seconds["middle"] == pytest.approx(by_hand, rel=0.01)
    alone = preview_sweep(fine, {"adapter.rank": [1, 2]}, seeds=1, twin=False, runs=tmp_path / "runs")
    assert alone.train == {"runs": 2, "twins": 0, "parents": 0, "bases": 1, "tunings": 0}
    assert alone.seconds["middle"] == pytest.approx(by_hand / 2, rel=0.01)


def test_a_dry_run_counts_no_twin_over_a_clean_base(quick, tmp_path):
    (tmp_path / "base.toml").write_text(quick.twin().to_toml())
    clean = quick.twin().with_(**{"base.model": str(tmp_path / "base.toml")})
    found = preview_sweep(clean, {}, seeds=1, runs=tmp_path / "runs")
    assert found.train == {"runs": 1, "twins": 0, "parents": 0, "bases": 1, "tunings": 0}


def test_the_twin_over_a_poisoned_base_is_not_taken_for_the_run_itself(fine_tuned, tmp_path):
    fine, base = fine_tuned
    runs = tmp_path / "runs"
    lab.run(base, runs=runs)
    lab.run(fine, runs=runs, twin=False)
    found = preview_sweep(fine, {}, seeds=1, runs=runs)
    assert found.train == {"runs": 1, "twins": 1, "parents": 0, "bases": 0, "tunings": 0}
    done = lab.run(fine, runs=runs)
    jobs, _ = plan_jobs([Cell(fine, {}, 0)], twin=True)
    _, of_fine = sorted(
        (job for job in jobs if job.kind == "twin"), key=lambda job: job.experiment["base"]["model"] != "tiny"
    )
    assert job_standing(of_fine, runs) == (done.result["twin"], True, "finished")
    assert preview_sweep(fine, {}, seeds=1, runs=runs).basis == "nothing is left to do"


def test_a_dry_run_knows_what_waits_for_a_tuning(quick, tmp_path):
    tune = {"over": {"training.learning_rate": [1e-3, 1e-2]}, "of": "twin"}
    found = preview_sweep(quick, {"poison.count": [4, 8]}, seeds=2, tune=tune, runs=tmp_path)
    assert {cell["state"] for cell in found.cells} == {"after tuning"}
    assert found.train["tunings"] == 2, "the twins of both counts are the same two"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"executor": "slurm"}, "Unknown executor 'slurm'"),
        ({"workers": 0}, "workers = 0"),
        ({"workers": "many"}, "workers = 'many'"),
        ({"executor": "inline", "workers": 2}, "this process alone"),
        ({"over": {"adapter.rank": list(range(1, 5002))}, "seeds": 2}, "10,002 cells"),
        ({"over": {"adapter.rank": ["four"]}}, r"adapter\.rank = 'four'"),
    ],
)
def test_what_could_not_be_is_told_before_anything_runs(tiny, ask, message):
    with pytest.raises(LabError, match=message) as caught:
        lab.sweep(tiny, **{"over": {}, "seeds": 1, **ask})
    assert "\n" not in str(caught.value)
    assert lab.list_runs().empty
    assert list_sweeps() == []


def test_a_dry_run_as_json_is_one_document(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.toml").write_text(tiny.to_toml())
    words = [
        "lab",
        "sweep",
        str(tmp_path / "tiny.toml"),
        "--over",
        "adapter.rank=1,33",
        "--dry-run",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        cli.main()
    found = json.loads(capsys.readouterr().out)
    assert len(found["cells"]) == 6
    assert {"runs", "twins", "tunings"} <= set(found["train"])
