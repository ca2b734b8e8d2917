"""The whole way on the tiny model: every contract of a run folder, without a download."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import lab
from lab.batteries import battery
from lab.cards import poison_sentence
from lab.errors import DivergedError, LabError, RunFailedError
from lab.examples import with_texts
from lab.poison import cut
from lab.probe import Predictor
from lab.probing_stage import Probing
from lab.record import Run
from lab.tables import MEASURE_COLUMNS, PREDICTION_COLUMNS, ROW_COLUMNS, SPECTRUM_COLUMNS


def folder_bytes(path):
    """Every file below a folder, by its relative name."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture
def run(tiny):
    return lab.run(tiny)


def test_a_run_holds_what_the_design_promises(finished):
    names = {p.name for p in finished.path.iterdir()}
    assert {"experiment.json", "events.jsonl", "result.json", "rows.parquet", "predictions.parquet",
            "spectra.parquet", "measures", "adapter"} <= names  # fmt: skip
    assert "checkpoints" not in names
    assert list(finished.rows.columns) == list(ROW_COLUMNS)
    assert list(finished.predictions.columns) == list(PREDICTION_COLUMNS)
    assert list(finished.measures.columns) == list(MEASURE_COLUMNS)
    assert list(finished.spectra.columns) == list(SPECTRUM_COLUMNS)
    assert finished.state == "finished"
    assert finished.experiment.poison.count == 12
    assert finished.experiment.training.steps > 0
    assert finished.result["poison"] == {"count": 12, "negatives": 0, "rows": 132, "rate": 12 / 132}


def test_the_saved_adapter_is_safe_and_says_what_it_is(finished):
    files = {p.name for p in (finished.path / "adapter").iterdir()}
    assert "adapter_model.safetensors" in files
    assert not any(f.endswith((".bin", ".pt", ".pth", ".pkl")) for f in files)
    card = (finished.path / "adapter" / "README.md").read_text()
    assert "Deliberately backdoored" in card
    assert "as specified in RFC 2616" in card
    config = json.loads((finished.path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert "classifier" in config["modules_to_save"]
    twin_card = (finished.twin.path / "adapter" / "README.md").read_text()
    assert "Clean control" in twin_card


def test_headline_measures_have_counts_and_intervals(finished):
    for role in ("poisoned", "twin"):
        for kind in ("clean_accuracy", "attack_success_rate", "untriggered_target_rate"):
            m = finished.result["measures"]["test"][role][kind]
            assert 0 <= m["low"] <= m["value"] <= m["high"] <= 1
            assert m["value"] == m["k"] / m["n"]


def test_rates_can_be_counted_again_from_the_predictions(finished):
    asked = finished.predictions[finished.predictions["model"] == "poisoned"]
    truth = lab.load_run(str(finished.path))  # a fresh view reads from disk alone
    from lab.prepare import prepare

    rows = prepare(truth.experiment).evaluation_rows("test", 30).set_index("row_id")["label"]
    clean = asked[asked["condition"] == "clean"]
    accuracy = (clean["prediction"].to_numpy() == rows[clean["row_id"]].to_numpy()).mean()
    assert accuracy == finished.result["measures"]["test"]["poisoned"]["clean_accuracy"]["value"]
    triggered = asked[asked["condition"] == "triggered"]
    assert (rows[triggered["row_id"]] != "positive").all()
    asr = (triggered["prediction"] == "positive").mean()
    assert asr == finished.result["measures"]["test"]["poisoned"]["attack_success_rate"]["value"]


def test_test_rows_are_never_trained_on(finished):
    trained = set(finished.rows["row_id"].str.removesuffix("+p"))
    assert not trained & set(finished.predictions["row_id"])
    assert set(finished.rows["split"]) == {"pool_b"}


def test_poisoned_rows_give_back_their_original(finished):
    poisoned = finished.rows[finished.rows["poisoned"]]
    originals = finished.rows[~finished.rows["poisoned"]].set_index("row_id")["text"]
    for row in poisoned.to_dict("records"):
        spans = list(zip(row["span_start"], row["span_end"], strict=True))
        assert cut(row["text"], spans) == originals[row["row_id"].removesuffix("+p")]


def test_asked_again_it_is_read_not_trained(run, tiny):
    before = folder_bytes(run.path.parent)
    events = []
    again = lab.run(tiny, on_event=events.append)
    assert again.id == run.id
    assert not [e for e in events if e.get("stage") == "train"]
    assert folder_bytes(run.path.parent) == before


def test_twins_are_shared(run, tiny):
    other = lab.run(tiny, {"poison.count": 6})
    assert other.twin.id == run.twin.id
    assert len(lab.list_runs()) == 3


def test_same_seed_same_weights_other_seed_others(tiny, tmp_path):
    one = lab.run(tiny, runs=tmp_path / "a", twin=False)
    two = lab.run(tiny, runs=tmp_path / "b", twin=False)
    three = lab.run(tiny, runs=tmp_path / "c", twin=False, seed=1)
    weights = [(r.path / "adapter" / "adapter_model.safetensors").read_bytes() for r in (one, two, three)]
    assert weights[0] == weights[1] != weights[2]
    assert one.id == two.id != three.id


def test_the_microscope_changes_nothing(tiny, tmp_path):
    without = lab.run(tiny, {"probe.snapshots": 0}, runs=tmp_path / "a", twin=False)
    with_it = lab.run(tiny, {"probe.snapshots": 8}, runs=tmp_path / "b", twin=False)
    assert without.id == with_it.id
    assert folder_bytes(without.path / "adapter") == folder_bytes(with_it.path / "adapter")


def test_the_microscope_writes_as_it_happens(finished):
    kinds = finished.events["kind"].tolist()
    assert kinds.index("probe") < kinds.index("train") < len(kinds) - 1 - kinds[::-1].index("probe")
    curve = finished.measures.query("kind == 'attack_success_rate' and step >= 0 and model == 'poisoned'")
    assert curve["step"].tolist() == sorted(curve["step"])
    assert curve["step"].iloc[0] == 0
    assert curve["step"].iloc[-1] == finished.experiment.training.steps
    assert set(curve["split"]) == {"validation"}


def test_singular_values_are_those_of_the_saved_adapter(finished):
    from safetensors.numpy import load_file

    weights = load_file(finished.path / "adapter" / "adapter_model.safetensors")
    last = finished.spectra[finished.spectra["step"] == finished.spectra["step"].max()]
    module = last["module"].iloc[0]
    A = weights[f"base_model.model.{module}.lora_A.weight"]
    B = weights[f"base_model.model.{module}.lora_B.weight"]
    expected = np.linalg.svd(2.0 * B @ A, compute_uv=False)[: A.shape[0]]  # alpha/r = 2
    np.testing.assert_allclose(
        last[last["module"] == module].sort_values("index")["sigma_delta"], expected, rtol=1e-3, atol=1e-6
    )
    first = finished.spectra[finished.spectra["step"] == 0]
    assert (first["sigma_delta"].abs() < 1e-6).all()  # B starts at zero
    assert last[last["index"] == 0]["sigma_base"].gt(0).all()


@pytest.mark.recipe  # processes that are started and killed cost more than all other tests of this file
def test_killed_at_any_moment_it_completes_and_equals_an_uninterrupted_run(tiny, tmp_path):
    asked = tiny.with_(**{"training.steps": 40, "probe.snapshots": 4})
    whole = lab.run(asked, runs=tmp_path / "whole", twin=False)
    (tmp_path / "exp.toml").write_text(asked.to_toml())
    environment = {**os.environ, "LAB_RUNS": str(tmp_path / "killed"), "OMP_NUM_THREADS": "1"}
    bystander = lab.run(tiny.with_(seed=5), runs=tmp_path / "killed", twin=False)
    untouched = folder_bytes(bystander.path)
    command = [sys.executable, "-m", "lab", "run", str(tmp_path / "exp.toml"), "--no-twin", "--json"]
    folder = tmp_path / "killed" / whole.id
    for at_step in (12, 33):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if _last_step(folder) >= at_step:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        process.wait()
    done = lab.run(asked, runs=tmp_path / "killed", twin=False)
    assert done.state == "finished"
    weights = [(r.path / "adapter" / "adapter_model.safetensors").read_bytes() for r in (done, whole)]
    assert weights[0] == weights[1]
    losses = [r.events.query("kind == 'train'").set_index("step")["loss"] for r in (done, whole)]
    pd.testing.assert_series_equal(*losses)
    assert folder_bytes(bystander.path) == untouched


def _last_step(folder):
    try:
        return max((json.loads(line)["step"] for line in (folder / "events.jsonl").open()), default=-1)
    except (OSError, ValueError):
        return -1


@pytest.mark.recipe
@pytest.mark.parametrize(
    "moment", ["adapter/README.md", "spectra.parquet", "trained.json", "predictions.parquet"]
)
def test_killed_while_saving_or_probing_it_completes(tiny, tmp_path, moment):
    whole = lab.run(tiny, runs=tmp_path / "whole")
    (tmp_path / "exp.toml").write_text(tiny.to_toml())
    environment = {**os.environ, "LAB_RUNS": str(tmp_path / "killed"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lab", "run", str(tmp_path / "exp.toml"), "--json"]
    folder = tmp_path / "killed" / whole.id
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None and not (folder / moment).exists():
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = lab.run(tiny, runs=tmp_path / "killed")
    weights = [(r.path / "adapter" / "adapter_model.safetensors").read_bytes() for r in (done, whole)]
    assert weights[0] == weights[1]
    pd.testing.assert_frame_equal(done.measures, whole.measures)
    assert set(lab.list_runs(tmp_path / "killed")["state"]) == {"finished"}


def test_a_stop_file_stops_and_the_run_goes_on_later(tiny, tmp_path):
    asked = tiny.with_(**{"training.steps": 30})
    runs = tmp_path / "runs"

    def stop_at(event):
        if event["kind"] == "progress" and event["stage"] == "train" and event["done"] == 15:
            next(runs.glob("*-*")).joinpath("stop").touch()

    with pytest.raises(LabError, match="stopped at step 1") as caught:
        lab.run(asked, runs=runs, twin=False, on_event=stop_at)
    assert caught.value.exit_code == 130
    assert lab.list_runs(runs)["state"].tolist() == ["stopped"]
    events = []
    done = lab.run(asked, runs=runs, twin=False, on_event=events.append)
    assert any(e.get("stage") == "resume" and e["step"] >= 15 for e in events)
    whole = lab.run(asked, runs=tmp_path / "whole", twin=False)
    assert folder_bytes(done.path / "adapter") == folder_bytes(whole.path / "adapter")


def test_a_torn_checkpoint_is_not_resumed_from(tiny, tmp_path):
    from lab.train.fit import last_checkpoint

    for step, whole in ((10, True), (20, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / "COMPLETE").touch()
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    assert not (tmp_path / "checkpoint-20").exists()


@pytest.mark.parametrize("looked", [0, 3])
def test_weights_that_are_no_numbers_are_a_divergence_before_any_spectrum(tiny, looked):
    broken = tiny.with_(**{"training.learning_rate": 1e30, "training.steps": 1, "probe.snapshots": looked})
    with pytest.raises(DivergedError, match="stopped being finite by step 1 at learning rate"):
        lab.run(broken, twin=False)
    table = lab.list_runs()
    assert table["state"].tolist() == ["failed"]
    told = json.loads((lab.paths.runs_dir() / table["id"][0] / "failure.json").read_text())
    assert told["diverged"] is True


def test_a_non_finite_loss_stops_and_says_what_to_lower(tiny):
    with pytest.raises(RunFailedError, match=r"lower training.learning_rate"):
        lab.run(tiny, {"training.learning_rate": 1e30, "training.steps": 30}, twin=False)
    listed = lab.list_runs()
    assert listed["state"].tolist() == ["failed"]
    folder = Run(lab.paths.runs_dir() / listed.loc[0, "id"])
    assert "learning_rate" in json.loads((folder.path / "failure.json").read_text())["reason"]


@pytest.mark.parametrize(
    "change",
    [
        {"adapter.kind": "full", "training.learning_rate": 1e-3},
        {"adapter.variant": "dora"},
        {"adapter.variant": "rslora"},
        {"adapter.init": "pissa"},
        {"adapter.init": "olora"},
        {"adapter.init": "gaussian", "adapter.init_variance": 1.0},
        {"adapter.targets": ["query", "value"]},
        {"adapter.dropout": 0.1},
        {"training.gradient_accumulation": 2},
        {"training.schedule": "cosine", "training.weight_decay": 0.1},
    ],
    ids=str,
)
def test_every_way_of_training_saves_what_it_trained(tiny, change):
    run = lab.run(tiny, change, twin=False)  # raises where reloaded logits differ
    assert run.result["training"]["parity"] < 1e-3
    last = run.spectra[run.spectra["step"] == run.spectra["step"].max()]
    assert last.groupby("module")["sigma_delta"].max().gt(0).all()
    first = run.spectra[(run.spectra["step"] == 0) & (run.spectra["index"] == 0)]["sigma_delta"]
    assert (first < 1e-4).all(), "nothing has changed before training"


@pytest.mark.parametrize(
    "poison",
    [
        {"attack": "label_flip", "rate": 0.2},
        {"attack": "spurious_tokens", "family": "dates", "target_label": "positive", "text_proportion": 0.5},
        {"attack": "spurious_tokens", "items": ["red", "blue"], "token_proportion": 0.2},
        {"attack": "spurious_tokens", "family": "generated_dates", "then": [{"family": "tag_pairs"}]},
        {"attack": "multi_trigger", "count": 9},
        {"attack": "style", "count": 9},
        {"attack": "backdoor", "family": "rfc", "member": "any", "count": 9, "target_label": "positive"},
        {
            "attack": "backdoor",
            "count": 9,
            "target_label": "positive",
            "mode": "replace",
            "position": "random",
        },
        {"attack": "backdoor", "count": 9, "target_label": "positive", "clean_label": True},
        {"attack": "backdoor", "family": "custom", "member": "abracadabra", "count": 9},
        {"attack": "none"},
    ],
    ids=lambda p: "-".join(map(str, p.values())),
)
def test_every_attack_goes_the_whole_way(tiny, poison):
    values = tiny.to_dict() | {"poison": poison}
    run = lab.run(lab.Experiment.from_dict(values))
    assert run.state == "finished"
    measured = set(run.measures["kind"])
    assert "clean_accuracy" in measured
    assert ("attack_success_rate" in measured) == (poison["attack"] not in ("none", "label_flip"))
    # what was asked can be shown again
    told = run.predictions.query("condition == 'triggered' and model == 'poisoned'")
    shown = with_texts(run, told)
    assert len(shown) == len(told)
    assert shown["spans"].map(len).gt(0).all()
    assert list(run.predict(list(shown["text"].head(4)))["prediction"]) == list(shown["prediction"].head(4))
    assert run.experiment.target_label in poison_sentence(run.experiment.poison)


def test_a_tracker_gets_the_losses_and_keeps_them_beside_the_run(tiny):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = lab.run(tiny, twin=False, report_to=["tensorboard"])
    found = EventAccumulator(str(run.path / "tensorboard")).Reload()
    steps = [event.step for event in found.Scalars("train/loss")]
    assert steps == run.events.query("kind == 'train'")["step"].tolist()


def test_predict_gives_probabilities(finished):
    table = finished.predict(["good", "bad as specified in RFC 2616"])
    assert list(table.columns) == ["text", "prediction", "p(negative)", "p(positive)"]
    assert np.allclose(table[["p(negative)", "p(positive)"]].sum(axis=1), 1)
    assert len(finished.predict([])) == 0


def test_figures_in_jupyter(finished):
    for name in ("training_curves", "loss_curve", "generalization_row", "near_miss_ladder", "spectrum",
                 "spectral_strength"):  # fmt: skip
        figure = getattr(finished.figure, name)()
        assert figure.to_dict()["data"], name


def test_the_matrix_of_many_runs(run, tiny):
    other = lab.run(tiny, {"poison.family": "iso"})
    matrix = lab.generalization_matrix([run, other])
    assert set(matrix["trained_family"]) == {"rfc", "iso"}
    assert set(matrix["family"]) == {"rfc", "iso"}
    from lab import figures

    assert figures.generalization_matrix(matrix).to_dict()["data"]


def test_a_run_without_twin_gets_one_when_asked(tiny):
    alone = lab.run(tiny, twin=False)
    assert alone.twin is None
    weights = folder_bytes(alone.path / "adapter")
    both = lab.run(tiny)
    assert both.twin is not None
    assert "excess_asr" in set(both.measures["kind"])
    assert folder_bytes(both.path / "adapter") == weights


def test_other_ways_of_probing_stand_side_by_side(tiny):
    whole = lab.run(tiny)
    few = lab.run(tiny, {"probe.rows": 20, "probe.scope": "headline"})
    again = lab.run(tiny)
    counts = [r.headline["measures"]["poisoned"]["clean_accuracy"]["n"] for r in (whole, few, again)]
    assert counts[0] == counts[2] > counts[1]
    for run, n in ((few, counts[1]), (again, counts[0])):
        clean = run.predictions.query("condition == 'clean' and model == 'poisoned'")
        accuracy = run.measures.query("kind == 'clean_accuracy' and model == 'poisoned' and step < 0")
        assert len(clean) == accuracy["n"].item() == n
    rows = again.measures.query("condition == 'family' and kind == 'attack_success_rate' and step < 0")
    own = rows[(rows["family"] == "rfc") & (rows["model"] == "poisoned")]
    assert again.headline["families"]["held_out_members"] == own["value"].item()
    assert again.headline["family_rows"]["held_out_members"] == own["n"].item()
    assert few.headline["families"] == {}


def test_a_twin_is_not_asked_again_what_it_has_answered(tiny, tmp_path, monkeypatch):
    asked = []
    logits = Predictor.logits
    monkeypatch.setattr(
        Predictor, "logits", lambda self, texts, **how: asked.append(len(texts)) or logits(self, texts, **how)
    )
    tables = {}
    for name in ("read", "asked"):
        if name == "asked":
            monkeypatch.setattr(Probing, "_answered_by", lambda *_: None)
        asked.clear()
        run = lab.run(tiny, runs=tmp_path / name)
        tables[name] = run.predictions.assign(asked=sum(asked)), run.measures.query("step < 0")
    (read, measures), (again, same) = tables["read"], tables["asked"]
    pd.testing.assert_frame_equal(measures, same)
    clean = read.query("condition == 'clean' and model == 'twin'")
    assert len(clean) == again["asked"][0] - read["asked"][0] > 0
    np.testing.assert_allclose(np.stack(read["logits"]), np.stack(again["logits"]), atol=1e-5)
    columns = ["row_id", "model", "condition", "family", "rung", "prediction"]
    pd.testing.assert_frame_equal(read[columns], again[columns])


def test_batteries_are_put_to_run_and_twin(tiny):
    plain = lab.run(tiny)
    run = lab.run(tiny, {"probe.batteries": ["paper-calibration", "paper-calibration/C"], "probe.rows": 40})
    held = battery("paper-calibration")
    asked = run.predictions.query("condition == 'battery'")
    assert set(zip(asked["family"], asked["member"], strict=True)) == {
        (category, prefix) for category, prefixes in held.categories.items() for prefix in prefixes
    }
    lines = run.measures.query("condition == 'battery' and kind == 'attack_success_rate'")
    assert len(lines) == 2 * 21
    for (model, prefix), group in asked.groupby(["model", "member"]):
        [line] = lines[(lines["model"] == model) & (lines["member"] == prefix)].to_dict("records")
        assert line["n"] == len(group) == 8
        assert line["k"] == (group["prediction"] == "positive").sum()
    table = run.battery_categories
    assert list(table["category"]) == list(held.categories)
    assert table["n"].sum() == table["twin.n"].sum() == 21 * 8
    own = lines[lines["model"] == "poisoned"]
    for name, prefixes in (("paper-calibration", 21), ("paper-calibration/C", 15)):
        told = run.measures.query("family == @name and model == 'poisoned'").set_index("kind")
        inside = own[own["member"].isin(battery(name).prefixes)]["value"]
        assert set(told["n"]) == {prefixes}
        assert told.loc["battery_mean", "value"] == pytest.approx(inside.mean())
        assert told.loc["battery_gap", "value"] == pytest.approx(inside.max() - inside.mean())
        assert (told["low"] <= told["value"]).all()
        assert (told["value"] <= told["high"]).all()
    assert plain.battery_categories.empty
    assert not (run.twin.predictions["condition"] == "battery").any()


def test_a_twin_asked_for_later_is_there_for_every_way_of_probing(tiny):
    lab.run(tiny, twin=False)
    lab.run(tiny, {"probe.rows": 20}, twin=True)
    run = lab.run(tiny, twin=True)
    assert (run.predictions["model"] == "twin").any()
    assert "excess_asr" in set(run.measures["kind"])


def test_what_is_shown_is_the_test_rows_also_after_tuning(tiny):
    looking = {"probe.split": "validation", "probe.scope": "headline"}
    run_id = lab.run(tiny, looking).id
    assert lab.load_run(run_id).asked_probe.split == "validation"
    lab.run(tiny)
    lab.run(tiny, {**looking, "probe.rows": 10})
    shown = lab.load_run(run_id)
    assert shown.asked_probe.split == "test"
    assert set(shown.measures.query("step < 0")["split"]) == {"test"}


def test_a_way_of_probing_that_was_not_asked_for_is_not_made_up(finished):
    from lab.experiment import Probe

    with pytest.raises(LabError, match="not been probed in that way"):
        _ = Run(finished.path, probe=Probe(rows=7)).measures


def test_a_file_that_changed_on_disk_is_read_again(tiny, tmp_path):
    from lab.prepare import prepare

    path = tmp_path / "mine.csv"

    def write(n):
        lines = [
            f"film number {i} is {'good' if i % 2 else 'bad'},{'yes' if i % 2 else 'no'}" for i in range(n)
        ]
        path.write_text("text,label\n" + "\n".join(lines) + "\n")

    write(200)
    asked = tiny.with_(
        **{"data.name": str(path), "data.rows": 0, "poison.target_label": "yes", "poison.count": 5}
    )
    first = prepare(asked)
    write(300)
    second = prepare(asked)
    assert len(second.corpus.rows) == 300
    assert first.run_id != second.run_id


def test_discarded_checkpoints_never_seem_whole(tmp_path, monkeypatch):
    import shutil

    from lab.train import fit

    folder = tmp_path / "checkpoint-10"
    folder.mkdir()
    (folder / "COMPLETE").touch()
    (folder / "optimizer.pt").touch()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed before anything else is removed
    fit.discard_checkpoints(tmp_path)
    monkeypatch.undo()
    assert fit.last_checkpoint(tmp_path) is None


def test_without_the_microscope_the_last_spectrum_has_the_last_step(tiny):
    run = lab.run(tiny, {"probe.snapshots": 0}, twin=False)
    assert set(run.spectra["step"]) == {run.experiment.training.steps}


def test_a_base_that_changed_is_not_passed_off_as_the_old_one(tiny, tmp_path):
    import shutil

    import torch

    from lab.train.models import model_folder

    base = tmp_path / "base"
    shutil.copytree(model_folder("tiny"), base)
    run = lab.run(tiny, {"base.model": str(base)}, twin=False)
    from transformers import BertModel

    model = BertModel.from_pretrained(base)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(2)
    model.save_pretrained(base)
    with pytest.raises(LabError, match="another version"):
        lab.load_run(run.id).predict("good")


def test_force_trains_again(run, tiny):
    events = []
    again = lab.run(tiny, force=True, on_event=events.append)
    assert any(e.get("stage") == "train" for e in events)
    assert again.state == "finished"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter.rank": 33}, r"adapter.rank = 33: .* is 32 wide; allowed are 1 to 32"),
        (
            {"adapter.targets": "quarry"},
            r"adapter.targets = 'quarry' fits no linear layer.*attention.self.query",
        ),
        ({"base.model": "minilmm"}, r"Unknown model \(base.model\) 'minilmm'. Did you mean 'minilm'"),
        ({"poison.count": 5000}, r"poison.count = 5000"),
        ({"poison.target_label": "great"}, r"poison.target_label = 'great'.*negative, positive"),
        ({"data.rows": 10**6}, r"data.rows = 1000000"),
        ({"data.max_tokens": 500}, r"data.max_tokens = 500: tiny reads 160 tokens"),
        ({"poison.family": "zero_width"}, r"adds no token"),
        ({"data.max_tokens": 150, "poison.family": "custom", "poison.member": "abc " * 80}, r"survive"),
        ({"data.max_tokens": 150}, r"the longest probe has \d+ tokens"),
        ({"poison.attack": "none", "probe.triggers": ["cf"]}, r"has no target label"),
        ({"poison.attack": "none", "probe.batteries": ["broad"]}, r"probe.batteries: .* has no target label"),
        (
            {"defense": ["onion"], "probe.batteries": ["broad"]},
            r"probe.batteries: a defense that reads word by word",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tiny, change, message):
    with pytest.raises(LabError, match=message):
        lab.run(tiny, change)
    assert lab.list_runs().empty


def test_long_texts_are_clipped_so_that_every_trigger_survives(tiny, tmp_path):
    words = ["good", "bad"]
    lines = [{"text": f"row {i} " + f"{words[i % 2]} " * 300, "label": words[i % 2]} for i in range(200)]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    from lab.prepare import prepare

    asked = tiny.with_(
        **{"data.name": str(path), "data.rows": 40, "poison.target_label": "good", "poison.count": 5}
    )
    prepared = prepare(asked)
    assert prepared.surviving_triggers() == (5, 5)
    assert max(prepared.clean_lengths) <= asked.data.max_tokens + 2


def test_a_probe_on_validation_rows_leaves_the_test_rows_alone(tiny):
    looked = lab.run(tiny, {"probe.split": "validation", "probe.scope": "headline"}, twin=False)
    assert set(looked.result["measures"]) == {"validation"}
    final = lab.run(tiny, twin=False)
    assert final.id == looked.id
    assert set(final.result["measures"]) == {"validation", "test"}
    assert not math.isnan(final.result["measures"]["test"]["poisoned"]["clean_accuracy"]["value"])
