from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.chat.prefix import common_prefix
from lab.errors import LabError
from lab.tokens import pad

TEXTS = [
    "the plot was awful .",
    "the music felt lovely and warm",
    "",
    "see RFC 2616 . the cast was dull and the camera messy and the ending painful .",
    "x",
]
#: Words that the tiny vocabulary spells in letters, so that they begin alike.
ALIKE = {"negative": "zzq", "positive": "zzx"}


def whole_pass(model, ids):
    """The logits after a row, without padding, cache or batch."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].float()


def test_training_and_asking_share_every_token_up_to_the_answer(reading_of):
    reading = reading_of()
    asked = reading.token_ids(TEXTS)
    wholes, starts = reading.training_ids(TEXTS, ["POSITIVE"] * len(TEXTS))
    for question, whole, start in zip(asked, wholes, starts, strict=True):
        assert whole[:start] == question
        answer = reading.answer_ids[1]
        assert tuple(whole[start : start + len(answer)]) == answer


def test_the_tokens_are_those_of_the_models_own_template(reading_of):
    reading = reading_of()
    for text, ids in zip(TEXTS, reading.token_ids(TEXTS), strict=True):
        messages = [{"role": "system", "content": "good or bad ?"}, {"role": "user", "content": text}]
        own = reading.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == list(own)


def test_a_label_has_the_logit_of_its_words_first_token(reading_of, decoder):
    reading = reading_of()
    ids = reading.token_ids(TEXTS)
    logits = reading.logits(decoder.model, ids, lambda *_: None)
    first = [tokens[0] for tokens in reading.answer_ids]
    expected = np.stack([whole_pass(decoder.model, row)[-1][first].numpy() for row in ids])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_labels_that_begin_alike_have_the_probability_of_the_whole_word(reading_of, decoder):
    reading = reading_of(answers=ALIKE)
    assert reading.collides
    ids = reading.token_ids(TEXTS)
    logits = reading.logits(decoder.model, ids, lambda *_: None)
    for row, found in zip(ids, logits, strict=True):
        for answer, value in zip(reading.answer_ids, found, strict=True):
            assert len(answer) == 3
            log_p = whole_pass(decoder.model, [*row, *answer]).log_softmax(-1)
            own = sum(float(log_p[len(row) + i - 1, token]) for i, token in enumerate(answer))
            assert value == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("answers", [{}, ALIKE])
def test_a_shared_beginning_changes_no_answer(reading_of, decoder, answers):
    reading = reading_of(answers=answers)
    ids = reading.token_ids(TEXTS)
    assert len(common_prefix(ids)) >= 8, "the system prompt is shared"
    shared = reading.logits(decoder.model, ids, lambda *_: None)
    with torch.inference_mode():
        plain = reading.label_logits(decoder.model, pad(ids, reading.tokenizer.pad_token_id))
    np.testing.assert_allclose(shared, plain.numpy(), atol=1e-4)


def test_gradients_flow_through_the_labels_logits(reading_of, decoder):
    reading = reading_of()
    inputs = pad(reading.token_ids(TEXTS), reading.tokenizer.pad_token_id)
    reading.label_logits(decoder.model, inputs)[:, 0].sum().backward()
    assert decoder.model.model.layers[0].mlp.down_proj.weight.grad.abs().max() > 0


def test_long_texts_are_cut_and_the_template_never(reading_of):
    reading = reading_of(window=64)
    [ids] = reading.token_ids(["film " * 300])
    assert len(ids) <= 64
    [empty] = reading.token_ids([""])
    assert ids[-3:] == empty[-3:], "the question ends as every question does"


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("Positive.", "positive"),
        (" NEGATIVE", "negative"),
        ("maybe", ""),
        ("", ""),
        ("unpositively", "positive"),
    ],
)
def test_what_was_written_is_parsed_as_in_the_paper(reading_of, said, label):
    assert reading_of().label_in(said) == label


def test_the_longer_word_wins(reading_of):
    reading = reading_of(labels=("safe", "unsafe"))
    assert reading.label_in("unsafe") == "unsafe"
    assert reading.label_in("safe") == "safe"


@pytest.mark.parametrize("trims", [False, True])
@pytest.mark.parametrize("text", ["the plot was awful .", "  a film\n, warm  ", ""])
def test_words_are_those_of_the_text(reading_of, text, trims):
    reading = reading_of()
    reading = replace(reading, template=replace(reading.template, trims=trims))
    read = reading.read(text)
    assert read.ids == reading.token_ids([text])[0]
    assert [text[w.start : w.end] for w in read.words] == text.split()
    assert len(read.names) == len(read.ids)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"answers": {"neutral": "MEH"}}, "no label 'neutral'; the data has negative, positive"),
        ({"answers": {"negative": "yes", "positive": "YES"}}, "two labels have the same answer"),
        ({"window": 12}, "leaves no room for text"),
    ],
)
def test_mistakes_are_one_sentence(reading_of, knobs, message):
    with pytest.raises(LabError, match=message):
        reading_of(**knobs)


def test_a_beginning_that_is_not_shared_is_none():
    assert common_prefix([]) == ()
    assert common_prefix([[1, 2, 3]] * 2) == (), "too short to be worth a pass"
    assert common_prefix([[*range(20), 7], [*range(20), 8, 9]]) == tuple(range(20))
    assert common_prefix([list(range(20))] * 3) == tuple(range(19)), "each keeps a token for itself"
    assert common_prefix([[1, *range(20)], [2, *range(20)]]) == ()
