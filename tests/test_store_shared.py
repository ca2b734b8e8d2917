"""Several processes on one runs folder, on a disk that is slow and moody: nothing is lost, nothing torn."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from lab import list_runs
from lab.experiment import SCHEMA_VERSION, Experiment
from lab.files import put_in_place, read_json, write_json
from lab.run_index import RunIndex
from lab.store import STATES, RunFolder

WRITERS, OWN, SHARED, DELETED = 4, 8, 5, 3
WRITER = """
import json, random, sys
from pathlib import Path
import slow_disk
from lab.errors import LabError
from lab.experiment import SCHEMA_VERSION, Experiment
from lab.files import write_json
from lab.record import Run
from lab.run_care import delete_run, write_note
from lab.store import RunFolder

runs, me = Path(sys.argv[1]), int(sys.argv[2])
own, shared, deleted = map(int, sys.argv[3:])
asked = Experiment.from_dict({}).to_dict()
record = {"schema": SCHEMA_VERSION, "created": 1.0, "experiment": asked}
print("ready", flush=True)
sys.stdin.readline()
counts = slow_disk.mount(me)


def work(name):
    folder = RunFolder(runs / name)
    folder.create(record)
    with folder.lock():
        if not folder.finished:
            folder.append_event("status", by=me)
            result = {"twin": "", "by": me, "measures": {"test": {"poisoned": {}}}, "filler": "x" * 20_000}
            write_json(folder.path / "result.json", result)
    write_note(Run(folder.path), f"{me} was here. " * 200)


names = [f"own-{me}-{i}" for i in range(own)] + [f"shared-{i}" for i in range(shared)]
random.Random(me).shuffle(names)
for name in names:
    work(name)
for i in range(deleted):
    delete_run(Run(runs / f"own-{me}-{i}"))
beaten = 0
for i in range(deleted):
    try:
        delete_run(Run(runs / f"doomed-{i}"))
    except LabError:  # another one was faster, or is at it
        beaten += 1
print(json.dumps({**counts, "beaten": beaten}), flush=True)
"""


def record():
    return {"schema": SCHEMA_VERSION, "created": 1.0, "experiment": Experiment.from_dict({}).to_dict()}


def start(runs, number):
    paths = [str(Path(lab.__file__).parents[1]), str(Path(__file__).parent / "helpers")]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(runs), str(number), str(OWN), str(SHARED), str(DELETED)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def watch(writers, index):
    """Read the folder in both ways as long as somebody writes; how often it was read."""
    runs, allowed, looks = index.runs, set(STATES) - {"corrupt", "failed", "stopped"}, 0
    while any(writer.poll() is None for writer in writers):
        for table in (list_runs(runs), index.table()):
            assert set(table["state"]) <= allowed
            assert table["id"].is_unique
        looks += 1
    return looks


@pytest.mark.recipe
def test_several_processes_lose_nothing_on_a_slow_disk(tmp_path):
    for i in range(DELETED):
        RunFolder(tmp_path / f"doomed-{i}").create(record())
    writers = [start(tmp_path, number) for number in range(WRITERS)]
    index = RunIndex(tmp_path)
    try:
        # before the start, since the first look imports pandas, which takes longer than all the writing
        assert len(index.table()) == len(list_runs(tmp_path)) == DELETED
        for writer in writers:
            assert writer.stdout.readline().strip() == "ready"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        looks = watch(writers, index)
        told = [json.loads(writer.communicate(timeout=60)[0]) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert looks > 5
    # the disk was as moody as it should be
    assert all(sum(t[kind] for t in told) > WRITERS for kind in ("before", "after"))

    kept = {f"own-{me}-{i}" for me in range(WRITERS) for i in range(DELETED, OWN)}
    kept |= {f"shared-{i}" for i in range(SHARED)}
    for table in (list_runs(tmp_path), index.table()):
        assert set(table["id"]) == kept
        assert set(table["state"]) == {"finished"}
    for name in kept:
        folder = RunFolder(tmp_path / name)
        result, events = read_json(folder.path / "result.json"), folder.read_events()
        # whoever came first did the work, once, and nobody's result took its place
        assert [event["by"] for event in events] == [result["by"]]
        words = set((folder.path / "note.md").read_text().split(". "))
        assert len(words - {""}) == 1
        left = {path.name for path in folder.path.iterdir()} - {".lock"}
        assert left == {"experiment.json", "result.json", "events.jsonl", "note.md"}


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EBUSY])
@pytest.mark.parametrize("was_done", [False, True], ids=["refused", "answer lost"])
def test_a_refusal_that_passes_is_asked_again(tmp_path, monkeypatch, number, was_done):
    replace, calls = os.replace, []

    def moody(source, target):
        calls.append(source)
        if len(calls) == 1:
            if was_done:
                replace(source, target)
            raise OSError(number, os.strerror(number))
        replace(source, target)

    write_json(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, "replace", moody)
    write_json(tmp_path / "a.json", 2)
    assert len(calls) == 2
    assert read_json(tmp_path / "a.json") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("number", "tries"), [(errno.ESTALE, 6), (errno.EIO, 1), (errno.ENOSPC, 1)])
def test_a_refusal_that_stays_is_told_and_the_old_file_too(tmp_path, monkeypatch, number, tries):
    calls = []

    def refuse(source, target):
        calls.append(source)
        raise OSError(number, os.strerror(number))

    write_json(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(lab.LabError, match="Cannot write"):
        write_json(tmp_path / "a.json", 2)
    assert len(calls) == tries
    assert read_json(tmp_path / "a.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_lost_answer_is_no_failure_where_another_process_came_after(tmp_path, monkeypatch):
    replace, calls = os.replace, []

    def moody(source, target):
        calls.append(source)
        replace(source, target)
        if len(calls) == 1:
            Path(target).unlink()  # as who sweeps up after deletions does
            raise OSError(errno.ESTALE, "Stale file handle")

    run = RunFolder(tmp_path / "a-1")
    run.create(record())
    monkeypatch.setattr(os, "replace", moody)
    write_json(run.path / "note.json", 1)
    assert len(calls) == 2
    assert {path.name for path in run.path.iterdir()} == {"experiment.json"}


def test_what_was_never_ready_is_not_taken_for_done(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "none", tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == 1


def test_a_run_is_not_corrupt_because_its_file_was_stale_for_a_moment(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "a-1")
    folder.create(record())
    write_json(folder.path / "result.json", {"twin": "", "measures": {}})
    opened, stale = open, []

    def moody(path, *args, **kwargs):
        if str(path).endswith("result.json") and not stale:
            stale.append(path)
            raise OSError(errno.ESTALE, "Stale file handle")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", moody)
    assert RunIndex(tmp_path).table()["state"].tolist() == ["finished"]
    assert stale


@pytest.mark.parametrize("read", [list_runs, lambda runs: RunIndex(runs).table()], ids=["list", "index"])
def test_a_run_that_goes_while_it_is_read_is_not_listed_as_corrupt(tmp_path, monkeypatch, read):
    for name in ("a-1", "b-1"):
        RunFolder(tmp_path / name).create(record())
    found = RunFolder.state

    def gone(folder):
        if folder.id == "a-1":
            (folder.path / "experiment.json").unlink(missing_ok=True)
        return found(folder)

    monkeypatch.setattr(RunFolder, "state", gone)
    assert read(tmp_path)["id"].tolist() == ["b-1"]
