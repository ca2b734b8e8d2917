"""Tr: the penalty of RoRA against dense float64 autograd, and its weight in a training that accumulates."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PrinterCallback, TrainerCallback

from lab.defend import DEFENSES
from lab.errors import NotTrainableError
from lab.modules import choose_modules
from lab.train.batches import RowLengths
from lab.train.feeding import Classified, IndexedRows, TrainingRows
from lab.train.fit import _arguments, _PlannedTrainer

TR = DEFENSES["tr"]


@pytest.fixture(scope="module")
def shared():
    """One model for all examples of a property."""
    return {}


def factors(layer):
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def dense_penalty(subject, knobs):
    """λ·Σ(‖UₖᵀB‖² + ‖AVₖ‖²) by dense float64 SVD and autograd: the value, and the gradients by module."""
    chosen = choose_modules(list(subject.layers), knobs.modules, where="test")
    terms, leaves = [], {}
    for name in chosen:
        layer = subject.layers[name]
        A, B = (p.detach().double().clone().requires_grad_(True) for p in factors(layer))
        U, _, Vt = torch.linalg.svd(layer.base_layer.weight.detach().double(), full_matrices=False)
        terms.append((U[:, : knobs.k].T @ B).square().sum() + (A @ Vt[: knobs.k].T).square().sum())
        leaves[name] = (A, B)
    value = knobs.weight * sum(terms) / (len(terms) if knobs.over == "mean" else 1)
    value.backward()
    return value.item(), {name: (A.grad, B.grad) for name, (A, B) in leaves.items()}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    k=st.integers(1, 32),
    weight=st.floats(1e-3, 100),
    over=st.sampled_from(["mean", "sum"]),
    modules=st.sampled_from(["all-linear", "query-value", "mlp", ("layer.1",)]),
)
def test_penalty_and_gradients_are_those_of_dense_float64(lora_model, shared, k, weight, over, modules):
    if not shared:
        shared["model"] = lora_model()
    _, model, subject = shared["model"]
    knobs = TR.knobs(k=k, weight=weight, over=over, modules=modules)
    model.zero_grad()
    with TR.attach(knobs, subject) as penalty:
        found = penalty()
        found.backward()
    value, gradients = dense_penalty(subject, knobs)
    assert found.item() == pytest.approx(value, rel=1e-4)
    for name, layer in subject.layers.items():
        for p, expected in zip(factors(layer), gradients.get(name, (None, None)), strict=True):
            if expected is None:
                assert p.grad is None
            else:
                assert (p.grad - expected).norm() <= 1e-4 * expected.norm()
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" not in n)


@pytest.mark.parametrize(("over", "parts"), [("mean", 8), ("sum", 1)])
def test_at_full_k_it_is_weight_decay_on_a_and_b(lora_model, over, parts):
    _, _, subject = lora_model()
    square = {n: layer for n, layer in subject.layers.items() if "attention" in n}
    plain = sum(p.detach().square().sum().item() for layer in square.values() for p in factors(layer))
    with TR.attach(TR.knobs(k=32, weight=2.0, over=over, modules="attention"), subject) as penalty:
        assert penalty().item() == pytest.approx(2.0 * plain / parts, rel=1e-4)


def test_a_larger_k_never_penalises_less(lora_model):
    _, _, subject = lora_model()
    values = []
    for k in range(1, 33):
        with TR.attach(TR.knobs(k=k), subject) as penalty:
            values.append(penalty().item())
    assert values == sorted(values)


def test_k_above_the_dimension_is_told(lora_model):
    _, _, subject = lora_model()
    message = r"defense tr: k = 33: .* is 32 × 32, of which 32 singular directions .* allowed are 1 to 32"
    with pytest.raises(NotTrainableError, match=message):
        TR.attach(TR.knobs(k=33), subject).__enter__()


class Gradients(TrainerCallback):
    """Keeps the gradients of the factors as the first optimizer step gets them."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if state.global_step == 0:
            self.kept = [p.grad.clone() for n, p in model.named_parameters() if "lora_" in n]


@pytest.fixture
def short_training(lora_model, small, tmp_path):
    """Train on the same three rows over and over: gradients of the first step, trained factors."""

    def train(weight, accumulate=1, steps=1):
        base, model, subject = lora_model()
        experiment = small.with_(
            **{"training.steps": steps, "training.gradient_accumulation": accumulate},
            **{"training.max_grad_norm": 1e9},
        )
        arguments = _arguments(experiment, tmp_path, torch.device("cpu"), [])
        arguments.save_strategy = "no"
        rows = TrainingRows([[2, 7, 9, 3], [2, 50, 51, 3], [2, 80, 9, 3]], [0, 1, 1], RowLengths([], []))
        with TR.attach(TR.knobs(weight=weight or 1.0), subject) as penalty:
            trainer = _PlannedTrainer(
                model=model,
                penalties=[penalty] if weight else [],
                args=arguments,
                train_dataset=IndexedRows(rows),
                data_collator=Classified(int(base.tokenizer.pad_token_id)),
                plan=[[0, 1, 2]] * (steps * accumulate),
                callbacks=[seen := Gradients()],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return seen.kept, [p.detach() for n, p in model.named_parameters() if "lora_" in n]

    return train


def test_it_counts_once_per_optimizer_step_whatever_is_accumulated(lora_model, short_training):
    _, _, subject = lora_model()
    gradients = dense_penalty(subject, TR.knobs(weight=5.0))[1]
    expected = [g for name in subject.layers for g in gradients[name]]
    without = short_training(0.0)[0]
    for accumulate in (1, 2):
        found = short_training(5.0, accumulate)[0]
        for g, plain, of_penalty in zip(found, without, expected, strict=True):
            assert (g - plain - of_penalty).norm() <= 0.01 * of_penalty.norm()


def test_with_almost_no_weight_the_training_is_the_one_without(short_training):
    almost, without = (short_training(weight, steps=2)[1] for weight in (1e-12, 0.0))
    torch.testing.assert_close(almost, without, rtol=0, atol=1e-5)
