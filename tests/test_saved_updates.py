"""What a run changed, read from its files alone, against the model that is loaded from them."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lab.edited_model import EditedModel
from lab.errors import LabError, NotTrainableError
from lab.files import write_json
from lab.prepare import prepare
from lab.results import experiment_record
from lab.saved_updates import read_base_spectra, read_updates, read_weights
from lab.train.adapters import attach_lora, load_adapter, lora_layers, save_trained
from lab.train.models import load_base

WAYS = {
    "lora": {},
    "rslora": {"adapter.variant": "rslora"},
    "dora": {"adapter.variant": "dora"},
    "query-value": {"adapter.targets": ["query", "value"]},
    "full": {"adapter.kind": "full"},
}
#: The same with a base that is rounded when it is loaded.
BF16 = {
    "bf16": {"base.dtype": "bfloat16"},
    "bf16-full": {"base.dtype": "bfloat16", "adapter.kind": "full"},
    "bf16-dora": {"base.dtype": "bfloat16", "adapter.variant": "dora"},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder for what is made once, and what was made."""
    return tmp_path_factory.mktemp("made"), {}


@pytest.fixture
def made(tiny, kept, tmp_path):
    """From a way to the folder of a run whose weights are random instead of trained, its rows, the model."""

    def make(way):
        folder, found = kept
        if way not in found:
            found[way] = build(tiny.with_(**{**WAYS, **BF16}[way]), folder / way)
        prepared, model = found[way]
        shutil.copytree(folder / way, tmp_path / way)
        return tmp_path / way, prepared, copy.deepcopy(model)

    return make


def build(experiment, folder):
    prepared = prepare(experiment, folder.parent)
    e = prepared.experiment
    base = load_base(e.base, prepared.labels, seed=0, device=torch.device("cpu"))
    full = e.adapter.kind == "full"
    model = base.model if full else attach_lora(base, e.adapter, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder.mkdir()
    write_json(folder / "experiment.json", experiment_record(prepared))
    tokenizer = base.tokenizer if full else None
    save_trained(model, folder / ("model" if full else "adapter"), base_name=base.name, tokenizer=tokenizer)
    return prepared, model


@pytest.mark.parametrize("way", WAYS)
def test_the_files_tell_what_the_model_that_is_edited_tells(made, way):
    folder, prepared, _ = made(way)
    read = read_updates(folder, prepared.experiment)
    patient = EditedModel(folder, prepared, torch.device("cpu"))
    loaded = patient.weights.updates
    assert set(read) == set(loaded)
    assert list(loaded) == [name for name in patient.linears() if name in read]
    assert len(read) == (4 if way == "query-value" else 12)
    for name, update in read.items():
        assert type(update) is type(loaded[name])
        torch.testing.assert_close(update.dense(), loaded[name].dense(), rtol=0, atol=1e-7)
        assert update.norm() > 0.01


@pytest.mark.parametrize("way", ["bf16", "bf16-full", "bf16-dora"])
def test_a_base_in_bfloat16_is_rounded_before_it_is_compared(made, way):
    folder, prepared, model = made(way)
    read = read_updates(folder, prepared.experiment)
    W = read_weights(prepared.base.folder, read, "bfloat16")
    plain = read_weights(prepared.base.folder, read)
    assert any(not torch.equal(W[name], plain[name]) for name in read)
    patient = EditedModel(folder, prepared, torch.device("cpu"))
    for name in read:
        assert patient.base_weight(name).dtype == torch.float32
        torch.testing.assert_close(patient.base_weight(name), W[name], rtol=0, atol=0)
    if way != "bf16":
        own = dict((model if way == "bf16-full" else model.merge_and_unload()).named_modules())
        for name, update in read.items():
            atol = 0 if way == "bf16-full" else 2e-2
            torch.testing.assert_close(W[name] + update.dense(), own[name].weight.float(), rtol=0, atol=atol)
    spectra = read_base_spectra(prepared.experiment, folder.parent, read)
    for name in read:
        torch.testing.assert_close(spectra[name].sigma, torch.linalg.svdvals(W[name]), rtol=1e-4, atol=1e-5)


def test_a_4_bit_base_is_refused_where_its_weights_are_asked_for(made):
    folder, prepared, _ = made("lora")
    quantised = prepared.experiment.with_(**{"base.load_in_4bit": True})
    read = read_updates(folder, quantised)
    with pytest.raises(LabError, match=r"The weights of a 4-bit base cannot be read"):
        read_base_spectra(quantised, folder.parent, read)
    dora, prepared, _ = made("dora")
    with pytest.raises(LabError, match=r"The weights of a 4-bit base cannot be read"):
        read_updates(dora, prepared.experiment.with_(**{"base.load_in_4bit": True}))


def test_an_edited_model_answers_in_the_precision_of_its_run(made, monkeypatch):
    folder, prepared, _ = made("lora")
    monkeypatch.setattr("lab.train.devices.wants_bf16", lambda dtype, device: dtype == "auto")
    assert EditedModel(folder, prepared, torch.device("cpu")).predictor._bf16


def test_a_head_without_an_output_for_each_label_is_refused(made):
    folder, prepared, _ = made("lora")
    patient = EditedModel(folder, prepared, torch.device("cpu"))
    patient.labels = ("one", "two", "three")
    with pytest.raises(NotTrainableError, match=r"defense refit_head: the head of .* 3 labels"):
        _ = patient.output_layer


@pytest.mark.parametrize("way", ["lora", "rslora", "dora"])
def test_they_are_what_merging_adds(made, way):
    folder, prepared, model = made(way)
    read = read_updates(folder, prepared.experiment)
    W = read_weights(prepared.base.folder, read)
    merged = dict(model.merge_and_unload().named_modules())
    for name, update in read.items():
        torch.testing.assert_close(update.merge_into(W[name]), merged[name].weight, rtol=0, atol=1e-5)


def test_a_pattern_gives_a_module_its_own_alpha(made):
    folder, prepared, _ = made("lora")
    path = folder / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"alpha_pattern": {"self.query": 1, "layer.1.output.dense": 64}}))
    base = load_base(prepared.experiment.base, prepared.labels, seed=0, device=torch.device("cpu"))
    model = load_adapter(base, folder / "adapter")
    scalings = set()
    read = read_updates(folder, prepared.experiment)
    for name, layer in lora_layers(model):
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        torch.testing.assert_close(read[name].dense(), layer.scaling["default"] * (B @ A).detach())
        scalings.add(layer.scaling["default"])
    assert scalings == {0.25, 2.0, 16.0}


def test_base_spectra_are_those_of_the_bases_weights(made):
    folder, prepared, _ = made("query-value")
    read = read_updates(folder, prepared.experiment)
    spectra = read_base_spectra(prepared.experiment, folder.parent, read)
    W = read_weights(prepared.base.folder, read)
    assert set(spectra) == set(read)
    for name in read:
        torch.testing.assert_close(spectra[name].sigma, torch.linalg.svdvals(W[name]), rtol=1e-4, atol=1e-5)


def without(name):
    def damage(folder):
        path = folder / "adapter" / "adapter_model.safetensors"
        save_file({n: t for n, t in load_file(path).items() if name not in n}, path)

    return damage


def transposed(folder):
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({n: t.T.contiguous() if "lora_B" in n else t for n, t in tensors.items()}, path)


def torn(name):
    def damage(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def rewritten(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("way", "damage", "message"),
    [
        ("lora", torn("adapter/adapter_model.safetensors"), r"Weights in .* cannot be read"),
        ("lora", lambda f: (f / "adapter/adapter_model.safetensors").unlink(), r"cannot be read"),
        ("lora", torn("adapter/adapter_config.json"), r"lora: adapter_config.json is missing or damaged"),
        ("lora", rewritten("adapter/adapter_config.json", "[]"), r"missing or damaged"),
        ("lora", rewritten("adapter/adapter_config.json", "{}"), r"missing or damaged"),
        ("lora", lambda f: shutil.rmtree(f / "adapter"), r"missing or damaged"),
        ("lora", without("lora_B"), r"Weights in .* lack '.*lora_B.weight'"),
        ("lora", without("lora_"), r"lora: its adapter holds no LoRA factors"),
        ("lora", transposed, r"factors of ΔW do not fit"),
        ("full", torn("model/model.safetensors"), r"cannot be read"),
        ("full", lambda f: (f / "model/model.safetensors").unlink(), r"full: its model folder holds no wei"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_sentence(made, way, damage, message):
    folder, prepared, _ = made(way)
    damage(folder)
    with pytest.raises(LabError, match=message) as caught:
        read_updates(folder, prepared.experiment)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_module_that_the_base_lacks_is_told(made):
    _, prepared, _ = made("lora")
    with pytest.raises(LabError, match=r"no matrix for the module 'encoder\.layer\.9\.output\.dense'"):
        read_weights(prepared.base.folder, ["encoder.layer.9.output.dense"])
