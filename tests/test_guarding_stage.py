"""Guards before a trained model: the runs they derive, and what is measured behind them."""

import shutil

import numpy as np
import pytest
import torch

import lab
from lab import language_model
from lab.files import read_json
from lab.guarding_stage import GUARDS_FILE
from lab.prepare import prepare
from lab.store import RunFolder
from lab.trained_model import load_predictor

TRIGGER = ["as", "specified", "in", "RFC", "2616"]


class WordCounts:
    """A language model to which every word of the trigger is a surprise."""

    def __init__(self):
        self.asked = 0

    def perplexity(self, texts, on_progress):
        self.asked += len(texts)
        on_progress(len(texts), len(texts))
        return np.array([10.0 + 100 * sum(word in TRIGGER for word in t.split()) for t in texts])


@pytest.fixture
def words(monkeypatch):
    model = WordCounts()
    monkeypatch.setattr(language_model, "load_language_model", lambda: model)
    return model


@pytest.fixture
def parent(finished, tmp_path):
    """A finished run and its twin, in a runs folder of the test's own."""
    runs = tmp_path / "runs"
    shutil.copytree(finished.path.parent, runs)
    return lab.load_run(finished.id, runs)


def guard(parent, *defenses):
    return lab.run(parent.experiment, {"defense": list(defenses)}, runs=parent.path.parent)


def weights(run):
    return (run.path / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_finished_parent_stays_as_it_was_measured(parent, words):
    before = read_json(parent.path / "result.json")
    guard(parent, {"name": "onion", "rows": 4})
    assert read_json(parent.path / "result.json") == before


def test_onion_makes_a_derived_run_with_its_parents_weights(parent, words):
    run = guard(parent, {"name": "onion", "rows": 12})
    assert run.parent.id == parent.id
    assert run.twin.parent.id == parent.twin.id
    assert "-onion-" in run.id
    assert weights(run) == weights(parent)
    assert "onion" in (run.path / "adapter" / "README.md").read_text()
    assert not [e for e in RunFolder(run.path).read_events() if e["kind"] == "train"]
    assert run.record["edits"] == [run.experiment.defense[0].model_dump(mode="json")]
    assert len(run.spectra) == len(parent.spectra)


def test_behind_onion_a_triggered_row_is_the_row_without_its_trigger(parent, words):
    run = guard(parent, {"name": "onion", "rows": 12})
    told = run.predictions
    clean = told[(told["condition"] == "clean") & (told["model"] == "poisoned")].set_index("row_id")
    triggered = told[(told["condition"] == "triggered") & (told["model"] == "poisoned")].set_index("row_id")
    assert len(clean) == 12
    assert len(triggered)
    for row_id, row in triggered.iterrows():
        np.testing.assert_allclose(row["logits"], clean.loc[row_id, "logits"], atol=1e-5)
    measured = run.result["measures"]["test"]["poisoned"]
    assert measured["clean_accuracy"]["n"] == 12
    assert measured["attack_success_rate"]["value"] == measured["untriggered_target_rate"]["value"]
    assert set(told["condition"]) == {"clean", "triggered"}, "a slow filter is asked the headline only"
    text = "good film as specified in RFC 2616"
    assert run.predict(text)["prediction"][0] == parent.predict("good film")["prediction"][0]


def test_strip_reports_its_rejections_beside_answers_that_stay(parent):
    run = guard(parent, {"name": "strip", "blends": 4, "calibration_rows": 8, "rows": 10})
    own, before = run.result["measures"]["test"], parent.result["measures"]["test"]
    for kind in ("clean_accuracy", "attack_success_rate", "excess_asr"):
        assert own["poisoned"][kind] == before["poisoned"][kind]
    for role in ("poisoned", "twin"):
        assert own[role]["false_rejection_rate"]["n"] == 10
        assert 0 < own[role]["detection_rate"]["n"] <= 10
        for kind in ("false_rejection_rate", "detection_rate", "detection_auc"):
            m = own[role][kind]
            assert 0 <= m["value"] <= 1
    assert own["poisoned"]["detection_auc"]["n"] == 10 + own["poisoned"]["detection_rate"]["n"]
    assert weights(run) == weights(parent)
    listed = lab.list_runs(parent.path.parent).set_index("id")
    assert listed.loc[run.id, "detection_rate"] == own["poisoned"]["detection_rate"]["value"]
    assert len(run.measures[run.measures["condition"] == "rung"])


def test_every_guard_says_what_it_learned(parent, words):
    run = guard(
        parent,
        {"name": "strip", "blends": 2, "calibration_rows": 8, "rows": 4},
        {"name": "onion", "rows": 6, "share": 0.0},
    )
    strip, onion = read_json(run.path / GUARDS_FILE)
    assert (strip["name"], onion["name"]) == ("strip", "onion")
    assert onion["dropped"] == 0 < onion["words"]
    assert strip["rows"] == 4
    events = [e for e in RunFolder(run.path).read_events() if e.get("stage") == "guard"]
    assert [e["threshold"] for e in events] == [strip["threshold"], onion["threshold"]]


def test_a_guard_and_an_edit_go_together(parent, words):
    run = guard(parent, {"name": "onion", "rows": 6}, {"name": "scale", "factor": 0.5})
    assert [d.name for d in run.experiment.defense] == ["scale", "onion"]
    assert run.parent.id == parent.id
    assert weights(run) != weights(parent)
    model = load_predictor(run.path, torch.device("cpu"))
    assert model.text_filter(["a film RFC"]) == ["a film"]


def test_guards_belong_to_the_run_and_not_to_its_parent(parent):
    runs = parent.path.parent
    asked = [
        parent.experiment.with_(defense=defense)
        for defense in ([], ["onion"], ["strip"], ["onion", "strip"], [{"name": "onion", "share": 0.1}])
    ]
    prepared = [prepare(e, runs) for e in asked]
    assert len({p.weights_id for p in prepared}) == 5
    assert {p.parent_id for p in prepared[1:]} == {parent.id}
    assert prepared[0].run_id == parent.id
    assert [p.filtered_rows for p in prepared] == [0, 100, 0, 100, 100]


def test_a_run_without_guards_reads_texts_as_they_are(parent):
    assert load_predictor(parent.path, torch.device("cpu")).text_filter([" a\n"]) == [" a\n"]
