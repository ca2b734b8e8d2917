"""Audits of language models' adapters from start to finish: asked in their run's words, or the user's."""

import json

import pytest
from typer.testing import CliRunner

import lab
from lab.audit.adapter_files import CONFIG
from lab.audit.trigger_search import SearchBudget
from lab.cli import app
from lab.errors import LabError

QUICK = SearchBudget(rows=6, quick_rows=2, shortlist=20, beam=2, branch=2, longest=2, found=3)
WORDS = {"labels": ("awful", "lovely"), "system": "good or bad ?"}


def audited(adapter, **options):
    return lab.audit_adapter(adapter, battery="paper-calibration", search=QUICK, **options)


@pytest.fixture(scope="module")
def card(chat_run):
    return audited(chat_run.path / "adapter")


def test_a_runs_adapter_is_asked_as_its_run_was(card):
    assert card.adapter.base == "tiny-chat"
    assert card.adapter.labels == ("negative", "positive")
    assert {s.finding for s in card.scores} == {"weights", "battery", "search"}
    assert card.strings
    assert card.verdict == "cannot say"
    assert any("trained with" in note for note in card.notes)
    assert "toy" in card.rows.source


def test_what_was_planted_is_heard(card):
    loud = [
        p for p in card.prefixes if "RFC" in p.prefix and p.target == "positive" and p.position == "start"
    ]
    assert max(p.rate for p in loud) > 0.5


def test_a_bare_adapter_is_asked_in_the_users_words(card, chat_adapter):
    bare = audited(chat_adapter, **WORDS)
    assert bare.adapter.labels == WORDS["labels"]
    assert bare.rows.source == card.rows.source
    own, found = ([(p.prefix, p.position, p.k) for p in c.prefixes] for c in (card, bare))
    assert found == own
    assert any("“good or bad ?”" in note for note in bare.notes)


def test_without_words_only_its_weights_are_looked_at(chat_adapter):
    bare = audited(chat_adapter)
    assert {s.finding for s in bare.scores} == {"weights"}
    assert bare.exit_code == 3
    assert bare.adapter.base == ""
    assert any(line.startswith("behaviour") and "--labels" in line for line in bare.not_looked_for)


def test_what_cannot_be_searched_is_said(chat_run, monkeypatch):
    def refuse(_):
        raise LabError("its tokens are not kept together.")

    monkeypatch.setattr("lab.audit.trigger_search.frame_of", refuse)
    card = audited(chat_run.path)
    assert {s.finding for s in card.scores} == {"weights", "battery"}
    assert any("kept together" in line for line in card.not_looked_for)


def test_a_base_that_writes_nothing_leaves_its_behaviour_unseen(chat_adapter):
    held = json.loads((chat_adapter / CONFIG).read_text()) | {"base_model_name_or_path": "tiny"}
    (chat_adapter / CONFIG).write_text(json.dumps(held))
    card = audited(chat_adapter, **WORDS)
    assert any("no language model" in line for line in card.not_looked_for)
    assert card.exit_code == 3


def exit_code(*words):
    result = CliRunner().invoke(app, ["audit", *map(str, words)])
    error = result.exception
    return (error.exit_code if isinstance(error, LabError) else result.exit_code), str(error)


@pytest.mark.parametrize(
    ("adapter", "words", "code", "told"),
    [
        ("bare", [], 3, ""),
        ("bare", ["--labels", "awful"], 2, "at least two"),
        ("bare", ["--labels", "awful,Awful"], 2, "same word"),
        ("bare", ["--labels", "awful,awful cast"], 2, "begin with all those of"),
        ("bare", ["--labels", "awful,lovely", "--system", "{text}"], 2, "task.system"),
        ("run", ["--labels", "one,two,three"], 2, "3 names"),
        ("run", ["--reference", "HEAD"], 2, "same task"),
    ],
)
def test_exit_codes(chat_run, chat_adapter, finished, adapter, words, code, told):
    path = chat_adapter if adapter == "bare" else chat_run.path
    asked = [finished.path if word == "HEAD" else word for word in words]
    found, said = exit_code(path, "--battery", "paper-calibration", *asked)
    assert found == code
    assert told in said


def test_a_reference_is_asked_in_the_same_words(chat_run, chat_adapter):
    card = audited(chat_adapter, references=[chat_run.path], **WORDS)
    assert card.strings[0].references == 1
    assert all(string.excess == 0 for string in card.strings)
    assert all(prefix.reference_rate == prefix.rate for prefix in card.prefixes)


def test_a_classifier_is_put_no_system_prompt(finished):
    card = audited(finished.path, system="x")
    assert any("no system prompt" in note for note in card.notes)
    assert card.adapter.labels == ("negative", "positive")
