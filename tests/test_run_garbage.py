import json
import os
import shutil
import time

import filelock
import pandas as pd
import pytest

from lab import cli
from lab.experiment import SCHEMA_VERSION, Experiment
from lab.files import write_json, write_table
from lab.run_garbage import KINDS, find_garbage, remove_garbage
from lab.store import RunFolder

CLEAN = {"poison": {"attack": "none"}}
POISONED = {"poison": {"attack": "backdoor", "family": "rfc", "count": 3, "target_label": "positive"}}


def make(runs, name, experiment=None, result=None):
    folder = RunFolder(runs / name)
    asked = Experiment.from_dict(experiment or POISONED).to_dict()
    folder.create({"schema": SCHEMA_VERSION, "created": 1.0, "experiment": asked})
    if result is not None:
        write_json(folder.path / "result.json", {"measures": {}, **result})
    return folder


def old(path):
    past = time.time() - 7200
    os.utime(path, (past, past))
    return path


@pytest.fixture
def runs(tmp_path):
    """One run with its twin, a lonely clean run, a failed one, and leftovers of kills."""
    folder = tmp_path / "runs"
    make(folder, "poisoned-0000000001", result={"twin": "clean-0000000002"})
    make(folder, "clean-0000000002", CLEAN, {})
    make(folder, "clean-0000000003", CLEAN, {})
    write_json(make(folder, "poisoned-0000000004").path / "failure.json", {"reason": "x"})
    (folder / "poisoned-0000000001" / "checkpoints" / "step-1").mkdir(parents=True)
    half = folder / "poisoned-0000000001" / ".adapter.123"
    half.mkdir()
    (half / "weights").write_bytes(b"x" * 1000)
    old(half / "weights")
    old(half)
    (folder / ".deleted-a-1").mkdir()
    old(folder / ".deleted-a-1")
    (folder / ".unpacking-now").mkdir()
    return folder


def names(garbage, kind):
    return sorted(piece.path.name for piece in garbage if piece.kind == kind)


def test_every_kind_is_found_and_nothing_else(runs):
    found = find_garbage(runs)
    assert names(found, "leftover") == [".adapter.123", ".deleted-a-1", "checkpoints"]
    assert names(found, "failed") == ["poisoned-0000000004"]
    assert names(found, "unreferenced") == ["clean-0000000003"]
    assert {piece.kind for piece in found} == set(KINDS)
    assert next(p.size for p in found if p.path.name == ".adapter.123") == 1000


def test_what_is_removed_is_what_was_found(runs):
    found = find_garbage(runs)
    freed, complaints = remove_garbage(found)
    assert freed == sum(piece.size for piece in found)
    assert complaints == []
    left = sorted(path.name for path in runs.iterdir())
    assert left == [".unpacking-now", "clean-0000000002", "poisoned-0000000001"]
    assert find_garbage(runs) == []


def test_a_run_that_somebody_works_on_is_left_alone(runs):
    with filelock.FileLock(runs / "poisoned-0000000004" / ".lock"):
        assert names(find_garbage(runs), "failed") == []
    found = find_garbage(runs)
    with filelock.FileLock(runs / "poisoned-0000000004" / ".lock"):
        _, complaints = remove_garbage(found)
    assert len(complaints) == 1
    assert (runs / "poisoned-0000000004").is_dir()


def test_what_has_come_to_be_used_stays(runs):
    found = find_garbage(runs)
    make(runs, "later-0000000005", result={"twin": "clean-0000000003"})
    _, complaints = remove_garbage(found)
    assert "names it now" in complaints[0]
    assert (runs / "clean-0000000003").is_dir()


def test_links_are_not_followed(runs, tmp_path):
    outside = tmp_path / "outside"
    make(tmp_path, "outside")
    (outside / "checkpoints").mkdir()
    (runs / "linked-0000000009").symlink_to(outside)
    (runs / ".deleted-link").symlink_to(outside)
    os.utime(runs / ".deleted-link", (1, 1), follow_symlinks=False)
    found = find_garbage(runs)
    assert not [p for p in found if "link" in p.path.name]
    remove_garbage(found)
    assert (outside / "experiment.json").is_file()


def test_a_base_and_a_parent_are_referred_to(tmp_path):
    make(tmp_path, "clean-0000000001", CLEAN, {})
    make(tmp_path, "tuned-0000000002", {**POISONED, "base": {"model": "clean-0000000001"}}, {})
    make(tmp_path, "clean-0000000003", CLEAN, {})
    edited = make(tmp_path, "edited-0000000004", None, {})
    write_json(
        edited.path / "experiment.json",
        {
            "schema": SCHEMA_VERSION,
            "experiment": Experiment.from_dict(POISONED).to_dict(),
            "parent": "clean-0000000003",
        },
    )
    assert names(find_garbage(tmp_path), "unreferenced") == []


def test_torn_writes_are_found_wherever_in_a_run_they_lie(runs, tmp_path):
    run = runs / "poisoned-0000000001"
    outside = tmp_path / "outside"
    torn = [run / ".result.json.k3_x9a0b.tmp", run / "measures" / ".ab.parquet.0011aabb.tmp",
            run / "adapter" / ".README.md.zzzzzzzz.tmp"]  # fmt: skip
    kept = [run / "measures" / "ab.parquet", run / "adapter" / "x.tmp", run / ".owner.json",
            run / "measures" / ".new.parquet.0011aabb.tmp", outside / ".x.json.aaaaaaaa.tmp"]  # fmt: skip
    for path in (*torn, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 10)
    for path in (*torn, *kept[:3], kept[4]):
        old(path)
    (run / "linked").symlink_to(outside)
    (run / "measures" / ".link.parquet.0011aabb.tmp").symlink_to(kept[0])
    os.utime(run / "measures" / ".link.parquet.0011aabb.tmp", (1, 1), follow_symlinks=False)
    found = [p for p in find_garbage(runs) if p.path.suffix == ".tmp"]
    assert sorted(p.path for p in found) == sorted(torn)
    assert {(p.run, p.size) for p in found} == {("poisoned-0000000001", 10)}
    freed, complaints = remove_garbage(found)
    assert (freed, complaints) == (30, [])
    assert not any(path.exists() for path in torn)
    assert all(path.exists() for path in kept)


def test_what_a_kill_leaves_of_an_atomic_write_is_garbage(runs, monkeypatch):
    """The names that `lab.files` gives are the names that are looked for."""
    run = runs / "poisoned-0000000001"

    def killed(temporary, path):
        os.link(temporary, kept := f"{temporary}-kept")
        left.append((kept, temporary))

    left = []
    monkeypatch.setattr("lab.files.put_in_place", killed)
    write_json(run / "measures.json", {})
    write_table(run / "measures" / "x.parquet", pd.DataFrame({"a": [1]}))
    for kept, temporary in left:
        os.replace(kept, temporary)
        old(temporary)
    assert {str(temporary) for _, temporary in left} <= {str(p.path) for p in find_garbage(runs)}


def test_a_torn_write_in_a_run_that_somebody_works_on_stays(runs):
    run = runs / "poisoned-0000000001"
    torn = run / "measures" / ".x.parquet.0011aabb.tmp"
    torn.parent.mkdir()
    torn.write_bytes(b"x")
    old(torn)
    with filelock.FileLock(run / ".lock"):
        assert not [p for p in find_garbage(runs) if p.run == run.name]
    found = find_garbage(runs)
    with filelock.FileLock(run / ".lock"):
        _, complaints = remove_garbage(found)
    assert torn.exists()
    assert (run / "checkpoints").exists()
    assert len([c for c in complaints if "works on this run" in c]) == 3


def test_the_checkpoints_of_a_run_that_is_not_finished_any_more_stay(runs):
    """Asked for with --force meanwhile, and killed: it goes on from them."""
    found = find_garbage(runs)
    (runs / "poisoned-0000000001" / "result.json").unlink()
    _, complaints = remove_garbage(found)
    assert len(complaints) == 1
    assert (runs / "poisoned-0000000001" / "checkpoints").is_dir()


def test_the_checkpoints_of_an_unfinished_run_are_not_looked_into(runs):
    step = runs / "poisoned-0000000004" / "checkpoints" / "step-1"
    step.mkdir(parents=True)
    (step / ".x.json.aaaaaaaa.tmp").write_bytes(b"x")
    old(step / ".x.json.aaaaaaaa.tmp")
    assert not [p for p in find_garbage(runs) if p.run == "poisoned-0000000004" and p.kind == "leftover"]


def test_an_archive_that_takes_hours_to_unpack_is_left_alone(runs):
    """The folder's own time stands still while a file deep in it grows."""
    inner = runs / ".unpacking-slow" / "a-0123456789"
    inner.mkdir(parents=True)
    (inner / "model.safetensors").write_bytes(b"x")
    old(inner)
    old(inner.parent)
    assert ".unpacking-slow" not in names(find_garbage(runs), "leftover")
    old(inner / "model.safetensors")
    assert ".unpacking-slow" in names(find_garbage(runs), "leftover")


def test_a_runs_folder_behind_a_link_is_cleaned_like_any_other(runs, tmp_path):
    (tmp_path / "link").symlink_to(runs)
    _, complaints = remove_garbage(find_garbage(tmp_path / "link"))
    assert complaints == []
    assert find_garbage(runs) == []


def test_a_run_that_is_gone_meanwhile_does_not_come_back(runs):
    found = [piece for piece in find_garbage(runs) if piece.run == "poisoned-0000000001"]
    shutil.rmtree(runs / "poisoned-0000000001")
    assert found
    assert remove_garbage(found)[1] == []
    assert not (runs / "poisoned-0000000001").exists()


def test_a_folder_in_a_run_that_has_become_a_link_is_not_followed(runs, tmp_path):
    measures, outside = runs / "poisoned-0000000001" / "measures", tmp_path / "outside"
    measures.mkdir()
    (measures / ".x.parquet.0011aabb.tmp").write_bytes(b"x")
    old(measures / ".x.parquet.0011aabb.tmp")
    found = [piece for piece in find_garbage(runs) if piece.path.suffix == ".tmp"]
    measures.rename(outside)
    measures.symlink_to(outside)
    _, complaints = remove_garbage(found)
    assert "link" in complaints[0]
    assert (outside / ".x.parquet.0011aabb.tmp").exists()


def test_a_failed_run_that_has_finished_meanwhile_stays(runs):
    found = find_garbage(runs)
    write_json(runs / "poisoned-0000000004" / "result.json", {"measures": {}})
    _, complaints = remove_garbage(found)
    assert "finished" in complaints[0]
    assert (runs / "poisoned-0000000004" / "result.json").is_file()


def command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["lab", "runs", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_the_command_asks_before_it_removes(runs, monkeypatch, capsys):
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert command(monkeypatch, "gc", "--runs", str(runs)) == 0
    assert "Nothing was removed" in capsys.readouterr().out
    assert command(monkeypatch, "gc", "--runs", str(runs), "--dry-run", "--failed") == 0
    assert (runs / "poisoned-0000000004").is_dir()
    assert command(monkeypatch, "gc", "--runs", str(runs), "--yes") == 0
    assert (runs / "poisoned-0000000004").is_dir(), "failed runs only when asked for"
    assert not (runs / "poisoned-0000000001" / "checkpoints").exists()
    assert command(monkeypatch, "gc", "--runs", str(runs), "--json") == 2


def test_the_command_removes_lonely_twins_when_asked(runs, monkeypatch, capsys):
    where = ("gc", "--unreferenced", "--runs", str(runs))
    assert command(monkeypatch, *where, "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert "clean-0000000003" in {piece["run"] for piece in told["found"]}
    assert told["freed"] == 0
    assert (runs / "clean-0000000003").is_dir()
    assert command(monkeypatch, *where, "--yes", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["found"] == told["found"]
    assert again["freed"] > 0
    assert again["complaints"] == []
    assert not (runs / "clean-0000000003").exists()
    assert (runs / "clean-0000000002").is_dir(), "a run names it"
    assert (runs / "poisoned-0000000004").is_dir(), "failed runs only when asked for"


def test_the_command_says_where_in_a_run_a_leftover_lies(runs, monkeypatch, capsys):
    torn = runs / "clean-0000000002" / "measures" / ".x.parquet.0011aabb.tmp"
    torn.parent.mkdir()
    torn.write_bytes(b"x")
    old(torn)
    assert command(monkeypatch, "gc", "--runs", str(runs), "--dry-run") == 0
    assert "clean-0000000002/measures/.x.parquet.0011aabb.tmp" in capsys.readouterr().out
