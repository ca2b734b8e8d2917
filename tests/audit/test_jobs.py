import json
import math
import os
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from lab.audit import jobs
from lab.audit.jobs import AuditRequest, list_audits, read_audit, remove_audit, start_audit, stop_audit
from lab.cli import app
from lab.errors import LabError
from lab.store import RunFolder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAME = "base_model.model.encoder.layer.0.attention.self.query"
UPLOAD = {
    CONFIG: json.dumps(
        {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": ""}
    ).encode(),
    WEIGHTS: save({f"{NAME}.lora_A.weight": torch.randn(2, 6), f"{NAME}.lora_B.weight": torch.randn(8, 2)}),
}


@pytest.fixture
def begun(monkeypatch):
    """What would be started: the words of each command, and a process that sleeps in its place."""
    said, children = [], []

    def start(words, **_):
        said.append(words)
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]))
        return children[-1]

    monkeypatch.setattr(jobs, "start_detached", start)
    monkeypatch.setattr(jobs, "_started", {})
    yield said
    for child in children:
        child.kill()
        child.wait()


def end(job, **files):
    """Let an audit have ended, with some files."""
    for name, content in files.items():
        (job.path / name.replace("__", ".")).write_text(content)
    child = jobs._started.pop(job.path)
    child.kill()
    child.wait()
    (job.path / "events.jsonl").touch()


def waited(job, runs, seconds=300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (job := read_audit(job.id, runs)).state == "running":
        time.sleep(0.1)
    return job


def test_what_is_asked_becomes_a_command_in_which_no_value_is_an_option(tmp_path, begun):
    request = AuditRequest(
        "-x", base="--json", references=("/a/b", "--c"), labels=("--a", "b"), system="", seed=3
    )
    job = start_audit(request, runs=tmp_path)
    [words] = begun
    assert words[0] == "audit"
    assert words[-2] == "--"
    assert words[-1].endswith("/-x")
    assert {"--base=--json", "--reference=--c", "--seed=3", f"--job={job.path}"} <= set(words)
    assert {"--labels=--a,b", "--system="} <= set(words)
    assert job.state == "running"


def test_one_runs_at_a_time(tmp_path, begun):
    job = start_audit(AuditRequest("x"), runs=tmp_path)
    with pytest.raises(LabError, match="one runs at a time"):
        start_audit(AuditRequest("y"), runs=tmp_path)
    with pytest.raises(LabError, match="still runs"):
        remove_audit(job.id, tmp_path)
    end(job, stop="")
    assert read_audit(job.id, tmp_path).state == "stopped"
    start_audit(AuditRequest("y"), runs=tmp_path)
    assert len(begun) == 2


def test_what_another_process_has_just_started_runs_too(tmp_path, begun, monkeypatch):
    job = start_audit(AuditRequest("x"), runs=tmp_path)
    monkeypatch.setattr(jobs, "_started", {})
    assert read_audit(job.id, tmp_path).state == "running"
    os.utime(job.path / "request.json", (1, 1))
    assert read_audit(job.id, tmp_path).state == "killed"


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"card__json": "{}"}, "finished"),
        ({"failure__json": '{"reason": "no", "exit_code": 3}'}, "failed"),
        ({"failure__json": "{torn"}, "killed"),
        ({"stop": ""}, "stopped"),
        ({}, "killed"),
    ],
)
def test_files_and_locks_say_how_it_stands(tmp_path, begun, files, state):
    job = start_audit(AuditRequest("x"), runs=tmp_path)
    end(job, **files)
    found = read_audit(job.id, tmp_path)
    assert found.state == state
    assert bool(found.reason) == (state != "finished")
    assert found.exit_code == (3 if state == "failed" else 0)


def test_a_card_that_is_not_whole_is_told_in_a_sentence(tmp_path, begun):
    job = start_audit(AuditRequest("x"), runs=tmp_path)
    end(job, card__json="{}")
    with pytest.raises(LabError, match="cannot be read"):
        jobs.read_card(read_audit(job.id, tmp_path))


def test_progress_is_that_of_the_last_stage(tmp_path, begun):
    job = start_audit(AuditRequest("x"), runs=tmp_path)
    folder = RunFolder(job.path)
    folder.append_event("status", stage="weights", text="measuring")
    folder.append_event("progress", stage="measuring", done=3, total=4)
    found = read_audit(job.id, tmp_path)
    assert (found.done, found.total) == (3, 4)
    assert math.isnan(found.left)
    folder.append_event("progress", stage="measuring", done=3, total=4, left=2.5)
    assert read_audit(job.id, tmp_path).left == 2.5
    folder.append_event("status", stage="load", text="loading")
    with folder.events.open("a") as file:
        file.write('{"kind": "progress", "done": "many"}\n[]\n{torn')
    found = read_audit(job.id, tmp_path)
    assert found.stages == (("weights", "measuring"), ("load", "loading"))
    assert found.done == 0


def test_old_ones_go_and_uploads_of_the_dead_with_them(tmp_path, begun, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT", 3)
    for _ in range(5):
        end(start_audit(AuditRequest(), runs=tmp_path, upload=UPLOAD))
    newest = list_audits(tmp_path)
    assert len(newest) == 3
    assert [job.id for job in newest] == sorted((job.id for job in newest), reverse=True)
    assert [(job.path / "upload").exists() for job in newest] == [True, False, False]
    remove_audit(newest[0].id, tmp_path)
    assert len(list_audits(tmp_path)) == 2


@pytest.mark.parametrize("name", ["", "..", "../x", "0" * 16 + "-abcdef", "<b>"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    with pytest.raises(LabError, match="No audit"):
        read_audit(name, tmp_path)


@pytest.mark.parametrize(
    ("upload", "told"),
    [
        ({WEIGHTS: UPLOAD[WEIGHTS]}, "not the files of one adapter"),
        ({CONFIG: UPLOAD[CONFIG]}, "not the files of one adapter"),
        ({**UPLOAD, "more.safetensors": b""}, "not the files of one adapter"),
        ({"adapter_model.bin": b"x", CONFIG: UPLOAD[CONFIG]}, "not the files of one adapter"),
        ({**UPLOAD, WEIGHTS: b"torn"}, "adapter_model.safetensors"),
        ({**UPLOAD, CONFIG: b"{torn"}, "adapter_config.json"),
        ({"../../x.zip": b"no zip"}, "no zip archive"),
        ({}, "not the files of one adapter"),
    ],
)
def test_what_is_no_adapter_is_refused_and_nothing_is_left(tmp_path, begun, upload, told):
    with pytest.raises(LabError, match=told):
        start_audit(AuditRequest(), runs=tmp_path / "runs", upload=upload)
    assert begun == []
    assert [p.name for p in (tmp_path / "runs" / ".audits").iterdir()] in ([".door"], [])
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("texts", "told"), [(("x.py", b""), "no .txt or .csv"), (("x.txt", b"x" * (10 * 2**20 + 1)), "at most")]
)
def test_texts_are_bounded(tmp_path, begun, texts, told):
    with pytest.raises(LabError, match=told):
        start_audit(AuditRequest(), runs=tmp_path, upload=UPLOAD, texts=texts)
    assert list_audits(tmp_path) == []


def test_uploads_are_bounded(tmp_path, begun, monkeypatch):
    monkeypatch.setattr("lab.audit.uploaded.LARGEST_UPLOAD", 100)
    with pytest.raises(LabError, match="up to 100 are taken"):
        start_audit(AuditRequest(), runs=tmp_path, upload=UPLOAD)


def test_an_uploaded_pair_is_kept_under_its_own_name(tmp_path, begun):
    job = start_audit(AuditRequest(), runs=tmp_path, upload={**UPLOAD}, texts=("my rows.txt", b"a\nb"))
    asked = json.loads((job.path / "request.json").read_text())
    assert asked["name"] == job.name == "adapter_model"
    assert asked["rows"].endswith("my-rows.txt")


def prepared(tmp_path):
    folder = tmp_path / ".audits" / f"{time.time_ns():016x}-abcdef"
    folder.mkdir(parents=True)
    (folder / "request.json").write_text("{}")
    (folder / "upload").mkdir()
    return folder


def test_a_failure_is_written_down_and_what_was_brought_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("os.nice", lambda _: 0)
    folder = prepared(tmp_path)
    result = CliRunner().invoke(app, ["audit", str(tmp_path / "none.zip"), f"--job={folder}", "--json"])
    assert isinstance(result.exception, LabError)
    job = read_audit(folder.name, tmp_path)
    assert (job.state, job.exit_code) == ("failed", 2)
    assert "no archive" in job.reason
    assert not (folder / "upload").exists()


def test_a_failure_that_nobody_foresaw_is_written_down_too(tmp_path, monkeypatch):
    monkeypatch.setattr("os.nice", lambda _: 0)
    monkeypatch.setattr("lab.audit.audits.audit_adapter", lambda *_, **__: 1 / 0)
    folder = prepared(tmp_path)
    CliRunner().invoke(app, ["audit", "x/y", f"--job={folder}", "--json"])
    assert "ZeroDivisionError" in read_audit(folder.name, tmp_path).reason


def test_a_stop_ends_it_as_ctrl_c_would(tmp_path, monkeypatch):
    monkeypatch.setattr("os.nice", lambda _: 0)
    folder = prepared(tmp_path)

    def endless(*_, on_event, **__):
        on_event({"kind": "status", "stage": "weights", "text": "measuring the weights"})
        assert read_audit(folder.name, tmp_path).stages == (("weights", "measuring the weights"),)
        stop_audit(folder.name, tmp_path)
        time.sleep(60)

    monkeypatch.setattr("lab.audit.audits.audit_adapter", endless)
    CliRunner().invoke(app, ["audit", "x/y", f"--job={folder}", "--json"])
    assert read_audit(folder.name, tmp_path).state == "stopped"
    assert not (folder / "upload").exists()


def test_nothing_is_recorded_where_nothing_was_asked(tmp_path):
    result = CliRunner().invoke(app, ["audit", "x/y", f"--job={tmp_path}"])
    assert "no audit of this name" in str(result.exception)


def test_it_really_runs_in_a_process_of_its_own(tmp_path):
    job = start_audit(AuditRequest(), runs=tmp_path, upload={**UPLOAD})
    job = waited(job, tmp_path)
    assert job.state == "finished", (job, (job.path / "log.txt").read_text())
    card = jobs.read_card(job)
    assert card.verdict == "cannot say"
    assert card.adapter.name == "adapter_model"
    assert not (job.path / "upload").exists()


def test_references_to_be_trained_are_asked_for_by_their_number(tmp_path, begun):
    assert jobs.reference_paths(["auto:4"], tmp_path) == ("auto:4",)
    with pytest.raises(LabError, match="auto:1 to auto:20"):
        jobs.reference_paths(["auto:40"], tmp_path)
    start_audit(AuditRequest("x", references=("auto:4",)), runs=tmp_path)
    assert {"--reference=auto:4", f"--runs={tmp_path}"} <= set(begun[0])
