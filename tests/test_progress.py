import lab
from lab.console import ProgressView


def test_what_is_told_to_programs_is_not_printed(capsys):
    view = ProgressView()
    for stage in ("prepared", "begin"):
        view({"kind": "status", "step": -1, "stage": stage, "run": "a-1"})
    assert capsys.readouterr().err == ""
    view({"kind": "status", "step": -1, "stage": "train", "run": "a-1"})
    assert "training a-1" in capsys.readouterr().err


def test_a_listener_knows_the_run_before_it_trains_and_each_run_that_is_worked_on(tiny, tmp_path):
    events = []
    done = lab.run(tiny, runs=tmp_path, on_event=events.append)
    stages = [(e["stage"], e.get("run")) for e in events if e["kind"] == "status"]
    twin = done.result["twin"]
    assert stages[:2] == [("prepare", None), ("prepared", done.id)]
    assert [run for stage, run in stages if stage == "begin"] == [done.id, twin]
    assert [run for stage, run in stages if stage == "train"] == [done.id, twin]
    assert [e["finished"] for e in events if e.get("stage") == "prepared"] == [False]
    written = {e.get("stage") for e in done._folder.read_events()}
    assert not written & {"prepared", "begin"}
    events.clear()
    lab.run(tiny, runs=tmp_path, on_event=events.append)
    assert [e["finished"] for e in events if e.get("stage") == "prepared"] == [True]
    assert not [e for e in events if e.get("stage") == "begin"]


def test_members_of_a_cohort_are_counted_with_the_time_left(capsys):
    view = ProgressView()
    for left in (float("nan"), 10.0, 300.0, 9000.0):
        view({"kind": "member", "done": 2, "total": 9, "left": left})
    assert capsys.readouterr().err.splitlines() == [
        "member 3 of 9",
        "member 3 of 9, less than a minute left",
        "member 3 of 9, about 5 min left",
        "member 3 of 9, about 2.5 hours left",
    ]
