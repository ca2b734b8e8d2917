import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lab.train.adapters import lora_layers
from lab.train.merged_forward import merged_forward


def small_model(**options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 6, bias=False))
    model = get_peft_model(net, LoraConfig(r=3, lora_alpha=5, target_modules=["0", "2"], **options))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B["default"].weight)
    return model


def answer_and_gradients(model, x):
    model.zero_grad()
    x = x.clone().requires_grad_(True)
    out = model(x)
    out.square().sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return out.detach(), x.grad.clone(), gradients


@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12)])
def test_same_answers_and_gradients_as_peft(shape):
    model, x = small_model(), torch.randn(*shape)
    out, grad_x, gradients = answer_and_gradients(model, x)
    with merged_forward(model) as changed:
        fast_out, fast_grad_x, fast_gradients = answer_and_gradients(model, x)
    assert changed == 2
    torch.testing.assert_close(fast_out, out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast_grad_x, grad_x, rtol=1e-4, atol=1e-4)
    assert len(gradients) == 4
    assert set(fast_gradients) == set(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, rtol=1e-4, atol=1e-3)


def test_afterwards_the_layers_are_pefts_again():
    model = small_model()
    with merged_forward(model):
        assert all("forward" in vars(layer) for _, layer in lora_layers(model))
    assert not any("forward" in vars(layer) for _, layer in lora_layers(model))


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_layers_that_do_more_are_left_alone(options):
    with merged_forward(small_model(**options)) as changed:
        assert changed == 0


def test_a_hook_on_the_frozen_path_is_respected():
    model = small_model()
    next(iter(lora_layers(model)))[1].base_layer.register_forward_hook(lambda m, a, out: out * 0)
    with merged_forward(model) as changed:
        assert changed == 1
