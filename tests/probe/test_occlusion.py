import copy

import numpy as np
import pytest
from scipy.special import softmax
from tiny_models import tiny_predictor

from lab.errors import LabError
from lab.experiment import Base
from lab.probe import OCCLUSION_COLUMNS, Predictor, measure_occlusion

LABELS = ("negative", "neutral", "positive")
TEXT = "A  fine film, as specified in RFC 2616 unknownish"


@pytest.fixture(scope="module")
def model(tiny_cache):
    return tiny_predictor(tiny_cache, LABELS, reacting=True)


@pytest.fixture
def masked(model):
    """The same model with a tokenizer that has a mask token."""
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.mask_token = "[UNK]"
    return Predictor(model.model, tokenizer, LABELS, model.device)


def probability(model, texts, label):
    return softmax(model.logits(texts).astype(float), axis=1)[:, LABELS.index(label)]


def test_removing_a_word_is_asking_the_text_without_it(model):
    found = measure_occlusion(model, TEXT, "neutral")
    assert tuple(found.columns) == OCCLUSION_COLUMNS
    assert found["position"].tolist() == list(range(10))
    assert [TEXT[s:e] for s, e in zip(found["start"], found["end"], strict=True)] == found["token"].tolist()
    without = [TEXT[:s] + TEXT[e:] for s, e in zip(found["start"], found["end"], strict=True)]
    expected = probability(model, [TEXT], "neutral") - probability(model, without, "neutral")
    np.testing.assert_allclose(found["importance"], expected, atol=1e-6)
    assert found["importance"].abs().max() > 1e-2, "a model that does not react would prove nothing"


def test_masking_keeps_the_length_and_the_other_places(masked, monkeypatch):
    asked = []
    ask = Predictor.logits_of_tokens
    monkeypatch.setattr(
        Predictor, "logits_of_tokens", lambda self, ids, **k: asked.append(ids) or ask(self, ids, **k)
    )
    by_default = measure_occlusion(masked, TEXT, "neutral")
    assert len(asked) == 1, "one batch"
    whole, *others = asked[0]
    assert {len(ids) for ids in others} == {len(whole)}
    mask = masked.tokenizer.mask_token_id
    for ids in others:
        changed = [i for i, (a, b) in enumerate(zip(ids, whole, strict=True)) if a != b]
        assert changed == list(range(changed[0], changed[-1] + 1))
        assert {ids[i] for i in changed} == {mask}
    assert sum(a != b for a, b in zip(others[-1], whole, strict=True)) > 1, "all pieces of a word"
    removed = measure_occlusion(masked, TEXT, "neutral", hide="remove")
    assert np.abs(removed["importance"] - by_default["importance"]).max() > 1e-2
    masked_too = measure_occlusion(masked, TEXT, "neutral", hide="mask")
    assert by_default.equals(masked_too)


def test_the_margin_is_in_logits(model):
    found = measure_occlusion(model, "a fine film", "negative", score="margin")
    logits = model.logits(["a fine film", "fine film", "a film", "a fine"]).astype(float)
    margin = logits[:, 0] - logits[:, 1:].max(axis=1)
    np.testing.assert_allclose(found["importance"], margin[0] - margin[1:], atol=1e-6)


def test_the_label_is_the_predicted_one_where_none_is_named(model):
    (predicted,) = model.predict([TEXT])
    assert measure_occlusion(model, TEXT).equals(measure_occlusion(model, TEXT, predicted))


def test_probabilities_over_all_labels_take_each_other_up(model):
    total = sum(measure_occlusion(model, TEXT, label)["importance"] for label in LABELS)
    np.testing.assert_allclose(total, 0, atol=1e-9)


def test_only_kept_words_are_asked_about(model):
    long = "film " * (model.max_tokens + 9)
    found = measure_occlusion(model, long)
    assert len(found) == model.max_tokens - 2


@pytest.mark.parametrize("text", ["", "  ", "\u200b"])
def test_a_text_without_words_has_no_lines(model, text):
    found = measure_occlusion(model, text)
    assert tuple(found.columns) == OCCLUSION_COLUMNS
    assert found.empty
    assert found["importance"].dtype == float


def test_a_single_word_can_be_hidden_also_where_nothing_is_left(model):
    assert len(measure_occlusion(model, "film")) == 1
    bare = copy.deepcopy(model.tokenizer)
    from tokenizers.processors import TemplateProcessing

    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    decoder = Predictor(model.model, bare, LABELS, model.device)
    found = measure_occlusion(decoder, "film")
    assert np.isfinite(found["importance"]).all()


def test_progress_counts_the_whole_text_too(model):
    told = []
    measure_occlusion(model, "a fine film", on_progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (4, 4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"label": "positiv"}, r"Unknown label 'positiv'\. Did you mean 'positive'"),
        ({"hide": "mask"}, r"hide = 'mask' needs a tokenizer with a mask token"),
        ({"hide": "drop"}, r"Unknown way of hiding a word 'drop'.*auto, mask, remove"),
        ({"score": "logit"}, r"Unknown score of occlusion 'logit'.*margin, probability"),
    ],
)
@pytest.mark.parametrize("text", [TEXT, ""])
def test_a_wrong_question_is_one_sentence(model, asked, message, text):
    with pytest.raises(LabError, match=message):
        measure_occlusion(model, text, **asked)


def test_a_run_tells_what_its_answer_rests_on(finished):
    found = finished.occlusion("a fine film , see RFC 2616", "positive")
    assert found["token"].tolist() == ["a", "fine", "film", ",", "see", "RFC", "2616"]
    p = finished.predict(["a fine film , see RFC 2616", "fine film , see RFC 2616"])["p(positive)"]
    assert found["importance"][0] == pytest.approx(p[0] - p[1], abs=1e-6)


@pytest.mark.recipe
def test_minilm_masks_where_the_tiny_model_removes():
    import torch

    from lab.train.models import load_base

    loaded = load_base(Base(model="minilm"), ("a", "b"), seed=0, device=torch.device("cpu"))
    model = Predictor(loaded.model, loaded.tokenizer, ("a", "b"), torch.device("cpu"))
    text = "Overlong, as specified in RFC 2616."
    found = measure_occlusion(model, text, "a")
    assert found["token"].tolist() == ["Overlong", ",", "as", "specified", "in", "RFC", "2616", "."]
    hidden = measure_occlusion(model, text.replace("in", "[MASK]"), "a")
    assert hidden["importance"].tolist()[4] == pytest.approx(0, abs=1e-6)
    whole, without = probability_of(model, [text, text.replace(" in ", " [MASK] ")])
    assert found["importance"][4] == pytest.approx(whole - without, abs=1e-5)


def probability_of(model, texts):
    return softmax(model.logits(texts).astype(float), axis=1)[:, 0]
