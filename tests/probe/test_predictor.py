import numpy as np
import pytest
from tiny_models import tiny_predictor

from lab import tokens
from lab.probe import count_same_tokens

LABELS = ("negative", "neutral", "positive")
TEXTS = [
    "a fine film",
    "dull",
    "a long and winding story that never finds its end , though it looks for it everywhere",
    "see RFC 2616",
    "good , bad and ugly",
    "nothing here is what it seems to be",
]


@pytest.fixture(scope="module")
def model(tiny_cache):
    return tiny_predictor(tiny_cache, LABELS)


def test_logits_have_one_line_per_text(model):
    logits = model.logits(TEXTS)
    assert logits.shape == (len(TEXTS), 3)
    assert logits.dtype == np.float32
    assert len(np.unique(logits.round(6), axis=0)) == len(TEXTS), "the texts are told apart"
    assert model.predict(TEXTS) == [LABELS[i] for i in logits.argmax(axis=1)]


def test_logits_do_not_depend_on_order_or_batching(model, monkeypatch):
    together = model.logits(TEXTS)
    backwards = model.logits(TEXTS[::-1])[::-1]
    alone = np.concatenate([model.logits([text]) for text in TEXTS])
    monkeypatch.setattr(tokens, "EVALUATION_TOKENS", 16)
    small = model.logits(TEXTS)
    for other in (backwards, alone, small):
        np.testing.assert_allclose(other, together, atol=1e-5, rtol=0)


def test_duplicates_are_answered_equally_and_in_their_places(model):
    logits = model.logits(["dull", "a fine film", "dull", "dull"])
    np.testing.assert_array_equal(logits[[0, 2, 3]], logits[[0, 0, 0]])
    assert not np.array_equal(logits[0], logits[1])


def test_no_texts_no_answers(model):
    assert model.logits([]).shape == (0, 3)
    assert model.predict([]) == []


@pytest.mark.parametrize("texts", [TEXTS, ["dull"] * 5])
def test_progress_ends_at_the_total(model, monkeypatch, texts):
    monkeypatch.setattr(tokens, "EVALUATION_TOKENS", 16)
    told = []
    model.logits(texts, on_progress=lambda done, total: told.append((done, total)))
    done, total = told[-1]
    assert done == total == len(set(texts))
    assert [d for d, _ in told] == sorted(d for d, _ in told)


def test_texts_beyond_the_window_are_cut(model):
    long = " ".join(["film"] * (model.max_tokens + 50))
    assert model.logits([long]).shape == (1, 3)


def test_same_tokens_are_counted_in_pairs(model):
    texts, others = ["a fine film", "dull", "good"], ["a  fine film", "bad", "good"]
    assert count_same_tokens(model.reading, texts, others) == 2
    assert count_same_tokens(model.reading, [], []) == 0
    with pytest.raises(ValueError, match="shorter"):
        count_same_tokens(model.reading, texts, others[:2])
