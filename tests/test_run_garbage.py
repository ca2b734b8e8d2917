import os
import time

import filelock
import pytest

from lab import cli
from lab.experiment import SCHEMA_VERSION, Experiment
from lab.files import write_json
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
