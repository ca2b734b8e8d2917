"""The loss that shares a beginning, against transformers' own."""

import pytest
import torch

from lab.chat.loss import conversation_loss
from lab.experiment import Adapter
from lab.train.adapters import attach_lora, lora_layers
from lab.train.feeding import Conversations
from lab.train.merged_forward import merged_forward

TEXTS = ["the plot was awful .", "", "the music felt lovely and the cast splendid and the camera fresh ."]


@pytest.fixture
def adapted(decoder):
    model = attach_lora(decoder, Adapter(rank=4), seed=0)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            layer.lora_B["default"].weight.normal_(0, 0.1)
    return model.train()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("learned", ["all", "completion"])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], ["x"] * 3])
@pytest.mark.parametrize("items", [None, 100])
@pytest.mark.parametrize("merged", [False, True])
def test_it_is_the_models_own_loss_with_its_gradients(reading_of, adapted, learned, texts, items, merged):
    reading = reading_of()
    wholes, starts = reading.training_ids(texts, ["POSITIVE", "NEGATIVE", "POSITIVE"][: len(texts)])
    starts = [0] * len(starts) if learned == "all" else starts
    inputs = Conversations(reading.tokenizer.pad_token_id)(list(zip(wholes, starts, strict=True)))
    own_loss = adapted(**inputs, **({"num_items_in_batch": items} if items else {})).loss
    own = gradients(adapted, own_loss)
    if merged:
        with merged_forward(adapted):
            loss = conversation_loss(adapted, inputs, items)
            found = gradients(adapted, loss)
    else:
        loss = conversation_loss(adapted, inputs, items)
        found = gradients(adapted, loss)
    assert float(loss.detach()) == pytest.approx(float(own_loss.detach()), abs=1e-5)
    assert found.keys() == own.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_the_answer_alone_is_learned_with_its_end(reading_of):
    reading = reading_of()
    wholes, starts = reading.training_ids(["the plot was awful ."], ["NEGATIVE"])
    labels = Conversations(0)(list(zip(wholes, starts, strict=True)))["labels"][0]
    learned = [int(i) for i in labels if i >= 0]
    assert learned == reading.tokenizer("NEGATIVE<|end|>\n", add_special_tokens=False)["input_ids"]
