import errno
import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import LabError, list_runs
from lab.experiment import SCHEMA_VERSION, Experiment
from lab.files import read_json, write_json, writing_to
from lab.store import RunFolder, find_run


def make(runs, name="a-0123456789", finished=True, **measures):
    folder = RunFolder(runs / name)
    folder.create({"schema": SCHEMA_VERSION, "created": 1.0, "experiment": Experiment().to_dict()})
    if finished:
        rates = {k: {"value": v, "k": 1, "n": 2, "low": 0.0, "high": 1.0} for k, v in measures.items()}
        write_json(folder.path / "result.json", {"twin": "", "measures": {"test": {"poisoned": rates}}})
    return folder


def test_no_one_and_many_runs_are_listed(tmp_path):
    assert list(list_runs(tmp_path / "none").columns[:3]) == ["id", "state", "name"]
    assert len(list_runs(tmp_path / "none")) == 0
    make(tmp_path, clean_accuracy=0.8)
    one = list_runs(tmp_path)
    assert one.loc[0, "clean_accuracy"] == 0.8
    assert one.loc[0, "adapter.rank"] == 8
    assert one.loc[0, "state"] == "finished"
    make(tmp_path, "b-1", finished=False)
    (tmp_path / "stranger").mkdir()
    (tmp_path / ".queue").mkdir()
    assert sorted(list_runs(tmp_path)["id"]) == ["a-0123456789", "b-1"]


def test_states(tmp_path):
    folder = make(tmp_path, finished=False)
    assert folder.state() == "queued"
    folder.append_event("status")
    assert folder.state() == "killed"
    (folder.path / "stop").touch()
    assert folder.state() == "stopped"
    write_json(folder.path / "failure.json", {"reason": "x"})
    assert folder.state() == "failed"
    with folder.lock():
        code = (
            "from pathlib import Path; from lab.store import RunFolder; "
            f"print(RunFolder(Path({str(folder.path)!r})).state())"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == "running"
    write_json(folder.path / "result.json", {})
    assert folder.state() == "finished"
    (folder.path / "result.json").write_text("{torn")
    assert folder.state() == "corrupt"


def test_a_lock_file_alone_means_nothing(tmp_path):
    folder = make(tmp_path, finished=False)
    (folder.path / ".lock").touch()
    folder.append_event("status")
    assert folder.state() == "killed"


def test_a_killed_holder_leaves_the_run_free(tmp_path):
    folder = make(tmp_path, finished=False)
    code = (
        "import sys, time; from pathlib import Path; from lab.store import RunFolder\n"
        f"with RunFolder(Path({str(folder.path)!r})).lock():\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline().strip() == "held"
    assert folder.is_locked()
    said = []
    holder.kill()
    holder.wait()
    assert not folder.is_locked()
    with folder.lock(on_wait=said.append):
        assert said == []


def test_a_second_process_waits_and_says_for_whom(tmp_path):
    folder = make(tmp_path, finished=False)
    code = (
        "import sys, time; from pathlib import Path; from lab.store import RunFolder\n"
        f"with RunFolder(Path({str(folder.path)!r})).lock():\n    print('held', flush=True); time.sleep(1)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    holder.stdout.readline()
    said = []
    with folder.lock(on_wait=said.append):
        assert holder.poll() is not None or holder.wait(60) == 0
    assert f"process {holder.pid}" in said[0]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_torn_last_line_is_skipped(tmp_path_factory, cut):
    folder = make(tmp_path_factory.mktemp("r"), finished=False)
    for i in range(5):
        folder.append_event("train", step=i, loss=float(i))
    whole = folder.events.read_bytes()
    folder.events.write_bytes(whole[: min(cut, len(whole))])
    read = folder.read_events()
    lines = whole[: min(cut, len(whole))].count(b"\n")
    assert lines <= len(read) <= lines + 1
    assert [e["step"] for e in read] == list(range(len(read)))


def test_after_a_torn_line_the_next_event_is_whole(tmp_path):
    folder = make(tmp_path, finished=False)
    folder.append_event("train", step=1)
    with folder.events.open("a") as file:
        file.write('{"kind": "tr')
    folder.append_event("train", step=2)
    assert [e["step"] for e in folder.read_events()] == [1, 2]


def test_events_are_cut_back_to_a_checkpoint(tmp_path):
    folder = make(tmp_path, finished=False)
    for i in range(6):
        folder.append_event("train", step=i)
    folder.append_event("status", stage="x")
    folder.rewind_events(3)
    assert [e["step"] for e in folder.read_events()] == [0, 1, 2, 3, -1]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert read_json(path) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only")],
)
def test_refusals_of_the_system_are_sentences(tmp_path, number, words):
    with pytest.raises(LabError, match=words), writing_to(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LabError, match="disk is full"):
        write_json(path, {"x": 2})
    assert read_json(path) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_the_runs_folder(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(LabError, match="Cannot write to"):
        make(tmp_path / "runs")


def test_another_schema_is_read_and_not_continued(tmp_path):
    folder = make(tmp_path)
    record = read_json(folder.path / "experiment.json") | {"schema": 99}
    write_json(folder.path / "experiment.json", record)
    assert len(list_runs(tmp_path)) == 1
    with pytest.raises(LabError, match="schema 99"):
        folder.create({})


def test_runs_are_found_by_any_clear_beginning(tmp_path):
    make(tmp_path, "minilm-rfc-0123456789")
    make(tmp_path, "minilm-iso-abcdef0000")
    assert find_run("minilm-r", tmp_path).id == "minilm-rfc-0123456789"
    assert find_run("abcdef", tmp_path).id == "minilm-iso-abcdef0000"
    assert find_run(str(tmp_path / "minilm-iso-abcdef0000")).id == "minilm-iso-abcdef0000"
    with pytest.raises(LabError, match="fits 2 runs"):
        find_run("minilm", tmp_path)
    with pytest.raises(LabError, match=r"No run 'zzz'.*the 2 runs"):
        find_run("zzz", tmp_path)


def test_clearing_forgets_the_result_first(tmp_path):
    folder = make(tmp_path)
    (folder.path / "adapter").mkdir()
    folder.append_event("status")
    folder.clear()
    assert sorted(p.name for p in folder.path.iterdir()) == ["experiment.json"]


def test_two_thousand_runs_list_quickly(tmp_path):
    for i in range(200):
        make(tmp_path, f"r-{i}", clean_accuracy=0.5)
    start = time.perf_counter()
    assert len(list_runs(tmp_path)) == 200
    assert time.perf_counter() - start < 5  # `lab bench` measures it; here only nothing absurd
    assert json.dumps(list_runs(tmp_path).iloc[0].to_dict(), default=str)


def test_a_run_from_before_negatives_differs_from_none_by_them(tmp_path):
    old, new = make(tmp_path, "old-1"), make(tmp_path, "new-1")
    for folder in (old, new):
        record = read_json(folder.path / "experiment.json")
        asked = Experiment.from_dict({"poison": {"attack": "backdoor", "count": 3}})
        record["experiment"] = asked.to_dict()
        if folder is old:
            del record["experiment"]["poison"]["negatives"]
        write_json(folder.path / "experiment.json", record)
    assert set(list_runs(tmp_path)["poison.negatives"]) == {0}


def test_lists_of_tokens_are_text_in_the_listing_and_older_runs_differ_by_none(tmp_path):
    tokens = {"attack": "spurious_tokens", "items": ["red", "blue"], "then": [{"items": ["a"]}]}
    new, old = (
        Experiment.from_dict({"poison": p}).to_dict() for p in (tokens, {"attack": "spurious_tokens"})
    )
    for knob in ("items", "file", "first_year", "last_year", "replacement", "level", "then"):
        del old["poison"][knob]
    for name, asked in (("new-0123456789", new), ("old-0123456789", old)):
        RunFolder(tmp_path / name).create({"schema": SCHEMA_VERSION, "created": 1.0, "experiment": asked})
    table = list_runs(tmp_path).set_index("id")
    assert table["poison.items"].to_dict() == {"new-0123456789": "red, blue", "old-0123456789": ""}
    assert '"items": ["a"]' in table.loc["new-0123456789", "poison.then"]
    assert set(table["poison.first_year"]) == {1100}
    assert set(table["poison.level"]) == {"none"}
