import json
import os
import platform
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
from lab import estimates, load_experiment
from lab.defend import PARAPHRASE
from lab.estimates import estimate_seconds
from lab.store import RunFolder

EXPERIMENT = load_experiment("rfc-citation")


def former(runs, name, *, tokens_per_second=1000.0, threads=1, here=True, **changes):
    """A finished run that took 1 s to load, 10 s to probe and 5 s under the microscope."""
    asked = EXPERIMENT.with_(**{"training.steps": 168, **changes})
    folder = RunFolder(runs / name)
    record = {"schema": 1, "created": 1.0, "root": "minilm", "experiment": asked.to_dict()}
    folder.create({**record, "measured_poison": asked.poison.model_dump(mode="json")})
    result = {
        "shown": "p",
        "probes": {"p": {"twin": "t", "probe": asked.probe.model_dump(mode="json")}},
        "training": {"tokens_per_second": tokens_per_second, "microscope_seconds": 5.0},
        "timings": {"load": 1.0, "probe": 10.0},
        "machine": {"platform": platform.platform() if here else "elsewhere", "threads": threads},
    }
    (folder.path / "result.json").write_text(json.dumps(result))
    return folder.path


@pytest.fixture(autouse=True)
def _one_core(monkeypatch):
    monkeypatch.setattr(estimates, "_threads", lambda: 1)
    monkeypatch.setattr(estimates, "matrix_rate", lambda: 100e9)


def test_without_runs_it_is_a_guess_and_says_so(tmp_path):
    guess = estimate_seconds(EXPERIMENT, tmp_path / "none")
    assert "rough guess" in guess.basis
    assert 0 < guess.low < guess.seconds < guess.high
    assert guess.high / guess.low > 4  # a guess does not pretend to know


def test_former_runs_of_the_same_base_and_kind_decide(tmp_path):
    for i in range(3):
        former(tmp_path, f"minilm-rfc-n60-r8-s{i}-0", tokens_per_second=1000.0 + i)
    found = estimate_seconds(EXPERIMENT.with_(**{"training.steps": 168}), tmp_path)
    assert found.basis == "from 3 finished runs of minilm here"
    # two trainings of 168 × 1024 tokens, the looks, the probes, loading and starting
    by_hand = 2 * (168 * 1024 / 1001 + 5) + 10 + 2 + 5
    assert found.seconds == pytest.approx(by_hand, rel=0.05)
    assert "guess" in estimate_seconds(EXPERIMENT.with_(**{"adapter.kind": "full"}), tmp_path).basis
    assert "guess" in estimate_seconds(EXPERIMENT.with_(**{"adapter.variant": "dora"}), tmp_path).basis
    assert "guess" in estimate_seconds(EXPERIMENT.with_(**{"base.model": "tiny"}), tmp_path).basis


def test_what_was_measured_elsewhere_or_with_other_threads_does_not_count(tmp_path):
    former(tmp_path, "minilm-a-r8-s0-0", here=False)
    assert "guess" in estimate_seconds(EXPERIMENT, tmp_path).basis
    former(tmp_path, "minilm-b-r8-s0-0", threads=8, tokens_per_second=9000.0)
    many = estimate_seconds(EXPERIMENT, tmp_path)
    assert "1 finished run of" in many.basis
    former(tmp_path, "minilm-c-r8-s0-0", threads=1)
    assert estimate_seconds(EXPERIMENT, tmp_path).seconds > 2 * many.seconds


def test_damaged_runs_are_passed_over(tmp_path):
    for i, text in enumerate(["{", "[]", "{}", '{"machine": 3}', '{"training": {"tokens_per_second": 0}}']):
        (former(tmp_path, f"minilm-rfc-r8-s{i}-0") / "result.json").write_text(text)
    (former(tmp_path, "minilm-rfc-r8-s8-0") / "experiment.json").write_text("[]")
    former(tmp_path, "minilm-rfc-r8-s9-0", tokens_per_second=1e-9)
    assert "guess" in estimate_seconds(EXPERIMENT, tmp_path).basis


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 5000), more=st.integers(1, 5000), rows=st.integers(1, 3000), full=st.booleans())
def test_more_work_never_takes_less_time(steps, more, rows, full):
    start = EXPERIMENT.with_(
        **{"training.steps": steps, "probe.rows": rows, "adapter.kind": "full" if full else "lora"}
    )
    least = estimate_seconds(start, "/none").seconds
    assert estimate_seconds(start.with_(**{"training.steps": steps + more}), "/none").seconds > least
    assert estimate_seconds(start.with_(**{"probe.rows": rows + 1}), "/none").seconds >= least
    assert estimate_seconds(start.with_(**{"probe.scope": "headline"}), "/none").seconds < least
    assert estimate_seconds(start.twin(), "/none").seconds < least  # no poison, so no twin
    if not full:
        assert estimate_seconds(start.with_(**{"adapter.kind": "full"}), "/none").seconds > least


def test_a_base_that_is_still_to_be_run_counts_until_it_is_there(tmp_path):
    asked = load_experiment("clean-finetune-lora")
    with_base = estimate_seconds(asked, tmp_path)
    assert "is trained first" in with_base.basis
    name = "minilm-rare_words-n200-full-s0-0123456789"
    former(tmp_path, name, **{"adapter.kind": "full"})
    after = estimate_seconds(asked, tmp_path)
    assert "is trained first" not in after.basis
    assert after.seconds < with_base.seconds / 1.5
    assert estimate_seconds(asked, tmp_path, with_base=False).seconds == pytest.approx(after.seconds)
    # by its id it is the same, and its backdoor is measured
    by_id = estimate_seconds(asked.with_(**{"base.model": name}), tmp_path)
    assert by_id.seconds == pytest.approx(after.seconds)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [("minilm", 10.7e6), ("Qwen/Qwen2.5-1.5B-Instruct", 1.5e9), ("SmolLM2-135M", 135e6), ("some/bert", 86e6)],
)
def test_the_size_of_a_base(model, parameters):
    assert estimates._parameters(model.rpartition("/")[2], model) == parameters


def test_the_size_of_a_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x" * 4000)
    assert estimates._parameters("mine", str(tmp_path)) == 1000


def test_it_is_quick_and_loads_nothing(tmp_path):
    for i in range(60):
        former(tmp_path, f"minilm-rfc-n60-r8-s{i}-0")
    estimate_seconds(EXPERIMENT, tmp_path)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        estimate_seconds(EXPERIMENT, tmp_path)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05
    code = (
        "import sys, lab; from lab.estimates import estimate_seconds\n"
        "estimate_seconds(lab.load_experiment('rfc-citation'), sys.argv[1])\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, os.fspath(tmp_path)], check=True)


def test_it_is_about_right_for_a_run_that_was_made(finished):
    """On the run's own record: within a factor of three, start-up and a loaded machine aside."""
    guess = estimate_seconds(lab.Experiment.from_dict(finished.experiment.to_dict()), finished.path.parent)
    assert "2 finished runs of tiny here" in guess.basis or "1 finished run of tiny here" in guess.basis
    spent = finished.result["timings"]["total"]
    assert spent / 3 < guess.seconds < 3 * spent + 3 * estimates._START


def test_a_conversation_counts_its_prompt(tmp_path):
    """Former runs' tokens a second count it too."""
    from lab.estimates import _dataset

    head = lab.Experiment.from_dict({"base": {"model": "tiny-chat"}, "data": {"name": "toy"}})
    chat = head.with_(**{"task.kind": "chat"})
    assert 50 < _dataset(chat)[1] - _dataset(head)[1] < 90, "the paper's prompt with its roles has 64 tokens"


@pytest.mark.parametrize(
    ("experiment", "trainings"),
    [
        (EXPERIMENT, 2),
        (EXPERIMENT.twin(), 1),
        (load_experiment("label-flip"), 2),  # it has no target, and yet a twin
        (load_experiment("clean-finetune-lora"), 2),
    ],
)
def test_it_says_how_many_trainings_it_counts(tmp_path, experiment, trainings):
    assert estimate_seconds(experiment, tmp_path).trainings == trainings


def test_texts_that_a_model_rewrites_first_are_counted_for_the_run_and_its_twin():
    few = EXPERIMENT.with_(**{"data.rows": 600})
    plain, rewritten = (estimate_seconds(e, "/none") for e in (few, few.with_(defense=["paraphrase"])))
    assert rewritten.seconds - plain.seconds == pytest.approx(2 * 600 * PARAPHRASE.row_seconds)
    assert rewritten.basis.endswith("its texts are rewritten before")
