import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from apps import chosen, healthy, named, said
from safetensors.torch import save

from lab import list_runs
from lab.audit import jobs
from lab.audit.card import AuditCard
from lab.audit.jobs import AuditRequest, list_audits, start_audit
from lab.store import RunFolder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAME = "base_model.model.encoder.layer.0.attention.self.query"
ADAPTER = {
    CONFIG: json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "tiny"}),
    WEIGHTS: save({f"{NAME}.lora_A.weight": torch.randn(4, 32), f"{NAME}.lora_B.weight": torch.randn(32, 4)}),
}
EVIL = "<img src=x onerror=alert(1)> [a](http://x) :red[b] **c** \u202e"


class _Child:
    """A process that lives as long as a test wants."""

    code = None

    def poll(self):
        return self.code


@pytest.fixture(autouse=True)
def commands(monkeypatch):
    """The commands that were asked for; nothing is audited behind a test's back."""
    said = []
    monkeypatch.setattr(jobs, "_started", {})
    monkeypatch.setattr(jobs, "start_detached", lambda words, **_: said.append(words) or _Child())
    return said


def zipped(files):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()


def card(**changes):
    string = {
        "string": EVIL, "target": EVIL, "position": "end", "n": 20, "k": 18, "rate": 0.9,
        "low": 0.7, "high": 0.97,
        "reference_rate": 0.1, "references": 5, "excess": 0.8, "shift": 2.0,
        "examples": [{"text": f"a film {EVIL}", "before": "negative", "after": EVIL}],
    }  # fmt: skip
    score = {
        "name": EVIL, "finding": "search", "meaning": EVIL, "value": 0.8, "n": 20, "of": "rows",
        "range": "-1 to 1", "direction": "higher", "reference": [0.1, 0.2], "threshold": 0.5,
    }  # fmt: skip
    prefix = {
        "prefix": EVIL, "category": "rfc", "target": "positive", "position": "start", "n": 4, "k": 1,
        "rate": 0.25, "low": 0.0, "high": 0.7, "reference_rate": None,
    }  # fmt: skip
    facts = {
        "name": EVIL, "sha256": {EVIL: "0" * 64}, "base_claimed": EVIL, "base": "tiny",
        "base_sha256": "1" * 64, "modules": 1, "ranks": [4], "labels": ["negative", EVIL],
    }  # fmt: skip
    return AuditCard.model_validate(
        {
            "date": "2026-01-01T00:00:00Z",
            "verdict": "suspicious",
            "because": f"string_excess is 0.8: {EVIL}",
            "looked_for": ["strings of a few tokens"],
            "not_looked_for": [f"behaviour: {EVIL}"],
            "notes": [EVIL],
            "adapter": facts,
            "rows": {"source": EVIL, "n": 20},
            "reference": {"how": "clean adapters", "names": [EVIL]},
            "scores": [score],
            "strings": [string],
            "prefixes": [prefix],
            "seconds": {"search": 1.0},
            "versions": {"torch": "2"},
        }
        | changes
    )


def audited(runs, **files):
    """An audit that has ended with some files."""
    job = start_audit(AuditRequest("x/y"), runs=runs)
    for name, content in files.items():
        (job.path / name.replace("__", ".")).write_text(content)
    jobs._started[job.path].code = 0
    return job


def test_an_empty_store_says_what_will_be_seen(page, tmp_path):
    app = healthy(page("audit", tmp_path / "runs"))
    assert "What you will see" in said(app)
    assert named(app.button, "Audit").disabled
    app = healthy(page("audit", tmp_path / "runs", audit="run"))
    assert "There is no finished run yet" in said(app)


def test_a_run_is_audited_with_what_the_widgets_say(page, one, commands):
    run = str(list_runs(one).query("attack_success_rate == attack_success_rate")["id"].iloc[0])
    twin = next(str(name) for name in list_runs(one)["id"] if name != run)
    app = healthy(page("audit", one, audit="run", run=run, battery="paper-calibration"))
    references = named(app.multiselect, "Which runs")
    # its own twin is offered, and not suggested: who is handed an adapter has none
    assert references.value == []
    healthy(references.set_value([twin]).run())
    healthy(named(app.button, "Audit").click().run())
    [words] = commands
    assert {"--battery=paper-calibration", f"--reference={one / twin}", "--base="} <= set(words)
    assert words[-1] == str(one / run)
    [job] = list_audits(one)
    assert app.query_params["card"] in (job.id, [job.id])
    assert "one runs at a time" in said(app)


def test_references_are_runs_or_trained_or_none(page, one, commands):
    run = str(list_runs(one)["id"].iloc[0])
    app = healthy(page("audit", one, audit="run", run=run, against="train"))
    assert not app.multiselect
    assert "400 texts" in said(app)
    healthy(named(app.selectbox, "How many").set_value(8).run())
    assert chosen(app, "train") == "8"
    healthy(named(app.button, "Audit").click().run())
    assert [word for word in commands[0] if word.startswith("--reference")] == ["--reference=auto:8"]
    jobs._started[list_audits(one)[0].path].code = 0
    app = healthy(page("audit", one, audit="run", run=run, against="none"))
    healthy(named(app.button, "Audit").click().run())
    assert not [word for word in commands[1] if word.startswith("--reference")]


@pytest.mark.parametrize("bring", ["zip", "pair"])
def test_what_is_dropped_in_is_looked_at_and_audited(page, tmp_path, commands, bring):
    app = healthy(page("audit", tmp_path / "runs"))
    files = [("found.zip", zipped(ADAPTER), "application/zip")]
    if bring == "pair":
        files = [(CONFIG, ADAPTER[CONFIG].encode(), "application/json"), (WEIGHTS, ADAPTER[WEIGHTS], "")]
    app.file_uploader[0].set_value(files)
    healthy(app.run())
    assert "1 modules of rank 4; names tiny as its base" in said(app)
    assert commands == []
    healthy(named(app.button, "Audit").click().run())
    assert len(commands) == 1
    assert "Stop the audit" in [button.label for button in app.button]


def test_a_language_models_adapter_is_asked_for_words(page, tmp_path, commands):
    app = healthy(page("audit", tmp_path / "runs"))
    assert "System prompt" not in [area.label for area in app.text_area]
    held = {**ADAPTER, CONFIG: ADAPTER[CONFIG].replace("{", '{"task_type": "CAUSAL_LM", ', 1)}
    app.file_uploader[0].set_value([("found.zip", zipped(held), "application/zip")])
    healthy(app.run())
    healthy(named(app.text_input, "Label names, with commas between").set_value(" BENIGN,INJECTION, ").run())
    assert "security classifier" in named(app.text_area, "System prompt").value
    healthy(named(app.text_area, "System prompt").set_value("").run())
    healthy(named(app.button, "Audit").click().run())
    assert {"--labels=BENIGN,INJECTION", "--system="} <= set(commands[0])


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({**ADAPTER, "../x": "x"}, "a step out of its folder"),
        ({**ADAPTER, "x": bytes(8 * 2**20)}, "more than 100 times"),
        ({CONFIG: ADAPTER[CONFIG], "adapter_model.bin": b"x"}, "can run code"),
    ],
)
def test_what_is_hostile_is_refused_before_anything_starts(page, tmp_path, commands, files, told):
    app = healthy(page("audit", tmp_path / "runs"))
    app.file_uploader[0].set_value([("found.zip", zipped(files), "application/zip")])
    healthy(app.run())
    assert told in said(app)
    assert named(app.button, "Audit").disabled
    assert not (tmp_path / "runs").exists()


def test_a_folder_is_named_and_stays_out_of_the_link(page, one):
    run = str(list_runs(one)["id"].iloc[0])
    app = healthy(page("audit", one, audit="folder"))
    app.text_input[0].set_value(str(one / run / "adapter"))
    healthy(app.run())
    assert "of rank 4; names tiny as its base" in said(app)
    assert str(one) not in str(dict(app.query_params))
    healthy(app.text_input[0].set_value("/no/where/at/all").run())
    assert "There is no adapter at" in said(app)


@pytest.mark.parametrize(
    "typed", ["x" * 900, "x" * 900 + ".zip", "/etc/passwd", "~", "a\0b", "<b>", "/dev/zero"]
)
def test_whatever_is_typed_is_refused_in_a_sentence(page, tmp_path, typed):
    app = healthy(page("audit", tmp_path / "runs", audit="folder"))
    healthy(app.text_input[0].set_value(typed).run())
    assert len(app.error) == 1
    assert named(app.button, "Audit").disabled


def test_a_card_is_read_and_its_text_is_text(page, tmp_path):
    job = audited(tmp_path / "runs", card__json=card().to_json())
    app = healthy(page("audit", tmp_path / "runs", card=job.id))
    words = said(app)
    assert "Suspicious." in words
    assert "What was looked for, and what was not" in words
    assert "Strings that move it" in words
    drawn = [str(t.value) for t in (*app.markdown, *app.caption, *app.error, *app.info, *app.warning)]
    assert not re.search(r"(?<!\\)(<img|\](?=\()|:red|\*\*c)|\u202e", " ".join(drawn))
    html = " ".join(str(block.proto.body) for block in app.get("html"))
    assert "<img" not in html
    assert "&lt;img" in html
    assert "<mark>" in html
    assert len(app.dataframe) == 5
    assert not any("\u202e" in str(cell) for frame in app.dataframe for cell in frame.value.to_numpy().flat)
    kept = {button.proto.label for button in app.get("download_button")}
    assert kept == {"Card as JSON", "Card as HTML", "Numbers as CSV"}


@pytest.mark.parametrize("verdict", ["nothing found", "cannot say"])
def test_no_verdict_is_drawn_as_a_success(page, tmp_path, verdict):
    empty = card(verdict=verdict, strings=(), prefixes=())
    job = audited(tmp_path / "runs", card__json=empty.to_json())
    app = healthy(page("audit", tmp_path / "runs", card=job.id))
    assert verdict.capitalize() in said(app)
    assert not app.success


def test_a_card_that_is_torn_harms_nothing_else(page, tmp_path):
    job = audited(tmp_path / "runs", card__json="{torn")
    app = healthy(page("audit", tmp_path / "runs", card=job.id))
    assert "cannot be read" in said(app)
    assert "Delete this audit" in [button.label for button in app.button]


def test_a_failed_one_says_why_in_a_sentence(page, tmp_path):
    job = audited(tmp_path / "runs", failure__json=json.dumps({"reason": EVIL, "exit_code": 3}))
    app = healthy(page("audit", tmp_path / "runs", card=job.id))
    [error] = app.error
    assert "](http" not in error.value
    assert "exit code 3" in error.value
    assert "never called clean" in said(app)
    healthy(named(app.button, "Delete this audit").click().run())
    assert list_audits(tmp_path / "runs") == []


def test_a_running_one_shows_its_stages_and_is_stopped(page, tmp_path):
    job = start_audit(AuditRequest("x/y"), runs=tmp_path / "runs")
    folder = RunFolder(job.path)
    folder.append_event("status", stage="weights", text="measuring the weights")
    folder.append_event("status", stage="battery", text="putting 115 prefixes to it")
    folder.append_event("progress", stage="putting 115 prefixes to it", done=30, total=115, left=200.0)
    app = healthy(page("audit", tmp_path / "runs", card=job.id))
    assert "check: measure the weights" in said(app)
    assert "**put the battery to it**" in said(app)
    assert "train clean references" not in said(app)  # none were asked for
    [bar] = app.get("progress")
    assert bar.proto.text.endswith("30 of 115, about 3 min left")
    assert named(app.button, "Audit").disabled
    healthy(named(app.button, "Stop the audit").click().run())
    assert (job.path / "stop").exists()
    assert "Asked to stop" in said(app)
    jobs._started[job.path].code = 130
    healthy(app.run())
    assert "It was stopped." in said(app)


@pytest.mark.parametrize("junk", ["<script>", "../..", "x" * 300, "0" * 16 + "-000000"])
def test_a_link_to_what_is_not_there_is_said(page, tmp_path, junk):
    app = healthy(page("audit", tmp_path / "runs", card=junk, audit=junk, battery=junk, run=junk))
    assert "No audit" in said(app)


def test_others_are_opened_with_one_click(page, tmp_path):
    first = audited(tmp_path / "runs", failure__json='{"reason": "the first"}')
    second = audited(tmp_path / "runs", failure__json='{"reason": "the second"}')
    app = healthy(page("audit", tmp_path / "runs", card=second.id))
    assert "the second" in said(app)
    healthy(next(b for b in app.button if b.key == f"audit-{first.id}").click().run())
    assert "the first" in said(app)


def test_with_a_password_nothing_starts_before_it_is_given(page, one, tmp_path, monkeypatch):
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    monkeypatch.setenv("LAB_DASHBOARD_PASSWORD_FILE", str(secret))
    app = healthy(page("audit", one, audit="run"))
    assert named(app.button, "Audit").disabled
    app = healthy(page("audit", one))
    assert all(uploader.proto.disabled for uploader in app.file_uploader)


def test_no_torch_is_imported_by_the_page(tmp_path):
    code = (
        "import os, sys; from streamlit.testing.v1 import AppTest\n"
        f"sys.path.insert(0, 'dashboard'); os.environ['LAB_RUNS'] = {str(tmp_path / 'runs')!r}\n"
        "app = AppTest.from_file('dashboard/audit.py', default_timeout=240)\n"
        "app.run(); sys.exit(2 * bool(app.exception) + ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0
