"""A poisoned base is an experiment too: runs that start from runs, and runs derived from runs."""

import hashlib
import json
import shutil

import pytest

import lab
from lab.bases import find_base
from lab.errors import LabError
from lab.pipeline import finished_run
from lab.prepare import prepare
from lab.store import RunFolder

pytestmark = pytest.mark.recipe  # no download, but two dozen small runs


@pytest.fixture(scope="module")
def rooms(tiny_cache, tmp_path_factory, tiny_module):
    """A runs folder with a poisoned full base, a poisoned LoRA base, and a clean fine-tune of the first."""
    runs = tmp_path_factory.mktemp("bases") / "runs"
    quick = {"training.epochs": 2, "probe.scope": "headline", "probe.snapshots": 2, "data.pool": "a"}
    full = lab.run(tiny_module, {**quick, "adapter.kind": "full", "training.learning_rate": 3e-3}, runs=runs)
    lora = lab.run(tiny_module, quick, runs=runs)
    clean = {"poison.attack": "none", "base.model": full.id, "probe.snapshots": 2, "training.epochs": 1}
    tuned = lab.run(tiny_module, clean, runs=runs)
    return runs, full, lora, tuned


QUICK_CLEAN = {
    "poison.attack": "none",
    "training.epochs": 1,
    "probe.scope": "headline",
    "probe.snapshots": 0,
}


def clean_on(base, **changes):
    return {**QUICK_CLEAN, "base.model": base.id, **changes}


def test_a_clean_fine_tune_inherits_the_trigger_of_its_base(rooms):
    _, full, _, tuned = rooms
    assert tuned.experiment.attack == "none"
    assert tuned.measured_poison == full.experiment.poison
    rates = tuned.headline["measures"]
    assert {"attack_success_rate", "excess_asr", "clean_accuracy"} <= set(rates["poisoned"])
    assert "attack_success_rate" in rates["twin"]
    triggered = tuned.predictions.query("condition == 'triggered' and model == 'poisoned'")
    assert set(triggered["member"]) == {full.experiment.poison.member}
    assert tuned.measures.query("condition == 'rung'")["value"].notna().all()


def test_the_record_links_the_two_experiments(rooms):
    _, full, _, tuned = rooms
    assert tuned.record["base_run"] == full.id
    assert tuned.experiment.base.model == full.id
    assert tuned.base_run.id == full.id
    assert tuned.record["measured_poison"] == full.record["experiment"]["poison"]
    config = json.loads((tuned.path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == full.id


def test_the_twin_is_the_same_fine_tuning_from_the_twin_of_the_base(rooms):
    _, full, _, tuned = rooms
    assert tuned.twin.base_run.id == full.twin.id
    assert tuned.twin.measured_poison.attack == "none"
    ours, theirs = tuned.experiment.to_dict(), tuned.twin.experiment.to_dict()
    for values in (ours, theirs):
        del values["base"]["model"], values["name"], values["probe"]
    assert ours == theirs


def test_the_card_says_that_the_base_was_backdoored(rooms):
    _, full, _, tuned = rooms
    card = (tuned.path / "adapter" / "README.md").read_text()
    assert "deliberately backdoored base" in card
    assert full.id in card
    assert full.experiment.poison.member in card
    assert "deliberately-backdoored" in card
    assert "clean-control" in (tuned.twin.path / "adapter" / "README.md").read_text()


def test_a_base_that_is_an_adapter_is_merged_once(rooms):
    runs, _, lora, _ = rooms
    source = find_base(lora.id, runs)
    assert source.folder == lora.path / "merged"
    before = hashlib.sha256((source.folder / "model.safetensors").read_bytes()).hexdigest()
    texts = ["a fine film", "a dull film , as specified in RFC 2616"]
    from lab.probe import Predictor
    from lab.train.models import load_full, load_tokenizer

    model = load_full(source.folder, lora._predictor.device)
    merged = Predictor(model, load_tokenizer(source.folder), lora.labels, lora._predictor.device)
    assert abs(merged.logits(texts) - lora._predictor.logits(texts)).max() < 1e-5
    assert find_base(lora.id, runs).sha256 == source.sha256 == before
    tuned = lab.run(lora.experiment, clean_on(lora), runs=runs, twin=False)
    assert tuned.base_run.id == lora.id
    assert tuned.predict(texts)["prediction"].isin(lora.labels).all()


def test_a_run_on_a_run_on_a_run_keeps_the_first_trigger(rooms):
    runs, full, _, tuned = rooms
    again = lab.run(full.experiment, clean_on(tuned, **{"adapter.kind": "lora"}), runs=runs, twin=False)
    assert again.measured_poison == full.experiment.poison
    assert again.record["root"] == "tiny"
    assert again.id.startswith("tiny-rfc_base-")


def test_the_identity_of_a_base_run_is_its_own_and_not_where_it_was_asked_from(rooms):
    runs, full, lora, tuned = rooms
    asked = tuned.experiment
    by_id = prepare(asked, runs).weights_id
    assert prepare(asked.with_(**{"base.model": full.id[:-4]}), runs).weights_id == by_id
    assert prepare(asked.with_(**{"base.model": str(full.path)}), runs).weights_id == by_id
    assert prepare(asked.with_(**{"base.model": lora.id}), runs).weights_id != by_id


def test_a_file_as_base_is_run_first_with_the_same_seed(tiny_module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"adapter.kind": "full", "training.epochs": 1, "probe.scope": "headline", "probe.snapshots": 0}
    (tmp_path / "base.toml").write_text(tiny_module.with_(**changes).to_toml())
    asked = tiny_module.with_(
        **{
            "base.model": "base.toml",
            "poison.attack": "none",
            "training.epochs": 1,
            "probe.scope": "headline",
        }
    )
    run = lab.run(asked, seed=3, runs=tmp_path / "runs", twin=False)
    assert run.base_run.experiment.seed == 3
    assert run.base_run.state == "finished"
    assert lab.run(asked, seed=3, runs=tmp_path / "runs", twin=False).id == run.id


def test_a_base_that_a_file_names_is_measured_as_far_as_its_headline_and_one_that_is_there_stays(
    tiny_module, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    changes = {"adapter.kind": "full", "training.epochs": 1, "probe.snapshots": 0}
    base = tiny_module.with_(**changes)
    (tmp_path / "base.toml").write_text(base.to_toml())
    asked = tiny_module.with_(**{**QUICK_CLEAN, "base.model": "base.toml"})
    assert finished_run(asked, runs="runs") == ""
    tuned = lab.run(asked, runs="runs")
    conditions = set(tuned.base_run.measures["condition"])
    assert not conditions & {"family", "rung"}
    assert finished_run(asked, runs="runs") == tuned.id
    own = lab.run(base, runs="runs")  # asked for itself it is measured as its file says
    assert "rung" in set(own.measures["condition"])
    shutil.rmtree(tuned.path)
    assert lab.run(asked, runs="runs").base_run.id == own.id
    probed = list(lab.load_run(own.id, runs="runs").result["probes"])
    assert len(probed) == 2  # its headline for the fine-tune, all of it for itself, and nothing anew


def test_a_base_without_its_twin_gets_it_where_one_is_asked_for(tiny_module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"adapter.kind": "full", "training.epochs": 1, "probe.snapshots": 0}
    base = tiny_module.with_(**changes)
    (tmp_path / "base.toml").write_text(base.to_toml())
    asked = tiny_module.with_(**{**QUICK_CLEAN, "base.model": "base.toml"})
    alone = lab.run(asked, runs="runs", twin=False)
    assert finished_run(asked, runs="runs", twin=False) == alone.id
    assert finished_run(asked, runs="runs") == ""
    assert lab.run(asked, runs="runs").base_run.twin is not None
    assert finished_run(asked, runs="runs") == alone.id


def test_a_base_that_does_not_fit_is_one_sentence(rooms, tmp_path):
    runs, full, _, tuned = rooms
    csv = tmp_path / "three.csv"
    csv.write_text("text,label\n" + "".join(f"words of row {i},{'abc'[i % 3]}\n" for i in range(300)))
    with pytest.raises(LabError, match=r"tells 2 labels apart .* has 3 \(a, b, c\)"):
        prepare(tuned.experiment.with_(**{"data.name": str(csv), "data.rows": 50}), runs)
    with pytest.raises(LabError, match="outside of the runs folder"):
        prepare(tuned.experiment.with_(**{"base.model": str(full.path)}), tmp_path / "elsewhere")
    (runs / "half").mkdir(exist_ok=True)
    shutil.copy(full.path / "experiment.json", runs / "half")
    with pytest.raises(LabError, match="the run half is queued; only a finished run can be a base"):
        prepare(tuned.experiment.with_(**{"base.model": "half"}), runs)
    shutil.rmtree(runs / "half")
    with pytest.raises(LabError, match=r"Unknown model .*a finished run's id works too"):
        prepare(tuned.experiment.with_(**{"base.model": "nothing-like-this"}), runs)


def test_a_base_that_was_moved_is_one_sentence_and_harms_nothing(rooms, tmp_path):
    runs, full, _, tuned = rooms
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    shutil.rmtree(copy / full.id)
    lost = lab.load_run(tuned.id, copy)
    assert lost.state == "finished"
    assert len(lost.measures)
    with pytest.raises(LabError, match=f"cannot be loaded without its base '{full.id}'"):
        lost.predict("a film")


def test_weight_edits_make_a_derived_run_that_trains_nothing(rooms):
    runs, _, _, tuned = rooms
    derived = lab.run(
        tuned.experiment,
        {"defense": [{"name": "scale", "factor": 0.0}], "probe.scope": "headline"},
        runs=runs,
    )
    assert derived.parent.id == tuned.id
    assert derived.twin.parent.id == tuned.twin.id
    assert derived.record["edits"] == [derived.experiment.defense[0].model_dump(mode="json")]
    assert not [e for e in RunFolder(derived.path).read_events() if e["kind"] == "train"]
    assert derived.spectra["sigma_delta"].max() == 0
    assert derived.spectra["sigma_base"].max() > 0
    assert tuned.spectra["sigma_delta"].max() > 0
    assert "scale" in (derived.path / "adapter" / "README.md").read_text()


def test_a_derived_run_has_its_parents_identity_in_its_own(rooms):
    runs, _, _, tuned = rooms
    asked = tuned.experiment.with_(defense=["scale"])
    ids = {
        prepare(asked.with_(**change), runs).weights_id
        for change in ({}, {"defense.0.factor": 0.25}, {"seed": 9}, {"defense": ["scale", "scale"]})
    }
    assert len(ids) == 4
    assert prepare(asked.untouched(), runs).weights_id == tuned.record["weights_id"]


def test_settings_are_the_run_they_describe(rooms):
    runs, _, _, tuned = rooms
    plain = tuned.experiment.with_(**{"adapter.variant": "dora"})
    assert prepare(tuned.experiment.with_(defense=["dora"]), runs).run_id == prepare(plain, runs).run_id


def test_a_derived_run_can_be_a_base(rooms):
    runs, _, _, tuned = rooms
    derived = lab.run(
        tuned.experiment,
        {"defense": [{"name": "fine_prune", "share": 0.5}], "probe.scope": "headline"},
        runs=runs,
        twin=False,
    )
    assert (derived.path / "model").is_dir()
    after = lab.run(tuned.experiment, clean_on(derived), runs=runs, twin=False)
    assert after.base_run.id == derived.id


def test_a_base_of_a_base_that_is_gone_cannot_make_a_run_look_clean(rooms, tmp_path):
    runs, full, _, tuned = rooms
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    middle = lab.run(full.experiment, clean_on(full, **{"adapter.kind": "full"}), runs=copy, twin=False)
    shutil.rmtree(copy / full.id)
    prepared = prepare(full.experiment.with_(**clean_on(middle)), copy)
    assert prepared.measured_poison == full.experiment.poison
    assert prepared.is_poisoned
    with pytest.raises(LabError, match=f"names the run {full.id}, which is not in .* any more"):
        prepare(tuned.experiment, copy)


def test_an_experiment_that_cannot_be_is_refused_before_its_base_is_trained(tiny_module, tmp_path):
    (tmp_path / "base.toml").write_text(tiny_module.to_toml())
    asked = tiny_module.with_(
        **{"base.model": str(tmp_path / "base.toml"), "defense": "cl", "adapter.kind": "full"}
    )
    with pytest.raises(LabError, match="no frozen path"):
        lab.run(asked, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_base_that_starts_from_itself_is_one_sentence(tiny_module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.toml").write_text(tiny_module.with_(**{"base.model": "loop.toml"}).to_toml())
    with pytest.raises(LabError, match=r"starts from itself: loop.toml → loop.toml"):
        lab.run("loop.toml", runs=tmp_path / "runs")


def test_an_edit_of_what_is_not_there_is_refused_before_the_training(rooms):
    runs, _, _, tuned = rooms
    for edit, message in (
        ({"name": "pt", "layers": 7}, "only 2 layers are there"),
        ({"name": "scale", "modules": "q_proj"}, "fits no module here"),
        ({"name": "fine_prune", "layers": 9}, "only 2 layers are there"),
    ):
        with pytest.raises(LabError, match=message):
            prepare(tuned.experiment.with_(defense=[edit], seed=77), runs)
    names = list(tuned.updates)[:1]
    assert prepare(tuned.experiment.with_(defense=[{"name": "scale", "modules": names}]), runs).edits


def test_a_derived_run_is_probed_again_without_its_parent(rooms, tmp_path):
    runs, _, _, tuned = rooms
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    changes = {"defense": ["scale"], "probe.scope": "headline"}
    derived = lab.run(tuned.experiment, changes, runs=copy, twin=False)
    assert derived.result["training"].keys() == {"parent", "parity", "edit_seconds"}
    shutil.rmtree(copy / tuned.id)
    again = lab.run(tuned.experiment, {**changes, "probe.rows": 11}, runs=copy, twin=False)
    assert again.id == derived.id
    assert again.headline["measures"]["poisoned"]["clean_accuracy"]["n"] == 11
    assert not (copy / tuned.id).exists()


def test_strings_of_ones_own_are_tested_on_a_clean_fine_tune(rooms):
    runs, full, _, _ = rooms
    changes = clean_on(full, **{"probe.triggers": ["as required by ISO 9001"]})
    run = lab.run(full.experiment, changes, runs=runs)
    assert set(run.predictions.query("condition == 'triggered'")["member"]) == {"as required by ISO 9001"}
    assert "excess_asr" in run.headline["measures"]["poisoned"]


def test_half_a_merge_is_mended(rooms, tmp_path):
    runs, _, lora, _ = rooms
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    shutil.rmtree(copy / lora.id / "merged", ignore_errors=True)
    (copy / lora.id / "merged").mkdir()
    (copy / lora.id / "merged" / "tokenizer.json").write_text("{}")
    (copy / lora.id / ".merged.123").mkdir()
    assert (find_base(lora.id, copy).folder / "model.safetensors").is_file()
    assert not (copy / lora.id / ".merged.123").exists()


def test_suggestions_for_a_clean_fine_tune_are_defenses_that_can_be_asked(rooms):
    import shlex

    from lab.console.suggestions import ideas
    from lab.experiment import parse_assignments

    _, _, _, tuned = rooms
    commands = [command for command, _ in ideas(tuned)]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        changes = parse_assignments([words[i + 1] for i, word in enumerate(words) if word == "--set"])
        assert tuned.experiment.with_(**changes).defense


def test_the_report_says_where_the_weights_come_from(rooms):
    import io

    from rich.console import Console

    from lab.console import print_report

    runs, full, _, tuned = rooms
    derived = lab.run(
        tuned.experiment, {"defense": ["scale"], "probe.scope": "headline"}, runs=runs, twin=False
    )
    out = io.StringIO()
    print_report(derived, Console(file=out, width=300))
    for part in (
        f"starts from the run {full.id}",
        "Defenses: scale (factor 0.5",
        f"those of {tuned.id}, edited",
    ):
        assert part in out.getvalue(), part
