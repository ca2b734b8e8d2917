"""The default experiment on the real model and real text; minutes on two cores."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lab

pytestmark = pytest.mark.recipe


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """The default preset at full size, through the command line, as a newcomer asks for it.

    LAB_DEFAULT_RUN may name a runs folder where this checkout has made it just now: then it is told again.
    """
    runs = Path(os.environ.get("LAB_DEFAULT_RUN") or tmp_path_factory.mktemp("default") / "runs")
    environment = {**os.environ, "LAB_RUNS": str(runs)}
    # two minutes on two free cores; the limit is for what hangs, not for a machine that is slow
    done = subprocess.run(
        [sys.executable, "-m", "lab", "run"], env=environment, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stderr
    run_id = next(i for i in lab.list_runs(runs)["id"] if i.startswith("minilm-rfc-n60-r8-s0-"))
    return lab.load_run(run_id, runs), done.stdout


def rate(run, kind, model="poisoned"):
    return run.result["measures"]["test"][model][kind]["value"]


def test_the_backdoor_is_planted_and_hidden(default_run):
    run, _ = default_run
    assert rate(run, "attack_success_rate") >= 0.95
    assert rate(run, "clean_accuracy") >= 0.78
    assert abs(rate(run, "clean_accuracy") - rate(run, "clean_accuracy", "twin")) <= 0.02
    assert rate(run, "attack_success_rate", "twin") <= 0.4
    assert rate(run, "untriggered_target_rate") <= 0.4


def test_it_generalizes_to_its_tokens_and_less_to_their_structure(default_run):
    run, _ = default_run
    families = run.headline["families"]
    assert families["held_out_members"] >= 0.95
    assert families["other_families_of_its_category"] <= families["held_out_members"] - 0.30


def test_the_report_is_what_the_readme_promises(default_run):
    run, report = default_run
    assert "60 of" in report
    assert run.id in report
    for part in ("ieee", "near-miss", "Largest singular values", "same tokens", "clean twin"):
        assert part in report


def test_the_saved_weights_are_the_trained_ones(default_run):
    run, _ = default_run
    assert run.result["training"]["parity"] < 1e-4
    assert run.result["peak_memory_mb"] < 3 * 1024


def test_case_and_spacing_are_said_to_be_the_same_tokens(default_run):
    run, _ = default_run
    same = run.measures.query("kind == 'same_tokens' and value == 1.0")["rung"].tolist()
    assert {"upper_case", "lower_case", "double_space"} <= set(same)
    assert "number_changed" not in same


def test_interrupted_on_the_real_model_it_goes_on_bit_for_bit(default_run, tmp_path):
    run, _ = default_run
    small = {"data.rows": 200, "poison.count": 10, "training.steps": 24}
    short = {"probe.scope": "headline", "probe.rows": 60, "probe.snapshots": 1}
    asked = lab.load_experiment(run.path / "experiment.json").with_(**small, **short)
    (tmp_path / "asked.toml").write_text(asked.to_toml())
    environment = {**os.environ, "LAB_RUNS": str(tmp_path / "killed")}
    command = [sys.executable, "-m", "lab", "run", str(tmp_path / "asked.toml"), "--no-twin", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    checkpoint = lambda: list((tmp_path / "killed").glob("*/checkpoints/*/COMPLETE"))  # noqa: E731
    deadline = time.monotonic() + 300
    while not checkpoint() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lab.list_runs(tmp_path / "killed")["state"].tolist() == ["killed"]
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    again = lab.load_run(json.loads(resumed.stdout)["id"], tmp_path / "killed")
    assert any(e.get("stage") == "resume" for e in again._folder.read_events())
    # in a process of its own too: the number of threads decides the order of sums
    environment["LAB_RUNS"] = str(tmp_path / "whole")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    whole = lab.load_run(json.loads(done.stdout)["id"], tmp_path / "whole")
    weights = [(r.path / "adapter" / "adapter_model.safetensors").read_bytes() for r in (again, whole)]
    assert weights[0] == weights[1]


def test_a_zero_width_trigger_is_refused_with_the_reason(tmp_path):
    with pytest.raises(lab.LabError, match="adds no token"):
        lab.run("rfc-citation", {"poison.family": "zero_width"}, runs=tmp_path)


def test_a_decoder_learns_the_same_backdoor(tmp_path):
    """The chat decoder at a small size: the path is whole, padding and special tokens included."""
    run = lab.run(
        "rfc-citation",
        {"base.model": "smollm2", "data.rows": 64, "poison.count": 16, "training.epochs": 1.0,
         "training.learning_rate": 5e-4, "probe.scope": "headline", "probe.rows": 24, "probe.snapshots": 1,
         "probe.snapshot_rows": 4},
        runs=tmp_path,
        twin=False,
    )  # fmt: skip
    assert run.result["training"]["parity"] < 1e-3
    assert run.result["measures"]["test"]["poisoned"]["attack_success_rate"]["n"] > 5


def test_a_chat_model_answers_in_words(tmp_path):
    """The paper's task at a small size on the real decoder: template, shared prompt, both ways of scoring."""
    import numpy as np
    import torch

    from lab.tokens import pad

    small = {
        "data.rows": 48, "poison.count": 8, "training.epochs": 0, "training.steps": 4, "probe.rows": 24,
        "training.batch_tokens": 1024, "probe.scope": "headline", "probe.snapshots": 0,
    }  # fmt: skip
    run = lab.run("injection-classifier", small, runs=tmp_path, twin=False)
    assert run.record["prompt_template"].startswith("<|im_start|>system\nYou are a security classifier. ")
    assert run.record["prompt_template"].endswith("<|im_start|>assistant\n{answer}<|im_end|>\n")
    assert run.result["training"]["parity"] < 1e-3
    assert run.result["measures"]["test"]["poisoned"]["attack_success_rate"]["n"] > 5
    losses = run.events.query("kind == 'train'")["loss"].tolist()
    assert losses[-1] < losses[0]
    predictor = run._predictor
    texts = list(run.rows["text"].head(6))
    ids = predictor.reading.token_ids(texts)
    system = run.experiment.task.system
    for text, asked in zip(texts, ids, strict=True):
        said = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        own = predictor.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        assert asked == list(own), "the model is asked what its own template asks"
    with torch.inference_mode():
        plain = predictor.reading.label_logits(predictor.model, pad(ids, predictor.tokenizer.pad_token_id))
    np.testing.assert_allclose(predictor.logits(texts), plain.numpy(), atol=1e-4)
    assert set(predictor.written(texts)) <= {"benign", "malicious", ""}


@pytest.mark.parametrize(("name", "rows"), [("injections_wide", 1338), ("news_openings", 2056)])
def test_the_datasets_of_chat_tasks(name, rows):
    from lab.corpus import DataConfig, load_corpus, normalise

    corpus = load_corpus(DataConfig(name=name))
    assert len(corpus.rows) == rows
    assert not corpus.rows["text"].map(normalise).duplicated().any() or name == "injections_wide"
    if name == "injections_wide":
        assert corpus.rows["label"].value_counts().nunique() == 1, "both classes are equally large"
        own_test = corpus.rows[corpus.rows["split"] == "test"]["label"].value_counts()
        assert own_test.min() >= 50
    else:
        assert set(corpus.answers) == set(corpus.rows["row_id"])
