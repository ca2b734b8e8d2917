import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
from lab import LabError, work_queue
from lab.store import RunFolder
from lab.work_queue import (
    claimed,
    ensure_worker,
    living_workers,
    queue_dir,
    read_ticket,
    remove,
    request_stop,
    save_ticket,
    slot_count,
    slot_held,
    stop_flag,
    submit,
    sweep_queue,
    thread_share,
    tickets,
)


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def states(runs):
    return [ticket.state for ticket in tickets(runs)]


def elsewhere(code):
    """A process that prints a line when it is ready, and then waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\n    print('ready', flush=True); import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().strip() == "ready"
    return process


def claim_elsewhere(runs, id):
    folder = str(queue_dir(runs))
    return elsewhere(
        "from pathlib import Path; from lab.work_queue import *\n"
        "from lab.work_queue import claimed, save_ticket; from dataclasses import replace\n"
        f"with claimed(Path({folder!r}), {id!r}) as ticket:\n"
        f"    save_ticket(Path({folder!r}), replace(ticket, state='working', run='a-1', stage='train'))"
    )


def test_nothing_heavy_is_imported():
    code = (
        "import sys, lab.work_queue; "
        "heavy = {'torch', 'pandas', 'plotly', 'numpy', 'pydantic', 'transformers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_queue_that_is_not_there_is_empty(runs):
    assert tickets(runs) == []
    assert living_workers(runs) == 0
    ensure_worker(runs)  # nothing waits, so nothing starts
    assert not runs.exists()


def test_tickets_come_in_the_order_of_asking_and_hold_the_whole_experiment(tiny, runs):
    asked = [tiny.with_(seed=seed) for seed in range(20)]
    given = [submit(experiment, runs=runs, twin=seed % 2 == 0) for seed, experiment in enumerate(asked)]
    assert tickets(runs) == given
    assert [lab.Experiment.from_dict(t.experiment) for t in tickets(runs)] == asked
    assert [t.twin for t in tickets(runs)] == [True, False] * 10
    assert set(states(runs)) == {"waiting"}
    assert lab.list_runs(runs).empty


def test_files_are_named_from_the_root(tiny, runs, tmp_path, monkeypatch):
    (tmp_path / "mine.csv").write_text("text,label\na,b\n")
    (tmp_path / "toy").write_text("a bundled name comes first\n")
    monkeypatch.chdir(tmp_path)
    own = submit(tiny.with_(**{"data.name": "mine.csv"}), runs=runs)
    assert own.experiment["data"]["name"] == str(tmp_path / "mine.csv")
    assert submit(tiny, runs=runs).experiment["data"]["name"] == "toy"


@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "experiment", "created", "state", "run", "done", "x"]), inner, max_size=7),
    max_leaves=8)))  # fmt: skip
def test_files_that_are_no_tickets_are_passed_over(tmp_path_factory, content):
    runs = tmp_path_factory.mktemp("r")
    kept = submit(lab.Experiment(), runs=runs)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    for name in ("0000000000000000-000000.json", "stranger.json"):
        (queue_dir(runs) / name).write_bytes(raw)
    (queue_dir(runs) / "folder.json").mkdir()
    assert tickets(runs) == [kept]
    sweep_queue(queue_dir(runs))


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 3000))
def test_a_torn_ticket_is_passed_over(tmp_path_factory, cut):
    runs = tmp_path_factory.mktemp("r")
    first, second = (submit(lab.Experiment(seed=seed), runs=runs) for seed in (1, 2))
    path = queue_dir(runs) / f"{first.id}.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    assert tickets(runs) == ([first] if cut >= len(whole.rstrip()) else []) + [second]


@pytest.mark.parametrize("id", ["", "../../x", "0" * 16 + "-000000", "a\0b"])
def test_an_unknown_ticket_is_one_sentence(runs, id):
    for ask in (read_ticket, request_stop, remove):
        with pytest.raises(LabError, match="No ticket"):
            ask(id, runs)


def test_a_waiting_ticket_is_stopped_at_once(tiny, runs):
    ticket = submit(tiny, runs=runs)
    with pytest.raises(LabError, match="is waiting; stop it first"):
        remove(ticket.id, runs)
    request_stop(ticket.id, runs)
    assert read_ticket(ticket.id, runs).state == "stopped"
    request_stop(ticket.id, runs)  # twice is once
    assert not stop_flag(queue_dir(runs), ticket.id).exists()
    remove(ticket.id, runs)
    assert tickets(runs) == []
    assert list(queue_dir(runs).iterdir()) == []


def test_a_held_ticket_gets_a_flag_and_an_abandoned_one_waits_again(tiny, runs):
    ticket = submit(tiny, runs=runs)
    folder = RunFolder(runs / "a-1")
    folder.create({"schema": 1, "experiment": tiny.to_dict()})
    folder.append_event("status")
    holder = claim_elsewhere(runs, ticket.id)
    assert states(runs) == ["working"]
    with claimed(queue_dir(runs), ticket.id) as mine:
        assert mine is None
    request_stop(ticket.id, runs)
    assert states(runs) == ["working"]
    assert stop_flag(queue_dir(runs), ticket.id).exists()
    holder.kill()
    holder.wait()
    assert states(runs) == ["waiting"]
    with claimed(queue_dir(runs), ticket.id) as mine:
        assert mine.state == "working"  # as it lies on disk: its worker died
    assert folder.state() == "killed"
    request_stop(ticket.id, runs)
    assert states(runs) == ["stopped"]
    assert folder.state() == "stopped"


def test_only_what_nobody_works_on_and_is_not_finished_is_marked_stopped(tiny, runs):
    folder = RunFolder(runs / "a-1")
    folder.create({"schema": 1, "experiment": tiny.to_dict()})
    with folder.lock():
        work_queue.mark_stopped(runs, "a-1")
    (folder.path / "result.json").write_text("{}")
    for run in ("a-1", "", "..", "b-2", "../runs"):
        work_queue.mark_stopped(runs, run)
    assert not list(runs.rglob("stop"))
    (folder.path / "result.json").unlink()
    work_queue.mark_stopped(runs, "a-1")
    assert folder.state() == "stopped"


def test_old_ended_tickets_are_swept(tiny, runs):
    old, waiting, fresh = (submit(tiny.with_(seed=seed), runs=runs) for seed in range(3))
    folder = queue_dir(runs)
    save_ticket(folder, replace(old, state="failed", error="x"))
    save_ticket(folder, replace(fresh, state="done"))
    leftover = folder / ".half.json.x"
    leftover.touch()
    (folder / "worker-1.log").touch()
    for path in [folder / f"{t.id}.json" for t in (old, waiting)] + [leftover, folder / "worker-1.log"]:
        os.utime(path, (1, 1))
    sweep_queue(folder)
    assert [t.id for t in tickets(runs)] == [waiting.id, fresh.id]
    assert not leftover.exists()
    assert (folder / "worker-1.log").exists()


def test_slots(monkeypatch, runs):
    monkeypatch.delenv("LAB_WORKERS", raising=False)
    assert (slot_count(), slot_count(3)) == (1, 3)
    monkeypatch.setenv("LAB_WORKERS", "2")
    assert slot_count() == 2
    for wrong in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("LAB_WORKERS", wrong)
        with pytest.raises(LabError, match="LAB_WORKERS"):
            slot_count()
    one, many = thread_share(1), thread_share(10**6)
    assert int(one["OMP_NUM_THREADS"]) >= int(many["OMP_NUM_THREADS"]) == 1
    queue_dir(runs).mkdir(parents=True)
    with slot_held(queue_dir(runs), 1) as first, slot_held(queue_dir(runs), 1) as second:
        assert (first, second) == (True, False)
        assert living_workers(runs, 2) == 1
    assert living_workers(runs, 2) == 0


@pytest.fixture
def launched(monkeypatch):
    """The commands that would have been started; each stays "on its way"."""
    found = []

    class Child:
        def __init__(self, command, **options):
            found.append((command, options))

        def poll(self):
            return None

    monkeypatch.setattr(work_queue.subprocess, "Popen", Child)
    monkeypatch.setattr(work_queue, "_started", {})
    return found


def test_workers_start_as_many_as_can_be_used(tiny, runs, launched, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    submit(tiny, runs=runs)
    for _ in range(3):
        ensure_worker(runs, slots=2)
    assert len(launched) == 1  # one waits, and its worker is on its way
    for seed in (1, 2, 3):
        submit(tiny.with_(seed=seed), runs=runs)
    for _ in range(3):
        ensure_worker(runs, slots=2)
    assert [command[-1] for command, _ in launched] == ["1", "2"]
    command, options = launched[0]
    assert command[1:5] == ["-P", "-m", "lab", "worker"]
    assert options["env"]["OMP_NUM_THREADS"] == thread_share(2)["OMP_NUM_THREADS"]
    assert "WORLD_SIZE" not in options["env"]
    assert options["start_new_session"]


def test_a_held_slot_starts_nothing_and_one_given_back_does(tiny, runs, launched):
    submit(tiny, runs=runs)
    with slot_held(queue_dir(runs), 1):
        ensure_worker(runs, slots=1)
    assert launched == []
    ensure_worker(runs, slots=1)
    assert len(launched) == 1
    with slot_held(queue_dir(runs), 1):
        pass  # the worker had its slot; its process still lives, on its way out
    ensure_worker(runs, slots=1)
    assert len(launched) == 2


# A real detached worker, on the tiny model.


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def worker_pid(runs):
    child, _ = work_queue._started[queue_dir(runs), 1]
    return child


@pytest.fixture
def ended_workers(monkeypatch):
    monkeypatch.setattr(work_queue, "_started", {})
    yield
    for child, _ in work_queue._started.values():
        child.kill()
        child.wait()


def log(runs):
    return (queue_dir(runs) / "worker-1.log").read_text()


@pytest.mark.recipe
def test_a_detached_worker_trains_stops_resumes_and_survives_kills(tiny, tmp_path, runs, ended_workers):
    asked = tiny.with_(**{"training.steps": 400, "probe.snapshots": 4})
    whole = lab.run(asked, runs=tmp_path / "whole")

    # slots=4 makes the thread share 1, as in the run to compare with
    first = submit(asked, runs=runs)
    ensure_worker(runs, slots=4)
    seen = wait_for(lambda: (t := read_ticket(first.id, runs)).done > 120 and t)
    assert (seen.state, seen.stage, seen.total) == ("working", "train", 400)
    assert seen.run == seen.working == whole.id
    assert os.getsid(worker_pid(runs).pid) != os.getsid(0)
    request_stop(first.id, runs)
    stopped = wait_for(lambda: (t := read_ticket(first.id, runs)).ended and t, 15)
    assert (stopped.state, stopped.working, stopped.error) == ("stopped", "", "")
    assert RunFolder(runs / whole.id).state() == "stopped"

    # asked again it goes on; killed, another worker takes it up
    again = submit(asked, runs=runs)
    assert living_workers(runs, 1) == 1
    ensure_worker(runs, slots=4)  # the living one takes it
    wait_for(lambda: read_ticket(again.id, runs).done > 250)
    killed = worker_pid(runs)
    killed.kill()
    killed.wait()
    assert read_ticket(again.id, runs).state == "waiting"
    assert living_workers(runs, 1) == 0
    ensure_worker(runs, slots=4)

    # while the twin trains, a signal asks the worker to leave
    twin = wait_for(lambda: (t := read_ticket(again.id, runs)).working not in ("", whole.id) and t)
    assert "clean" in twin.working
    wait_for(lambda: (t := read_ticket(again.id, runs)).stage == "train" and t.done > 60)
    leaving = worker_pid(runs)
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(120) == 0
    left = read_ticket(again.id, runs)
    assert (left.state, left.deaths) == ("waiting", 1)
    assert set(lab.list_runs(runs)["state"]) == {"stopped"}

    ensure_worker(runs, slots=4)
    done = wait_for(lambda: (t := read_ticket(again.id, runs)).ended and t)
    assert done.state == "done", done.error + log(runs)
    assert set(lab.list_runs(runs)["state"]) == {"finished"}
    events = RunFolder(runs / whole.id).read_events()
    assert [e for e in events if e.get("stage") == "resume"]
    weights = "adapter/adapter_model.safetensors"
    assert (runs / whole.id / weights).read_bytes() == (whole.path / weights).read_bytes()
    assert not list(runs.rglob("stop"))


@pytest.mark.recipe
def test_two_workers_share_the_queue_and_no_ticket_is_worked_on_twice(tiny, runs, ended_workers):
    given = [submit(tiny.with_(seed=seed), runs=runs, twin=False) for seed in range(6)]
    ensure_worker(runs, slots=2)
    assert living_workers(runs, 2) == 2
    wait_for(lambda: all(t.ended for t in tickets(runs)))
    assert set(states(runs)) == {"done"}
    logs = [(queue_dir(runs) / f"worker-{n}.log").read_text() for n in (1, 2)]
    assert all(sum(f"{t.id}: begun" in text for text in logs) == 1 for t in given)
    assert [t.id for t in tickets(runs)] == [t.id for t in given]
