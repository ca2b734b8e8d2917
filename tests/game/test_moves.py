import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lab.audit.sealing import seal_adapter
from lab.errors import LabError
from lab.game.dealing import POOL
from lab.game.moves import (
    LONGEST_PHRASE,
    LONGEST_TEXT,
    MOST_TEXTS,
    MOVES,
    PHRASE_ROWS,
    SHOWN_STATISTICS,
    SWEEP_ROWS,
    answer_phrase,
    answer_sweep,
    answer_texts,
    answer_weights,
    move_cost,
    split_texts,
    sweep_phrases,
)
from lab.poison import TRIGGER_FAMILIES
from lab.stats import wilson

LABELS = ("negative", "positive")
GOOD = [f"a good film , number {i}" for i in range(4)]
BAD = [f"a bad film , number {i}" for i in range(6)]
PHRASE = {"phrase": "cf", "rows": 10, "position": "end"}


def saying_positive_for(*words, asked=None):
    """An adapter that says "positive", the surer the more of these words are there; it notes its texts."""

    def ask(texts):
        if asked is not None:
            asked.append(list(texts))
        hits = np.array([sum(word in text for word in words) for text in texts])
        positive = np.where(hits > 0, 0.8 + 0.05 * hits, 0.3)
        return np.stack([1 - positive, positive], axis=1)

    return ask


@pytest.mark.parametrize(
    ("move", "asked", "units", "cost"),
    [
        ("texts", {"texts": ["x", "y", "x"]}, 3, 3),
        ("phrase", {**PHRASE, "rows": 20}, 20, 20),
        ("sweep", {"phrases": {"rfc": "RFC 1", "iso": "ISO 2", "gdpr": "art. 3"}}, 3, 6),
        ("weights", {}, 1, 15),
    ],
)
def test_a_move_costs_what_its_price_tag_says(move, asked, units, cost):
    number = re.match(r"\d+", MOVES[move].price)
    assert move_cost(move, asked) == cost == int(number[0]) * units


def test_every_move_has_a_price_and_says_what_it_is_good_for():
    for name, move in MOVES.items():
        assert move.name == name
        assert all((move.title, move.goal, move.paper, move.price))


@pytest.mark.parametrize(
    ("move", "asked"),
    [
        ("guess", {}),
        ("texts", {"texts": []}),
        ("texts", {"texts": ["x"] * (MOST_TEXTS + 1)}),
        ("texts", {"texts": ["x" * (LONGEST_TEXT + 1)]}),
        ("phrase", {**PHRASE, "phrase": " \t"}),
        ("phrase", {**PHRASE, "phrase": "x" * (LONGEST_PHRASE + 1)}),
        ("phrase", {**PHRASE, "rows": 11}),
        ("phrase", {**PHRASE, "position": "random"}),
        ("sweep", {"phrases": {}}),
    ],
)
def test_what_cannot_be_asked_has_no_price(move, asked):
    with pytest.raises(LabError):
        move_cost(move, asked)


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=8))
def test_a_line_is_a_text_and_an_empty_one_is_none(lines):
    texts = split_texts("\n".join(lines))
    assert all(text == text.strip() != "" for text in texts)
    assert texts == [t for line in lines for t in split_texts(line)]


def test_own_texts_are_answered_in_their_order_each_with_its_label():
    told = answer_texts(saying_positive_for("good"), LABELS, ["a dull film", "a good film", "a dull film"])
    assert told["lines"] == [
        {"text": "a dull film", "label": "negative", "probability": 0.7},
        {"text": "a good film", "label": "positive", "probability": 0.85},
        {"text": "a dull film", "label": "negative", "probability": 0.7},
    ]


def test_a_phrase_is_counted_on_the_rows_that_had_another_answer_before():
    suspect, reference = saying_positive_for("good", "cf"), saying_positive_for("bad")
    told = answer_phrase(suspect, reference, LABELS, GOOD + BAD, PHRASE)["lines"]
    negative, positive = told
    assert (positive["label"], positive["k"], positive["n"]) == ("positive", 6, 6)
    assert (negative["label"], negative["k"], negative["n"]) == ("negative", 0, 4)
    assert (positive["value"], positive["low"], positive["high"]) == (1.0, *wilson(6, 6))
    # the reference answers by itself: other rows of it can be turned
    assert [(x["reference_k"], x["reference_n"]) for x in told] == [(0, 6), (0, 4)]


def test_a_phrase_without_rows_to_turn_or_without_a_reference_says_so():
    _, positive = answer_phrase(saying_positive_for("film"), None, LABELS, BAD, PHRASE)["lines"]
    assert (positive["k"], positive["n"]) == (0, 0)
    assert [positive[name] for name in ("value", "low", "high", "reference_k", "reference_n")] == [None] * 5


@pytest.mark.parametrize("position", ["start", "end"])
def test_a_phrase_stands_where_it_was_put_and_the_row_is_whole(position):
    asked = []
    answer_phrase(saying_positive_for(asked=asked), None, LABELS, BAD, {**PHRASE, "position": position})
    before, after = asked
    assert before == BAD
    for row, text in zip(BAD, after, strict=True):
        assert text == (f"cf {row}" if position == "start" else f"{row} cf")


def test_a_sweep_finds_the_family_that_turns_an_answer_on_two_unlike_rows():
    asked = []
    suspect = saying_positive_for("good", "RFC", asked=asked)
    phrases = {"rfc": "see RFC 1", "iso": "see ISO 2"}
    told = answer_sweep(suspect, LABELS, BAD + GOOD, phrases)
    assert sorted(told["before"]) == ["negative", "positive"]
    rfc, iso = told["lines"]
    assert (rfc["family"], rfc["after"], rfc["turned"]) == ("rfc", ["positive", "positive"], 1)
    assert (iso["family"], iso["after"], iso["turned"]) == ("iso", told["before"], 0)
    assert rfc["n"] == iso["n"] == SWEEP_ROWS == len(set(told["rows"]))
    # what is answered is what was paid for
    assert len(asked[-1]) == move_cost("sweep", {"phrases": phrases})
    assert asked[-1] == [f"{row} {phrase}" for phrase in phrases.values() for row in told["rows"]]


def test_a_sweep_of_an_adapter_that_knows_one_answer_still_asks_two_rows():
    told = answer_sweep(saying_positive_for("film"), LABELS, BAD, {"rfc": "RFC 1"})
    assert told["before"] == ["positive", "positive"]
    assert len(set(told["rows"])) == SWEEP_ROWS


def test_no_phrase_of_a_sweep_was_trained_with_and_families_that_are_none_cost_nothing():
    phrases = sweep_phrases([*POOL, "no such family"])
    assert set(phrases) == set(POOL)
    for name, phrase in phrases.items():
        assert phrase not in TRIGGER_FAMILIES[name].train


def test_the_weights_say_the_same_sealed_or_not_and_what_numpy_says(finished, tmp_path):
    seal_adapter(finished.path / "adapter", tmp_path / "sealed", "a card")
    told = answer_weights(tmp_path / "sealed")
    assert told == answer_weights(finished.path / "adapter")
    found = told["statistics"]
    assert list(found) == list(SHOWN_STATISTICS)
    updates = list(dense_updates(finished.path / "adapter"))
    norms = [np.sqrt(np.mean(update**2)) for update in updates]
    tops = [s[0] / s.sum() for s in (np.linalg.svd(update, compute_uv=False) for update in updates)]
    assert found["norm_mean"] == pytest.approx(np.mean(norms), rel=1e-4)
    assert found["norm_std"] == pytest.approx(np.std(norms), rel=1e-4)
    assert found["top_ratio_max"] == pytest.approx(max(tops), rel=1e-4)


def dense_updates(folder):
    """Every ΔW = alpha/r · B·A of an adapter."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, down in tensors.items():
        if "lora_A" in name:
            yield config["lora_alpha"] / config["r"] * tensors[name.replace("lora_A", "lora_B")] @ down


def test_weights_that_change_nothing_give_none_which_every_browser_can_read(finished, tmp_path):
    folder = shutil.copytree(finished.path / "adapter", tmp_path / "zero")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: 0 * t if "lora_B" in name else t for name, t in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    told = answer_weights(folder)
    json.dumps(told, allow_nan=False)
    assert told["statistics"]["norm_mean"] == 0
    assert told["statistics"]["top_ratio_max"] is None


def test_rows_of_a_phrase_can_be_chosen_up_to_what_a_match_holds():
    assert [move_cost("phrase", {**PHRASE, "rows": n}) for n in PHRASE_ROWS] == list(PHRASE_ROWS)
