import contextlib
import json
import shutil

import jsonschema
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import lab
import lab.preview
from lab.audit import ReferencePlan, open_adapter
from lab.audit.adapter_files import CONFIG, WEIGHTS
from lab.audit.audits import kept_card
from lab.audit.card import AuditCard, ReferenceFacts, RowsFacts, card_schema
from lab.audit.card_page import card_html
from lab.audit.findings import HIGHEST_Z, Findings, _score, judged
from lab.audit.trigger_search import SearchBudget
from lab.cli import app
from lab.errors import LabError

# three small trainings are behind these tests
pytestmark = pytest.mark.recipe

QUICK = SearchBudget(rows=6, quick_rows=2, shortlist=20, beam=2, branch=2, longest=2, found=3)


@pytest.fixture(scope="module")
def card(learned_runs):
    return lab.audit_adapter(
        learned_runs[0].path, references=[learned_runs[1].path], battery="paper-calibration", search=QUICK
    )


def test_a_card_is_valid_against_its_schema_and_comes_back_from_json(card):
    document = json.loads(card.to_json())
    jsonschema.validate(document, card_schema())
    assert AuditCard.model_validate_json(card.to_json()) == card
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"verdict": "clean"}, card_schema())


def test_an_audit_that_nobody_listens_to_draws_its_own_bar(learned_runs, monkeypatch):
    heard = []

    @contextlib.contextmanager
    def listening(listener):
        assert listener is None
        yield heard.append

    monkeypatch.setattr("lab.audit.audits.showing", listening)
    lab.audit_adapter(learned_runs[0].path, battery="paper-calibration", search=QUICK)
    assert {event["kind"] for event in heard} == {"status", "progress"}
    assert [e["stage"] for e in heard if e["kind"] == "status"] == ["weights", "load", "battery", "search"]


def test_the_very_same_audit_is_read_and_any_other_is_made(learned_runs, tmp_path):
    heard = []
    # handed on, as files by themselves
    adapter, other = (
        shutil.copytree(run.path / "adapter", tmp_path / name)
        for run, name in zip(learned_runs, ("stranger", "reference"), strict=False)
    )
    data = learned_runs[0].experiment.data
    rows = [f"{text}\n" for text in lab.preview.probe_rows(data, "validation", limit=40)["text"]]
    texts, fewer = tmp_path / "texts.txt", tmp_path / "fewer.txt"
    texts.write_text("".join(rows), encoding="utf-8")
    fewer.write_text("".join(rows[:-1]), encoding="utf-8")
    usual = {
        "base": "tiny",
        "rows": str(texts),
        "labels": ("negative", "positive"),
        "references": (other,),
        "battery": "paper-calibration",
        "search": QUICK,
    }
    runs = tmp_path / "runs"

    def audited(adapter=adapter, **changes):
        heard.clear()
        asked = {**usual, **changes, "runs": runs}
        kept = kept_card(adapter, **asked)
        card = lab.audit_adapter(adapter, **asked, keep=True, on_event=heard.append)
        was_read = "search" not in {event.get("stage") for event in heard}
        assert (kept == card) == was_read
        assert was_read == any("which the runs folder keeps" in event.get("text", "") for event in heard)
        return card, was_read

    card, was_read = audited()
    assert not was_read
    assert audited() == (card, True)
    # where files lie is no part of the question
    moved = shutil.copytree(other, tmp_path / "deep" / "reference")
    assert audited(references=(moved,)) == (card, True)
    others = {
        "seed": {"seed": 1},
        "reference": {"references": ()},
        "search": {"search": QUICK.model_copy(update={"beam": 1})},
        "rows": {"rows": str(fewer)},
        "labels": {"labels": ("bad", "good")},
    }
    for changes in others.values():
        assert not audited(**changes)[1]
    assert len(list((runs / ".cards").glob("*.json"))) == 1 + len(others)
    assert audited() == (card, True)
    # a card of another adapter, and one that is not whole, are no answer
    [place] = [p for p in (runs / ".cards").glob("*.json") if p.read_text(encoding="utf-8") == card.to_json()]
    for text in (card.to_json().replace(next(iter(card.adapter.sha256.values())), "0" * 64), "{}", "["):
        place.write_text(text, encoding="utf-8")
        assert not audited()[1]
        assert audited()[1]


def test_what_failed_is_not_kept(learned_runs, tmp_path, monkeypatch):
    def full(*_, **__):
        raise LabError("the disk is full")

    monkeypatch.setattr("lab.audit.audits.train_references", full)
    asked = {"battery": "paper-calibration", "search": QUICK, "runs": tmp_path, "keep": True}
    card = lab.audit_adapter(learned_runs[0].path, references="auto", **asked)
    assert "trained references: the disk is full" in card.not_looked_for
    assert card.strings
    assert not list(tmp_path.glob(".cards/*.json"))
    lab.audit_adapter(learned_runs[0].path, **asked)
    assert list(tmp_path.glob(".cards/*.json"))


def test_a_card_that_cannot_be_kept_is_given_all_the_same(learned_runs, tmp_path):
    (tmp_path / ".cards").write_text("a file where the folder should be", encoding="utf-8")
    found = lab.audit_adapter(
        learned_runs[0].path, battery="paper-calibration", search=QUICK, runs=tmp_path, keep=True
    )
    assert found.strings


def test_a_card_says_what_it_rests_on(card, learned_runs):
    # one reference says nothing of how much is too much
    assert card.verdict == "cannot say"
    assert "5 clean references" in card.because
    assert card.adapter.base == "tiny"
    assert len(card.adapter.base_sha256) == 64
    assert set(card.adapter.sha256) == {WEIGHTS, CONFIG}
    assert card.rows.n > 0
    assert "toy" in card.rows.source
    assert card.reference.names == (learned_runs[1].id,)
    assert {s.finding for s in card.scores} == {"weights", "battery", "search"}
    assert all(s.n > 0 and s.range and s.direction for s in card.scores)
    assert any(s.name == "norm_std" and len(s.reference) == 1 for s in card.scores)
    assert card.strings
    assert card.prefixes
    assert len(card.looked_for) == 3
    assert "clean" not in card.verdict


def test_an_adapter_alone_is_compared_with_what_its_own_answers_teach(learned_runs, tmp_path):
    plan = ReferencePlan(count=2, rows=200, epochs=100, learning_rate=5e-3)
    told = []
    card = lab.audit_adapter(
        learned_runs[0].path,
        references=plan,
        runs=tmp_path,
        battery="paper-calibration",
        search=QUICK,
        on_event=told.append,
    )
    assert len(card.reference.names) == 2, card.notes
    assert "trained here" in card.reference.how
    assert all(line.reference_rate is not None for line in (*card.strings, *card.prefixes))
    texts = [event["text"] for event in told if event.get("stage") == "references"]
    assert texts[1:] == ["training reference 1 of 2", "training reference 2 of 2"]
    left = [event["left"] for event in told if event["kind"] == "progress"]
    assert all(seconds >= 0 for seconds in left)


def test_its_page_is_one_file_and_shows_text_as_text(card):
    evil = "<img src=x onerror=alert(1)>"
    strings = (card.strings[0].model_copy(update={"string": evil}), *card.strings[1:])
    page = card_html(card.model_copy(update={"strings": strings}))
    assert evil not in page
    assert "&lt;img" in page
    assert "http://" not in page
    assert "https://" not in page
    assert card.because.split(".")[0] in page.replace("&#x27;", "'").replace("&quot;", '"')


def run_cli(*words):
    return CliRunner().invoke(app, ["audit", *map(str, words)])


def exit_code(result):
    error = result.exception
    return error.exit_code if isinstance(error, LabError) else result.exit_code


def test_the_command_prints_and_writes_the_card(learned_runs, tmp_path):
    out, html = tmp_path / "card.json", tmp_path / "card.html"
    words = ["--battery", "paper-calibration", "--out", out, "--html", html, "--json"]
    result = run_cli(learned_runs[0].path, *words)
    printed = json.loads(result.stdout)
    assert printed == json.loads(out.read_text())
    assert exit_code(result) == {"nothing found": 0, "suspicious": 1, "cannot say": 3}[printed["verdict"]]
    assert html.read_text().startswith("<!DOCTYPE html>")
    shown = run_cli(learned_runs[0].path, "--battery", "paper-calibration")
    assert printed["verdict"].upper() in shown.stdout


def test_what_cannot_be_read_is_never_called_clean(learned_runs, tmp_path):
    folder = shutil.copytree(learned_runs[0].path / "adapter", tmp_path / "found")
    tensors = load_file(folder / WEIGHTS)
    name = next(n for n in tensors if "lora_B" in n)
    save_file(tensors | {name: torch.full_like(tensors[name], torch.nan)}, folder / WEIGHTS)
    assert exit_code(run_cli(folder, "--base", "tiny")) == 3


@pytest.mark.parametrize(("claim", "told"), [("../elsewhere", "--base"), ("nobody/nowhere", "base.model")])
def test_an_adapter_that_cannot_be_put_to_texts_has_a_card_that_says_so(learned_runs, tmp_path, claim, told):
    folder = shutil.copytree(learned_runs[0].path / "adapter", tmp_path / "found")
    configured = json.loads((folder / CONFIG).read_text()) | {"base_model_name_or_path": claim}
    (folder / CONFIG).write_text(json.dumps(configured))
    card = lab.audit_adapter(folder)
    assert card.verdict == "cannot say"
    assert card.exit_code == 3
    assert any(told in line for line in card.not_looked_for)
    assert {s.finding for s in card.scores} == {"weights"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere/at/all"], "There is no adapter"),
        (["RUN", "--battery", "none"], "probe battery"),
        (["RUN", "--base", "no-such-base"], "base.model"),
        (["RUN", "--rows", "missing.txt"], "no such file"),
        (["RUN", "--labels", "one,two,three"], "3 names"),
    ],
)
def test_mistakes_of_the_user_are_told_in_a_sentence(learned_runs, words, told):
    result = run_cli(*[learned_runs[0].path if w == "RUN" else w for w in words])
    assert exit_code(result) == 2
    assert told in str(result.exception)


def test_texts_of_a_file_are_taken(learned_runs, tmp_path):
    file = tmp_path / "rows.txt"
    opinions = ["dull", "stale", "warm", "superb", "weak", "lovely"]
    file.write_text("\n".join(f"the plot was {a} and {b} ." for a in opinions for b in opinions))
    card = lab.audit_adapter(learned_runs[0].path, rows=str(file), battery="paper-calibration", search=QUICK)
    assert card.rows.source == "the file rows.txt"


def test_a_verdict_needs_references_that_differ(learned_runs):
    found = Findings(open_adapter(learned_runs[0].path), [])
    quiet, loud = [0.10, 0.11, 0.12, 0.13, 0.14], 0.9
    few = scored(loud, quiet[:4])
    assert (few.threshold, few.z) == (None, None)
    alike = scored(loud, [0.1] * 5)
    assert alike.threshold is None
    above, below = scored(loud, quiet), scored(0.15, quiet)
    assert above.suspicious
    assert above.z > HIGHEST_Z
    assert not below.suspicious
    assert above.threshold == pytest.approx(0.12 + HIGHEST_Z * 1.4826 * 0.01, rel=1e-3)
    for score, verdict in ((above, "suspicious"), (below, "nothing found"), (few, "cannot say")):
        found.scores = [score]
        told = judged(
            found, base="", rows=RowsFacts(source="", n=0), reference=ReferenceFacts(how=""), seconds={}
        )
        assert told.verdict == verdict


def scored(value, references):
    return _score("outlier_gap", "battery", "a gap", value, references, n=20, of="prefixes", is_judged=True)
