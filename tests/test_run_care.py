import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab import LabError, list_runs
from lab.experiment import SCHEMA_VERSION, Experiment
from lab.files import write_json
from lab.record import Run
from lab.run_care import LONGEST_NOTE, NOTE, delete_run, dependents, read_note, write_note
from lab.store import RunFolder


def make(runs, name, **record):
    folder = RunFolder(runs / name)
    asked = Experiment.from_dict(record.pop("experiment", {})).to_dict()
    folder.create({"schema": SCHEMA_VERSION, "created": 1.0, "experiment": asked, **record})
    return Run(folder.path)


def test_a_note_is_kept_replaced_and_forgotten(tmp_path):
    run = make(tmp_path, "a-1")
    assert read_note(run) == ""
    write_note(run, "rank 4 misses ISO")
    assert read_note(run) == "rank 4 misses ISO"
    write_note(run, " \n")
    assert read_note(run) == ""
    assert not (run.path / NOTE).exists()
    assert run.state == "queued"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip))
def test_what_is_written_is_read(tmp_path, text):
    run = make(tmp_path, "a-1")
    write_note(run, text)
    assert read_note(run) == text


def test_a_note_that_cannot_be_kept_is_refused_in_a_sentence(tmp_path):
    run = make(tmp_path, "a-1")
    with pytest.raises(LabError, match="20,001 characters"):
        write_note(run, "x" * (LONGEST_NOTE + 1))
    write_note(run, "half a pair \ud800")
    assert read_note(run).startswith("half a pair")
    with pytest.raises(LabError, match="not there any more"):
        write_note(Run(tmp_path / "gone"), "x")
    (run.path / NOTE).write_bytes(b"\xff\xfe torn")
    assert "torn" in read_note(run)


def test_what_rests_on_a_run(tmp_path):
    make(tmp_path, "base-0123456789")
    make(tmp_path, "tuned-1", experiment={"base": {"model": "base-0123456789"}})
    make(tmp_path, "edited-1", experiment={"defense": [{"name": "truncate"}]}, parent="base-0123456789")
    poisoned = make(tmp_path, "poisoned-1")
    write_json(poisoned.path / "result.json", {"twin": "base-0123456789", "measures": {}})
    make(tmp_path, "stranger-1", experiment={"defense": [{"name": "truncate"}]}, parent="other")
    found = dependents("base-0123456789", list_runs(tmp_path), tmp_path)
    assert found == {"tuned-1": "base", "edited-1": "parent", "poisoned-1": "twin"}
    assert dependents("stranger-1", list_runs(tmp_path), tmp_path) == {}
    assert dependents("x", list_runs(tmp_path / "none")) == {}


@pytest.mark.parametrize("damage", ["", "experiment.json", "result.json"])
def test_a_run_is_deleted_whole_whatever_its_state(tmp_path, damage):
    run, other = make(tmp_path, "a-1"), make(tmp_path, "b-1")
    (run.path / "adapter").mkdir()
    if damage:
        (run.path / damage).write_text("{torn")
    delete_run(run)
    assert list(list_runs(tmp_path)["id"]) == [other.id]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b-1"]


def test_a_run_that_is_worked_on_is_not_deleted(tmp_path):
    run = make(tmp_path, "a-1")
    code = (
        "import sys; from pathlib import Path; from lab.store import RunFolder\n"
        f"with RunFolder(Path({str(run.path)!r})).lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(LabError, match="being worked on"):
            delete_run(run)
        holder.stdin.close()
    assert (run.path / "experiment.json").is_file()
    delete_run(run)
    assert not run.path.exists()


def test_only_a_run_is_deleted(tmp_path):
    (tmp_path / "stranger").mkdir()
    run = make(tmp_path, "a-1")
    (tmp_path / "link").symlink_to(run.path, target_is_directory=True)
    for name in ("stranger", "link", "none"):
        with pytest.raises(LabError, match="no folder of a run"):
            delete_run(Run(tmp_path / name))
    assert (tmp_path / "stranger").is_dir()
    assert run.path.is_dir()


def test_what_a_kill_left_half_deleted_is_hidden_and_goes_with_the_next(tmp_path):
    half = tmp_path / ".deleted-x-1234"
    half.mkdir()
    (half / "experiment.json").write_text("{}")
    assert len(list_runs(tmp_path)) == 0
    delete_run(make(tmp_path, "a-1"))
    assert not half.exists()
