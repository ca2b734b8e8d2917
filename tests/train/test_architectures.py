"""Encoders and decoders of several families: heads found, adapters saved, reloaded answers the same."""

import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.experiment import Adapter, Base
from lab.probe import Predictor
from lab.train.adapters import (
    attach_lora,
    block_linears,
    load_adapter,
    lora_layers,
    resolve_targets,
    save_trained,
)
from lab.train.models import base_sha256, load_base, model_folder

LABELS = ("negative", "positive")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TEXTS = ["good film", "bad film number 3 as specified in RFC 2616", "good"]


def _bert(vocab):
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(vocab_size=vocab, max_position_embeddings=64, **SHAPE), add_pooling_layer=False
    )


def _roberta(vocab):
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(vocab_size=vocab, max_position_embeddings=66, pad_token_id=0, **SHAPE)
    return RobertaModel(config, add_pooling_layer=False)


def _distilbert(vocab):
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(
        DistilBertConfig(
            vocab_size=vocab, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=64
        )
    )


def _modernbert(vocab):
    from transformers import ModernBertConfig, ModernBertModel

    return ModernBertModel(
        ModernBertConfig(
            vocab_size=vocab, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
            max_position_embeddings=64, **SHAPE,
        )
    )  # fmt: skip


def _llama(vocab):
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(
        LlamaConfig(vocab_size=vocab, max_position_embeddings=64, num_key_value_heads=1, **SHAPE)
    )


HEADS = {
    "bert": (_bert, {"classifier", "bert.pooler"}),
    "roberta": (_roberta, {"classifier"}),
    "distilbert": (_distilbert, {"pre_classifier", "classifier"}),
    "modernbert": (_modernbert, {"head", "classifier"}),
    "llama": (_llama, {"score"}),
}


@pytest.fixture(params=HEADS)
def architecture(request, tmp_path):
    """A folder with random weights of one family, and the heads it needs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder("tiny"))
    build, heads = HEADS[request.param]
    torch.manual_seed(3)
    build(len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return Base(model=str(tmp_path / "base")), heads, tmp_path


def load(base):
    return load_base(base, LABELS, seed=0, device=torch.device("cpu"))


def answers(model, loaded):
    return Predictor(model, loaded.tokenizer, LABELS, torch.device("cpu")).logits(TEXTS)


def test_the_head_is_what_the_base_does_not_bring(architecture):
    base, heads, _ = architecture
    assert set(load(base).head) == heads


def test_default_targets_are_the_linear_layers_of_the_blocks(architecture):
    base, heads, _ = architecture
    loaded = load(base)
    adapted = {name for name, _ in lora_layers(attach_lora(loaded, Adapter(rank=2), seed=0))}
    assert adapted
    assert not any(name.split(".")[0] in heads for name in adapted)
    per_layer = {n.count(".0.") + n.count(".1.") for n in adapted}
    assert per_layer == {1}
    assert len(adapted) == len(block_linears(load(base).model))


def test_reloaded_adapters_answer_as_before(architecture):
    base, _, folder = architecture
    loaded = load(base)
    model = attach_lora(loaded, Adapter(rank=2), seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.2)  # as training would, the head included
    before = answers(model, loaded)
    save_trained(model, folder / "adapter", base_name=loaded.name)
    again = load(base)
    reloaded = load_adapter(again, folder / "adapter")
    np.testing.assert_allclose(answers(reloaded, again), before, atol=1e-5)
    np.testing.assert_allclose(answers(reloaded.merge_and_unload(), again), before, atol=1e-4)
    assert str(folder) not in (folder / "adapter" / "adapter_config.json").read_text()
    assert np.abs(answers(load(base).model, again) - before).max() > 1e-2, "the adapter does something"


def test_padding_changes_no_answer(architecture):
    base, _, _ = architecture
    loaded = load(base)
    alone = np.concatenate([answers_of(loaded, [text]) for text in TEXTS])
    np.testing.assert_allclose(answers_of(loaded, TEXTS), alone, atol=1e-4)


def answers_of(loaded, texts):
    return Predictor(loaded.model, loaded.tokenizer, LABELS, torch.device("cpu")).logits(texts)


def test_the_head_depends_on_the_seed_alone(architecture):
    base, _, _ = architecture
    one, two = load(base), load(base)
    other = load_base(base, LABELS, seed=1, device=torch.device("cpu"))
    np.testing.assert_array_equal(answers(one.model, one), answers(two.model, two))
    assert not np.array_equal(answers(one.model, one), answers(other.model, other))


@pytest.mark.parametrize(("init", "expected"), [("kaiming", 1 / 3), ("gaussian", 2.0), ("kaiming", 0.01)])
def test_the_initial_variance_is_the_one_asked_for(init, expected):
    loaded = load(Base(model="tiny"))
    model = attach_lora(loaded, Adapter(rank=32, init=init, init_variance=expected), seed=0)
    entries = [
        (layer.lora_A["default"].weight * layer.in_features**0.5).flatten() for _, layer in lora_layers(model)
    ]
    assert torch.cat(entries).var().item() == pytest.approx(expected, rel=0.05)
    assert all(layer.lora_B["default"].weight.abs().max() == 0 for _, layer in lora_layers(model))


def test_targets_by_group_and_name():
    model = load(Base(model="tiny")).model
    everything = resolve_targets(model, "all-linear")
    attention, mlp = resolve_targets(model, "attention"), resolve_targets(model, "mlp")
    assert attention | mlp == everything
    assert not attention & mlp
    assert resolve_targets(model, ("query", "value")) == {"query", "value"}


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(LabError, match=r"no \.safetensors file"):
        model_folder(str(tmp_path))


def test_an_unreachable_hub_is_one_sentence():
    with pytest.raises(LabError, match=r"base.model = 'nobody/nothing': not a folder here, and the hub"):
        model_folder("nobody/nothing")


def test_the_weight_hash_is_of_the_weights(architecture):
    base, _, folder = architecture
    first = base_sha256(folder / "base")
    assert base_sha256(folder / "base") == first
    other = load(base).model
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.base_model.save_pretrained(folder / "base")
    assert base_sha256(folder / "base") != first


def test_four_bit_needs_a_cuda_card():
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(LabError, match="needs a CUDA card"):
        load(Base(model="tiny", load_in_4bit=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator here")
def test_a_run_on_the_card_equals_the_processor_nearly(tiny, tmp_path):
    import lab

    runs = [lab.run(tiny, runs=tmp_path / d, device=d, twin=False) for d in ("cpu", "cuda")]
    rates = [r.result["measures"]["test"]["poisoned"]["clean_accuracy"]["value"] for r in runs]
    assert rates[0] == pytest.approx(rates[1], abs=0.1)


def test_kernels_are_the_jacobians_of_the_weights_that_an_adapter_changes(architecture):
    from lab.probe import full_kernel
    from lab.probe.layer_traces import trace_layers
    from lab.tokens import pad
    from lab.train.adapters import adapted_linears

    base, _, _ = architecture
    loaded = load(base)
    model = loaded.model.double().eval()
    predictor = Predictor(model, loaded.tokenizer, LABELS, torch.device("cpu"))
    ids = predictor.reading.token_ids(TEXTS)
    modules = list(adapted_linears(model, "all-linear"))
    assert modules == list(block_linears(model))
    for trace in trace_layers(predictor, modules, ids, 1):
        weight = model.get_submodule(trace.module).weight.requires_grad_()
        logits = model(**pad(ids, loaded.tokenizer.pad_token_id)).logits
        rows = [
            torch.autograd.grad(margin, weight, retain_graph=True)[0].flatten()
            for margin in logits[:, 1] - logits[:, 0]
        ]
        jacobian = torch.stack(rows)
        expected = (jacobian @ jacobian.T).numpy()
        np.testing.assert_allclose(
            full_kernel(trace).values, expected, rtol=1e-8, atol=1e-12 * np.abs(expected).max()
        )
