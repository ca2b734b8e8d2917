import os
import signal
import threading
import time
from dataclasses import replace

import pytest

import lab
from lab import cli, pipeline, worker
from lab.errors import LabError
from lab.store import RunFolder
from lab.training_stage import StoppedError
from lab.work_queue import (
    claimed,
    queue_dir,
    read_ticket,
    request_stop,
    save_ticket,
    slot_held,
    submit,
    tickets,
)
from lab.worker import drain_queue


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def play(monkeypatch):
    """Put a function in the place of `lab.run`; it gets (experiment, on_event)."""

    def put(function):
        monkeypatch.setattr(pipeline, "run", lambda asked, *, runs, twin, on_event: function(asked, on_event))

    return put


def status(stage, **fields):
    return {"kind": "status", "step": -1, "stage": stage, **fields}


def progress(stage, done, total):
    return {"kind": "progress", "step": done, "stage": stage, "done": done, "total": total}


def test_a_real_run_goes_the_whole_way_and_says_where_it_is(tiny, runs, monkeypatch):
    seen = []
    monkeypatch.setattr(worker, "_WRITE", 0.0)
    monkeypatch.setattr(worker, "save_ticket", lambda f, t: (save_ticket(f, t), seen.append(t)))
    ticket = submit(tiny, runs=runs)
    assert drain_queue(runs, idle=0)
    done = read_ticket(ticket.id, runs)
    assert (done.state, done.stage, done.working, done.error) == ("done", "", "", "")
    table = lab.list_runs(runs).set_index("id")
    assert set(table["state"]) == {"finished"}
    twin = table.loc[done.run, "twin"]
    stages = list(dict.fromkeys((t.working, t.stage) for t in seen if t.working))
    for run, its in ((done.run, ("load", "train", "headline", "probe", "twin probe")),
                     (twin, ("load", "train", "headline"))):  # fmt: skip
        assert {(run, stage) for stage in its} <= set(stages)
    assert stages.index((done.run, "train")) < stages.index((twin, "train"))
    first = next(t for t in seen if t.run)
    assert (first.run, first.working) == (done.run, "")  # known before anything is trained
    steps = [t.done for t in seen if (t.working, t.stage) == (done.run, "train")]
    assert steps == sorted(steps)
    assert max(t.total for t in seen if t.stage == "twin probe") > 0


def test_how_far_it_is_is_not_written_for_every_step(tiny, runs, play, monkeypatch):
    written = []
    monkeypatch.setattr(worker, "save_ticket", lambda f, t: (save_ticket(f, t), written.append(t)))

    def many_steps(asked, tell):
        tell(status("begin", run="a-1"))
        tell(status("train", run="a-1"))
        for step in range(2000):
            tell(progress("train", step, 2000))

    play(many_steps)
    submit(tiny, runs=runs)
    start = time.monotonic()
    drain_queue(runs, idle=0)
    assert len(written) <= 6 + (time.monotonic() - start) / worker._WRITE


def test_oldest_first_and_a_failure_stops_nothing(tiny, runs, play):
    order = []

    def work(asked, tell):
        order.append(asked.seed)
        if asked.seed == 0:
            raise LabError("The disk is full.")
        if asked.seed == 1:
            raise ZeroDivisionError("by zero")

    play(work)
    lines = []
    given = [submit(tiny.with_(seed=seed), runs=runs) for seed in range(3)]
    broken = submit(tiny, runs=runs)
    broken.experiment["adapter"]["rank"] = -4
    save_ticket(queue_dir(runs), broken)
    drain_queue(runs, idle=0, say=lines.append)
    ended = [read_ticket(t.id, runs) for t in [*given, broken]]
    assert order == [0, 1, 2]
    assert [t.state for t in ended] == ["failed", "failed", "done", "failed"]
    assert ended[0].error == "The disk is full."
    assert ended[1].error == "ZeroDivisionError: by zero"
    assert "adapter.rank" in ended[3].error
    text = "\n".join(lines)
    assert "in work" in text  # the traceback of what nobody foresaw
    assert text.count("Traceback") == 1


def test_a_stop_reaches_the_training_through_its_file(tiny, runs, monkeypatch):
    asked = tiny.with_(**{"training.steps": 200})
    ticket = submit(asked, runs=runs, twin=False)

    heard = worker._Report.__call__

    def stop_at(self, event):
        if event["kind"] == "progress" and event["stage"] == "train" and event["done"] == 20:
            request_stop(ticket.id, runs)
        heard(self, event)

    with monkeypatch.context() as patch:
        patch.setattr(worker._Report, "__call__", stop_at)
        drain_queue(runs, idle=0)
    stopped = read_ticket(ticket.id, runs)
    assert stopped.state == "stopped"
    folder = RunFolder(runs / stopped.run)
    assert folder.state() == "stopped"
    assert list(folder.path.glob("checkpoints/*/COMPLETE"))
    again = submit(asked, runs=runs, twin=False)
    drain_queue(runs, idle=0)
    assert read_ticket(again.id, runs).state == "done"
    assert folder.state() == "finished"
    assert any(e.get("stage") == "resume" for e in folder.read_events())
    whole = lab.run(asked, runs=runs.parent / "whole", twin=False)
    weights = "adapter/adapter_model.safetensors"
    assert (folder.path / weights).read_bytes() == (whole.path / weights).read_bytes()


def test_a_stop_file_that_comes_while_the_model_loads_is_not_lost(tiny, runs):
    def stop(event):
        if event.get("stage") == "load":
            (runs / event["run"] / "stop").touch()

    with pytest.raises(StoppedError, match="before it trained"):
        lab.run(tiny, runs=runs, twin=False, on_event=stop)
    assert lab.list_runs(runs)["state"].tolist() == ["stopped"]
    assert lab.run(tiny, runs=runs, twin=False).state == "finished"
    assert not list(runs.rglob("stop"))


@pytest.mark.recipe  # a dozen trainings
@pytest.mark.parametrize("stage", ["prepare", "load", "headline", "twin load", "twin train", "probe"])
def test_stopped_at_any_stage_it_says_so_and_goes_on_when_asked_again(tiny, runs, stage, monkeypatch):
    ticket = submit(tiny, runs=runs)
    heard = worker._Report.__call__

    def stop_at(self, event):
        where = f"{'twin ' * (self.ticket.working not in ('', self.ticket.run))}{event.get('stage')}"
        if where == stage:
            request_stop(ticket.id, runs)
        heard(self, event)

    with monkeypatch.context() as patch:
        patch.setattr(worker._Report, "__call__", stop_at)
        drain_queue(runs, idle=0)
    assert read_ticket(ticket.id, runs).state == "stopped"
    table = lab.list_runs(runs)
    assert table.empty == (stage == "prepare")
    if not table.empty:
        assert "finished" not in set(table.loc[table["id"] == read_ticket(ticket.id, runs).run, "state"])
        assert set(table["state"]) <= {"stopped", "finished"}
    again = submit(tiny, runs=runs)
    drain_queue(runs, idle=0)
    assert read_ticket(again.id, runs).state == "done", read_ticket(again.id, runs).error
    assert set(lab.list_runs(runs)["state"]) == {"finished"}


def test_a_stop_is_heard_while_another_process_works_on_the_run(tiny, runs, play):
    folder = RunFolder(runs / "a-1")
    folder.create({"schema": 1, "experiment": tiny.to_dict()})
    ticket = submit(tiny, runs=runs)

    def wait(asked, tell):
        tell(status("prepared", run="a-1", finished=False))
        threading.Timer(0.2, request_stop, [ticket.id, runs]).start()
        tell(status("wait", run="a-1", text="…"))

    play(wait)
    with folder.lock():
        drain_queue(runs, idle=0)
        assert not (folder.path / "stop").exists()  # the other one goes on
    assert read_ticket(ticket.id, runs).state == "stopped"


def test_a_run_stopped_by_hand_is_a_stopped_ticket(tiny, runs, play):
    def stop(asked, tell):
        raise StoppedError("a-1 was stopped at step 3.")

    play(stop)
    ticket = submit(tiny, runs=runs)
    drain_queue(runs, idle=0)
    assert read_ticket(ticket.id, runs).state == "stopped"


@pytest.mark.parametrize("stage", ["train", "headline"])
def test_a_signal_puts_the_ticket_back(tiny, runs, play, stage):
    folder = RunFolder(runs / "a-1")
    folder.create({"schema": 1, "experiment": tiny.to_dict()})
    before = signal.getsignal(signal.SIGTERM)

    def work(asked, tell):
        tell(status("prepared", run="a-1", finished=False))
        tell(status("begin", run="a-1"))
        tell(status("train", run="a-1"))
        if stage != "train":
            tell(progress(stage, 0, 9))
        os.kill(os.getpid(), signal.SIGTERM)
        for step in range(1, 9):
            assert stage == "train"  # the others are cut off by the signal itself
            tell(progress(stage, step, 9))
            if (folder.path / "stop").exists():
                raise StoppedError("stopped")

    play(work)
    ticket, second = submit(tiny, runs=runs), submit(tiny, runs=runs)
    drain_queue(runs, idle=60)
    back = read_ticket(ticket.id, runs)
    assert (back.state, back.run, back.deaths) == ("waiting", "a-1", 0)
    assert read_ticket(second.id, runs).state == "waiting"
    assert folder.state() == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_loses_no_run_and_is_not_tried_over_and_over(tiny, runs, play, monkeypatch):
    worked, has_room = [], threading.Event()

    def save(folder, ticket):
        if not has_room.is_set():
            raise LabError("Cannot write to x: the disk is full.")
        save_ticket(folder, ticket)

    monkeypatch.setattr(worker, "save_ticket", save)
    monkeypatch.setattr(worker, "_LOOK", 0.01)

    def work(asked, tell):
        worked.append(asked.seed)
        tell(status("prepared", run="a-1", finished=False))
        threading.Timer(0.3, has_room.set).start()

    play(work)
    ticket = submit(tiny, runs=runs)
    drain_queue(runs, idle=1.0)
    assert worked == [0]
    assert read_ticket(ticket.id, runs).state == "done"


def test_what_kills_its_worker_again_and_again_is_given_up(tiny, runs, play):
    worked = []
    play(lambda asked, tell: worked.append(asked.seed))
    twice, thrice = submit(tiny, runs=runs), submit(tiny, runs=runs)
    for ticket, deaths in ((twice, 1), (thrice, 2)):
        save_ticket(queue_dir(runs), replace(ticket, state="working", deaths=deaths))
    drain_queue(runs, idle=0)
    assert len(worked) == 1
    assert read_ticket(twice.id, runs).state == "done"
    assert "died 3 times" in read_ticket(thrice.id, runs).error


def test_held_tickets_are_left_alone(tiny, runs, play):
    play(lambda asked, tell: None)
    first, second = submit(tiny, runs=runs), submit(tiny, runs=runs)
    with claimed(queue_dir(runs), first.id):
        drain_queue(runs, idle=0)
    assert [t.state for t in tickets(runs)] == ["waiting", "done"]
    assert second.id == tickets(runs)[1].id


def test_what_comes_while_a_worker_gives_its_slot_back_is_taken(tiny, runs, play, monkeypatch):
    play(lambda asked, tell: None)
    drain = worker._Worker.work
    late = []

    def work(self, idle):
        drain(self, idle)
        if not late:
            late.append(submit(tiny, runs=runs))

    monkeypatch.setattr(worker._Worker, "work", work)
    drain_queue(runs, idle=0)
    assert [t.state for t in tickets(runs)] == ["done"]


def test_without_a_free_slot_it_says_so(runs, monkeypatch, capsys):
    queue_dir(runs).mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["lab", "worker", "--runs", str(runs), "--idle", "0"])
    for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    with slot_held(queue_dir(runs), 1), pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "every slot is held" in capsys.readouterr().err
