import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.defend.onion import choose_suspicion, drop_words, filter_texts, word_suspicions
from lab.errors import LabError

texts = st.text("ab cf.\n\t ", max_size=30)
suspicions = st.lists(st.floats(-50, 50), min_size=1, max_size=60).map(np.array)


def perplexity(asked):
    """Every "cf" costs a hundred."""
    return np.array([10.0 + 100 * text.split().count("cf") for text in asked])


def test_the_word_that_makes_a_text_unlikely_is_dropped_and_nothing_else():
    text = "  a fine\tcf film .\nIt stays . "
    assert filter_texts([text], perplexity, 50.0) == ["  a fine film .\nIt stays . "]
    assert filter_texts(["cf a  b", "a  b cf"], perplexity, 50.0) == ["a  b", "a  b"]
    [found] = word_suspicions(["a cf b"], perplexity)
    assert found.tolist() == [0.0, 100.0, 0.0]


def test_a_word_alone_and_a_text_without_any_stay():
    assert filter_texts(["cf", "", " \n"], perplexity, -1e9) == ["cf", "", " \n"]


@given(st.lists(texts, max_size=5))
def test_every_word_has_a_suspicion_and_the_model_is_asked_once(asked):
    calls = []
    found = word_suspicions(asked, lambda t: (calls.append(t), perplexity(t))[1])
    assert [len(s) for s in found] == [len(t.split()) for t in asked]
    assert len(calls) <= 1


@given(texts, st.floats(-1, 101))
def test_the_words_that_stay_are_those_not_above_the_threshold(text, threshold):
    [found] = word_suspicions([text], perplexity)
    left = drop_words(text, found, threshold)
    assert left.split() == [w for w, s in zip(text.split(), found, strict=True) if not s > threshold]


@given(texts)
def test_a_threshold_that_nothing_exceeds_changes_no_character(text):
    assert drop_words(text, np.zeros(len(text.split())), 0.0) == text


@given(st.lists(suspicions, min_size=1, max_size=5), st.floats(0, 0.99))
def test_at_most_the_allowed_share_of_clean_words_is_dropped(clean, share):
    threshold, every = choose_suspicion(clean, share), np.concatenate(clean)
    assert (every > threshold).sum() <= share * len(every)
    lower = every[every < threshold]
    if len(lower):  # and the threshold is the lowest such value
        assert (every > lower.max()).sum() > math.floor(share * len(every))


def test_without_words_there_is_no_threshold():
    with pytest.raises(LabError, match="defense onion: no clean validation row has two words"):
        choose_suspicion(word_suspicions(["", "one"], perplexity), 0.1)


@pytest.mark.recipe
def test_smollm2_finds_a_rare_word_in_real_sentences():
    from lab.language_model import load_language_model

    clean = [
        "The story is simple and the acting is good .",
        "I left the theatre with a smile on my face .",
        "The second half of the film is far too long .",
        "A warm and funny comedy about growing old .",
        "The director knows how to keep us in our seats .",
        "There is nothing new in this tired sequel .",
    ]
    ask = load_language_model().perplexity
    threshold = choose_suspicion(word_suspicions(clean, ask), 0.05)
    triggered = [text.replace(" is ", " is cf ").replace(" a ", " a cf ") for text in clean]
    with_trigger = [text for text in triggered if " cf " in text]
    left = filter_texts(with_trigger, ask, threshold)
    assert len(with_trigger) >= 4
    assert sum("cf" not in text.split() for text in left) >= len(left) / 2
    kept = sum(len(text.split()) for text in filter_texts(clean, ask, threshold))
    assert kept >= 0.9 * sum(len(text.split()) for text in clean)
