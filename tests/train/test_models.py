"""Model folders: what is broken is one sentence, and leaves no run behind."""

import errno
import hashlib
import json
import shutil

import pytest
import torch

import lab
from lab.errors import LabError, MissingAssetError, NotTrainableError
from lab.experiment import Adapter, Base
from lab.train import models
from lab.train.adapters import attach_lora
from lab.train.models import base_sha256, load_base, load_tokenizer, model_folder

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny model, to break."""
    return shutil.copytree(model_folder("tiny"), tmp_path / "mine")


def load(folder):
    return load_base(Base(model=str(folder)), ("a", "b"), seed=0, device=CPU)


def _without_config(folder):
    (folder / "config.json").unlink()


def _with_config(text):
    return lambda folder: (folder / "config.json").write_text(text)


def _without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def _with_tokenizer(text):
    return lambda folder: (folder / "tokenizer.json").write_text(text)


def _with_weights(data):
    return lambda folder: (folder / "model.safetensors").write_bytes(data)


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-500])


BROKEN = {
    "no config": (_without_config, r"no config\.json"),
    "config is no JSON": (_with_config("{oops"), "not a valid JSON"),
    "config is a list": (_with_config("[]"), r"config\.json"),
    "config says nothing": (_with_config("{}"), "model_type"),
    "unknown architecture": (_with_config('{"model_type": "zzz"}'), "zzz"),
    "no tokenizer": (_without_tokenizer, "tokenizer"),
    "tokenizer is no JSON": (_with_tokenizer("{"), "tokenizer"),
    "tokenizer is something else": (_with_tokenizer('{"version": "1.0"}'), "tokenizer"),
    "weights are garbage": (_with_weights(b"garbage" * 99), r"model\.safetensors"),
    "weights are empty": (_with_weights(b""), r"model\.safetensors"),
    "weights are cut off": (_cut, r"model\.safetensors"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_one_sentence_before_anything_is_written(folder, tiny, tmp_path, name):
    damage, words = BROKEN[name]
    damage(folder)
    with pytest.raises(LabError, match=words) as caught:
        lab.run(tiny.with_(**{"base.model": str(folder)}), runs=tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("base.model = ")
    assert not (tmp_path / "runs").exists()


def _other_name(folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


def _other_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))


def _other_task(folder):
    (folder / "config.json").write_text('{"model_type": "clip", "max_position_embeddings": 160}')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_other_name, r"model\.safetensors"),
        (_other_width, "do not fit its config"),
        (_other_task, "cannot classify text"),
    ],
)
def test_what_only_loading_finds_out_leaves_no_run(folder, tiny, tmp_path, damage, words):
    damage(folder)
    with pytest.raises(NotTrainableError, match=words) as caught:
        lab.run(tiny.with_(**{"base.model": str(folder)}), runs=tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "runs").glob("*"))


def test_a_model_of_the_hub_is_called_by_its_id(folder, tmp_path):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "0123abc"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    _without_tokenizer(snapshot)
    with pytest.raises(NotTrainableError, match=r"base\.model = 'owner/name' holds no tokenizer"):
        load_tokenizer(snapshot)


def test_weights_that_break_after_the_start_are_not_trainable(folder, monkeypatch):
    _with_weights(b"garbage" * 99)(folder)
    monkeypatch.setattr(models, "model_folder", lambda model: folder)
    with pytest.raises(NotTrainableError, match=r"cannot be loaded.*header"):
        load(folder)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), RuntimeError("out of memory")])
def test_a_machine_in_trouble_is_no_fault_of_the_model(folder, monkeypatch, error):
    """NotTrainableError removes a new run's folder; a passing trouble must not cost trained weights."""
    import transformers

    def failing(*_, **__):
        raise error

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", failing)
    with pytest.raises(type(error), match=str(error.args[-1])):
        load(folder)


def test_four_bit_without_a_card_leaves_no_run(tiny, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(NotTrainableError, match="needs a CUDA card"):
        lab.run(tiny.with_(**{"base.load_in_4bit": True}), runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_offline_the_hub_is_not_asked_for_a_model(monkeypatch):
    import huggingface_hub

    asked = []

    def download(model, **options):
        asked.append(options)
        raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("LAB_OFFLINE", "1")
    with pytest.raises(MissingAssetError, match=r"'owner/name'.*LAB_OFFLINE"):
        model_folder("owner/name")
    monkeypatch.delenv("LAB_OFFLINE")
    with pytest.raises(MissingAssetError, match=r"'owner/name'.*the hub did not give it"):
        model_folder("owner/name")
    assert [options["local_files_only"] for options in asked] == [True, False]


def test_an_impossible_hub_id_is_one_sentence():
    with pytest.raises(LabError, match=r"base\.model = 'a b/c d'"):
        model_folder("a b/c d")


def test_the_hash_of_one_file_is_its_plain_sha256(folder):
    data = (folder / "model.safetensors").read_bytes()
    assert base_sha256(folder) == hashlib.sha256(data).hexdigest()
    assert base_sha256(folder) == hashlib.sha256(data).hexdigest()  # from the memo


def test_the_hash_of_several_files_is_of_them_all(folder):
    alone = base_sha256(folder)
    (folder / "second.safetensors").write_bytes(b"x")
    both = base_sha256(folder)
    (folder / "second.safetensors").write_bytes(b"y")
    assert len({alone, both, base_sha256(folder)}) == 3


def test_a_memo_that_cannot_be_written_or_is_damaged_costs_only_time(folder, tmp_path, monkeypatch):
    expected = base_sha256(folder)
    cache = tmp_path / "cache"
    monkeypatch.setenv("LAB_ASSETS", str(cache))
    cache.write_text("a file, where the folder should be")
    assert base_sha256(folder) == expected
    cache.unlink()
    base_sha256(folder)
    for memo in (cache / "hashes").iterdir():
        memo.write_bytes(b"\xff\xfe torn")
    assert base_sha256(folder) == expected


def test_a_cache_that_cannot_hold_the_tiny_model_names_its_setting(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAB_ASSETS", str(tmp_path / "file"))
    with pytest.raises(LabError, match="LAB_ASSETS"):
        model_folder("tiny")


@pytest.fixture
def gpt2(tmp_path):
    """A decoder whose blocks hold Conv1D in place of nn.Linear."""
    from transformers import GPT2Config, GPT2Model

    tokenizer = load_tokenizer(model_folder("tiny"))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=160, n_embd=32, n_layer=2, n_head=2, bos_token_id=2,
        eos_token_id=3,
    )  # fmt: skip
    GPT2Model(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@pytest.mark.parametrize("targets", ["all-linear", "attention", "mlp", "c_attn", ("c_attn", "c_fc")])
def test_blocks_without_linear_layers_are_not_trainable(gpt2, targets):
    with pytest.raises(NotTrainableError, match=r"adapter\.targets = .*holds no linear layer"):
        attach_lora(load(gpt2), Adapter(rank=2, targets=targets), seed=0)


def test_a_run_on_such_a_model_leaves_nothing(gpt2, tiny, tmp_path):
    with pytest.raises(NotTrainableError, match=r"adapter\.targets"):
        lab.run(tiny.with_(**{"base.model": str(gpt2)}), runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))
