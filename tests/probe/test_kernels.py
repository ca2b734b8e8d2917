"""Kernels against the Jacobians that autograd gives, in float64, over the parameters that are trained."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_predictor

from lab.errors import LabError
from lab.experiment import Adapter
from lab.probe.kernels import (
    Kernel,
    LoraFactors,
    Sketch,
    full_kernel,
    gram_of_gradients,
    lora_kernel,
    through_matrices,
    through_tokens,
)
from lab.probe.layer_traces import LayerTrace, trace_layers
from lab.probe.predictor import Predictor
from lab.tokens import pad
from lab.train.adapters import attach_lora, block_linears, lora_layers
from lab.train.models import LoadedBase

TEXTS = ["A fine film , as specified in RFC 2616", "dull", "a long story that never finds its end", "good"]
THREE = ("bad", "fair", "good")


@pytest.fixture(scope="module", params=[("no", "yes"), THREE], ids=["two labels", "three labels"])
def model(request, tiny_cache):
    """The tiny classifier in float64."""
    predictor = tiny_predictor(tiny_cache, request.param, reacting=True)
    predictor.model.double()
    return predictor


def jacobian_kernel(predictor, model, names, target):
    """J Jᵀ over the parameters of these names, all texts of the first margin first."""
    parameters = [p.requires_grad_() for n, p in model.named_parameters() if n in names]
    assert len(parameters) == len(names)
    logits = model(**pad(predictor.reading.token_ids(TEXTS), predictor.tokenizer.pad_token_id)).logits
    others = [label for label in range(logits.shape[1]) if label != target]
    margins = (logits[:, target, None] - logits[:, others]).T.reshape(-1)
    rows = [torch.autograd.grad(margin, parameters, retain_graph=True) for margin in margins]
    flat = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    return (flat @ flat.T).numpy()


def kernels_of(predictor, target, make, modules=None):
    ids = predictor.reading.token_ids(TEXTS)
    modules = modules or list(block_linears(predictor.model))
    return {t.module: make(t) for t in trace_layers(predictor, modules, ids, target)}


@pytest.mark.parametrize("target", [0, 1])
def test_full_fine_tuning_is_the_jacobian_of_every_weight(model, target):
    found = kernels_of(model, target, full_kernel)
    for module in ("bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense"):
        expected = jacobian_kernel(model, model.model, [f"{module}.weight"], target)
        np.testing.assert_allclose(found[module].values, expected, rtol=1e-9, atol=1e-12)
    every = sum(found.values(), start=Kernel(np.zeros_like(expected), len(model.labels) - 1))
    expected = jacobian_kernel(model, model.model, [f"{module}.weight" for module in found], target)
    np.testing.assert_allclose(every.values, expected, rtol=1e-9, atol=1e-12)
    assert np.linalg.eigvalsh(every.values)[0] > 0, "these texts differ"


def test_a_head_counts_its_biases(model):
    found = kernels_of(model, 1, lambda t: full_kernel(t, bias=True), ["bert.pooler.dense", "classifier"])
    for module, kernel in found.items():
        names = [f"{module}.weight", f"{module}.bias"]
        expected = jacobian_kernel(model, model.model, names, 1)
        np.testing.assert_allclose(kernel.values, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("trained", [False, True], ids=["B = 0", "B trained"])
def test_lora_is_the_jacobian_of_its_factors(model, trained):
    import copy

    base = LoadedBase(copy.deepcopy(model.model), model.tokenizer, ("classifier",), "tiny", None)
    adapted = attach_lora(base, Adapter(rank=3, alpha=5), seed=1).double().eval()
    factors = {}
    for name, layer in lora_layers(adapted):
        with torch.no_grad():
            if trained:
                layer.lora_B["default"].weight.normal_(generator=torch.Generator().manual_seed(len(name)))
            A, B = (part["default"].weight.detach().clone() for part in (layer.lora_A, layer.lora_B))
        factors[name] = LoraFactors(A, B, layer.scaling["default"])
    assert {f.scaling for f in factors.values()} == {5 / 3}
    merged = Predictor(
        copy.deepcopy(adapted).merge_and_unload(), model.tokenizer, model.labels, torch.device("cpu")
    )
    found = kernels_of(merged, 1, lambda t: lora_kernel(t, factors[t.module]), list(factors))
    for module in ("bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.1.attention.self.value"):
        names = [f"base_model.model.{module}.lora_{part}.default.weight" for part in "AB"]
        expected = jacobian_kernel(model, adapted, names, 1)
        np.testing.assert_allclose(found[module].values, expected, rtol=1e-9, atol=1e-12)


def test_a_frozen_a_has_no_part_in_the_kernel():
    trace, A = random_trace(6, 3), torch.ones(2, 6, dtype=torch.float64)
    trained = LoraFactors(A, torch.ones(3, 2, dtype=torch.float64), 1.0)
    frozen = LoraFactors(trained.A, trained.B, 1.0, frozen_a=True)
    fresh = LoraFactors(A, torch.zeros(3, 2, dtype=torch.float64), 1.0)
    np.testing.assert_array_equal(lora_kernel(trace, frozen).values, lora_kernel(trace, fresh).values)
    assert not np.allclose(lora_kernel(trace, trained).values, lora_kernel(trace, frozen).values)


def random_trace(n_in, n_out, *, texts=5, tokens=4, margins=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(texts, tokens, n_in, generator=rng, dtype=torch.float64)
    g = torch.randn(margins, texts, tokens, n_out, generator=rng, dtype=torch.float64)
    return LayerTrace("layer", x, g)


def test_lora_of_full_rank_with_the_identity_is_full_fine_tuning():
    """Corollary 3.5 of arXiv 2505.12871, without its expectation."""
    trace = random_trace(7, 3)
    identity = LoraFactors(torch.eye(7), torch.zeros(3, 7), 1.0)
    found, full = lora_kernel(trace, identity).values, full_kernel(trace).values
    np.testing.assert_allclose(found, full, rtol=1e-12)


def test_at_the_start_lora_is_the_full_kernel_times_its_expected_share_on_average():
    trace, rank, scaling, variance = random_trace(6, 3), 2, 1.5, 0.3
    rng = torch.Generator().manual_seed(4)
    total = np.zeros((5, 5))
    for _ in range(1000):
        A = torch.randn(rank, 6, generator=rng, dtype=torch.float64) * variance**0.5
        total += lora_kernel(trace, LoraFactors(A, torch.zeros(3, rank), scaling)).values / 1000
    expected = scaling**2 * rank * variance * full_kernel(trace).values
    np.testing.assert_allclose(total, expected, atol=0.1 * np.abs(expected).max())


@given(
    st.tuples(*[st.integers(1, 6)] * 4),
    st.integers(1, 3),
    st.integers(0, 10**6),
)
def test_both_ways_give_one_symmetric_kernel_without_negative_eigenvalues(shape, margins, seed):
    n_in, n_out, texts, tokens = shape
    trace = random_trace(n_in, n_out, texts=texts, tokens=tokens, margins=margins, seed=seed)
    one, other = (
        through_matrices(trace.inputs, trace.gradients),
        through_tokens(trace.inputs, trace.gradients),
    )
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other, other.T, rtol=1e-9, atol=1e-9)
    assert np.linalg.eigvalsh(one)[0] > -1e-9 * max(1.0, np.abs(one).max())
    np.testing.assert_allclose(gram_of_gradients(trace.inputs, trace.gradients), one, rtol=1e-9, atol=1e-9)


def test_memory_is_bounded_without_another_result(monkeypatch):
    trace = random_trace(7, 5, margins=2)
    whole = [way(trace.inputs, trace.gradients) for way in (through_matrices, through_tokens)]
    monkeypatch.setattr("lab.probe.kernels._AT_ONCE", 1)
    for way, expected in zip((through_matrices, through_tokens), whole, strict=True):
        np.testing.assert_allclose(way(trace.inputs, trace.gradients), expected, rtol=1e-12)


def test_layers_in_several_passes_are_the_same(model):
    ids, modules = model.reading.token_ids(TEXTS), list(block_linears(model.model))
    once = list(trace_layers(model, modules, ids, 0))
    often = list(trace_layers(model, modules, ids, 0, kept_bytes=1))
    assert [t.module for t in once] == [t.module for t in often] == modules
    for one, other in zip(once, often, strict=True):
        torch.testing.assert_close(one.inputs, other.inputs, rtol=0, atol=0)
        torch.testing.assert_close(one.gradients, other.gradients, rtol=0, atol=0)


def test_batches_change_nothing_and_leave_the_model_as_it_was(model, monkeypatch):
    whole = kernels_of(model, 0, full_kernel)
    monkeypatch.setattr("lab.probe.layer_traces._BATCH_TOKENS", 1)
    for module, kernel in kernels_of(model, 0, full_kernel).items():
        np.testing.assert_allclose(kernel.values, whole[module].values, rtol=1e-9, atol=1e-12)
    assert all(p.grad is None for p in model.model.parameters())
    assert not any(m._forward_hooks for m in model.model.modules())


def test_frozen_weights_have_kernels_too(model):
    before = kernels_of(model, 0, full_kernel)
    model.model.requires_grad_(False)
    after = kernels_of(model, 0, full_kernel)
    model.model.requires_grad_(True)
    for module, kernel in after.items():
        np.testing.assert_array_equal(kernel.values, before[module].values)


def test_a_sketch_is_right_on_average_and_says_how_far_it_is_off():
    trace = random_trace(40, 30, texts=6)
    exact = full_kernel(trace).values
    made = [full_kernel(trace, sketch=Sketch(width=8, copies=4, seed=seed)) for seed in range(200)]
    mean = np.mean([k.values for k in made], axis=0)
    off = np.array([np.linalg.norm(k.values - exact) for k in made])
    said = np.array([k.error for k in made])
    rms = np.sqrt((off**2).mean())
    assert np.linalg.norm(mean - exact) < 4 * rms / np.sqrt(200), "unbiased, within its own noise"
    assert np.sqrt((said**2).mean()) == pytest.approx(rms, rel=0.15)
    assert (off <= 2 * said).mean() > 0.9
    assert rms > 0.05 * np.linalg.norm(exact), "a sketch that is exact would prove nothing"


def test_a_sketch_leaves_narrow_sides_alone_and_depends_on_its_seed():
    narrow = random_trace(5, 4)
    assert full_kernel(narrow, sketch=Sketch(width=5)).error == 0
    np.testing.assert_array_equal(
        full_kernel(narrow, sketch=Sketch(width=5)).values, full_kernel(narrow).values
    )
    wide = random_trace(30, 4)
    one, same, other = (full_kernel(wide, sketch=Sketch(width=8, seed=s)).values for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_errors_of_independent_layers_add_like_lengths():
    total = Kernel(np.eye(2), 1, 3.0) + Kernel(np.eye(2), 1, 4.0)
    assert total.error == 5.0
    np.testing.assert_array_equal(total.values, 2 * np.eye(2))


def test_the_mean_margin_and_a_part_of_the_texts():
    values = np.arange(36.0).reshape(6, 6)
    kernel = Kernel(values + values.T, margins=2)
    blocks = kernel.values.reshape(2, 3, 2, 3)
    np.testing.assert_allclose(
        kernel.of_margin(), (blocks[0, :, 0] + blocks[0, :, 1] + blocks[1, :, 0] + blocks[1, :, 1]) / 4
    )
    part = kernel.among(np.array([2, 0]))
    assert part.texts == 2
    np.testing.assert_array_equal(part.of_margin(), kernel.of_margin()[np.ix_([2, 0], [2, 0])])


def test_what_cannot_be_measured_is_one_sentence(model):
    ids = model.reading.token_ids(TEXTS)
    with pytest.raises(LabError, match="no module 'nowhere'"):
        list(trace_layers(model, ["nowhere"], ids, 0))
    with pytest.raises(LabError, match="at least one text"):
        list(trace_layers(model, ["classifier"], [], 0))
    with pytest.raises(LabError, match=r"do not fit a layer of 3 × 7"):
        lora_kernel(random_trace(7, 3), LoraFactors(torch.eye(6), torch.zeros(3, 6), 1.0))
    with pytest.raises(LabError, match="at least 2 copies"):
        Sketch(copies=1)


@pytest.mark.parametrize("answers", [("yes", "no"), ("yes it is", "yes it was")], ids=["alone", "colliding"])
def test_a_chat_models_kernel_is_that_of_its_words_logits(answers, tiny_cache, monkeypatch):
    """Words that begin alike are asked for one after the other: the layers are called several times."""
    from lab.chat import Task, render_template
    from lab.chat.reading import chat_reading
    from lab.experiment import Base
    from lab.train.models import load_base

    monkeypatch.setenv("LAB_ASSETS", str(tiny_cache))
    labels = ("a", "b")
    loaded = load_base(Base(model="tiny-chat"), labels, seed=0, device=torch.device("cpu"), kind="chat")
    task = Task(kind="chat", answers=dict(zip(labels, answers, strict=True)))
    template = render_template(loaded.tokenizer, task.system, "tiny-chat")
    model = loaded.model.double().eval()
    reading = chat_reading(loaded.tokenizer, model.config, labels, task, template)
    assert reading.collides == (answers[0][:3] == answers[1][:3])
    predictor = Predictor(model, loaded.tokenizer, labels, torch.device("cpu"), reading=reading)
    ids = reading.token_ids(["good film", "a bad long film"])
    module = "model.layers.1.mlp.up_proj"
    [trace] = trace_layers(predictor, [module], ids, 0)
    weight = model.get_submodule(module).weight.requires_grad_()
    logits = reading.label_logits(model, pad(ids, loaded.tokenizer.pad_token_id))
    margins = logits[:, 0] - logits[:, 1]
    rows = [torch.autograd.grad(m, weight, retain_graph=True)[0].flatten() for m in margins]
    expected = (torch.stack(rows) @ torch.stack(rows).T).numpy()
    np.testing.assert_allclose(full_kernel(trace).values, expected, rtol=1e-5, atol=1e-12)
