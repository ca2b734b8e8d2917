import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.event_log import EventLog
from lab.store import RunFolder

KINDS = st.sampled_from(["train", "probe", "status"])


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def test_there_are_no_events_before_there_is_a_file_and_after_it_is_gone(run):
    log = EventLog(run.events)
    assert log.of() == []
    run.append_event("train", step=1)
    assert [e["step"] for e in log.of()] == [1]
    run.events.unlink()
    assert log.of("train") == []


def test_only_what_was_appended_is_parsed(run, monkeypatch):
    log, parsed, loads = EventLog(run.events), [], json.loads
    monkeypatch.setattr("lab.event_log.json.loads", lambda text: (parsed.append(text), loads(text))[1])
    for step in range(100):
        run.append_event("train", step=step)
    log.of()
    run.append_event("probe", step=100)
    parsed.clear()
    assert [e["step"] for e in log.of("probe")] == [100]
    assert len(parsed) == 1
    assert len(log.of()) == 101
    assert len(parsed) == 1


def test_half_a_line_is_read_when_it_is_whole(run):
    log = EventLog(run.events)
    line = json.dumps({"kind": "train", "step": 3}).encode() + b"\n"
    run.events.write_bytes(line + line[:9])
    assert len(log.of()) == 1
    with run.events.open("ab") as file:
        file.write(line[9:])
    assert len(log.of()) == 2


def test_half_a_line_that_a_kill_left_swallows_nothing(run):
    log = EventLog(run.events)
    run.append_event("train", step=0)
    with run.events.open("ab") as file:
        file.write(b'{"kind": "tr')
    assert len(log.of()) == 1
    run.append_event("train", step=1)
    assert [e["step"] for e in log.of()] == [0, 1]


def test_a_run_that_goes_on_from_a_checkpoint_tells_each_step_once(run):
    log = EventLog(run.events)
    for step in range(10):
        run.append_event("train", step=step)
    assert len(log.of()) == 10
    run.rewind_events(4)
    run.append_event("train", step=5)
    assert [e["step"] for e in log.of("train")] == [0, 1, 2, 3, 4, 5]


def test_a_text_may_hold_any_character(run):
    run.append_event("status", stage="one\u2028two\x85three")
    assert EventLog(run.events).of() == run.read_events()
    assert run.read_events()[0]["stage"] == "one\u2028two\x85three"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), KINDS, st.text(max_size=5)),
            st.tuples(st.just("tear"), KINDS, st.text(max_size=5)),
            st.tuples(st.just("rewind"), st.just(""), st.just("")),
            st.tuples(st.just("write anew"), KINDS, st.text(max_size=5)),
            st.tuples(st.just("look"), st.just(""), st.just("")),
        ),
        max_size=20,
    )
)
def test_it_says_what_the_whole_file_says(steps):
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        log = EventLog(run.events)
        for number, (what, kind, text) in enumerate(steps):
            if what == "append":
                run.append_event(kind, step=number, text=text)
            elif what == "tear":
                with run.events.open("ab") as file:
                    file.write(json.dumps({"kind": kind, "text": text}).encode()[:-2])
            elif what == "rewind" and run.events.is_file():
                run.rewind_events(number // 2)
            elif what == "write anew":
                # of another size each time: two writings within one tick of the clock look the same
                long = text + "x" * 70 * number
                run.events.write_text(json.dumps({"kind": kind, "step": number, "text": long}) + "\n")
            else:
                log.of()
        assert log.of() == run.read_events()
        for kind in ("train", "probe"):
            assert log.of(kind) == [e for e in run.read_events() if e["kind"] == kind]
