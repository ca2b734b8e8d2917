import numpy as np
import pytest
import torch

from lab.language_model import LanguageModel


class Letters:
    pad_token_id = 0

    def convert_tokens_to_ids(self, token):
        return 1

    def __call__(self, text, **_):
        return {"input_ids": [2 + "abcd".index(c) for c in text]}


@pytest.fixture
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=6, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config).eval()


def test_perplexity_is_the_exponential_of_the_mean_loss(model):
    told = LanguageModel(model, Letters()).perplexity(["abcd", "", "d", "abcd"])
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.inference_mode():
        assert told[0] == pytest.approx(float(model(ids, labels=ids).loss.exp()), rel=1e-5)
    assert told[1] == 1
    assert told[0] == told[3]
    assert (told >= 1).all()


def test_batches_change_nothing_and_what_is_known_is_not_asked_again(model):
    texts = ["a" * n + "bcd" for n in range(60)]
    together = LanguageModel(model, Letters())
    seen = []
    whole = together.perplexity(texts, on_progress=lambda done, total: seen.append((done, total)))
    apart = [LanguageModel(model, Letters()).perplexity([text])[0] for text in texts]
    np.testing.assert_allclose(whole, apart, rtol=1e-4)
    assert seen[-1] == (60, 60)
    seen.clear()
    np.testing.assert_array_equal(together.perplexity(texts), whole)
    assert not seen
