import itertools
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.poison import POSITIONS, cut, insert, insert_pieces
from lab.poison.insertion import compose

# Surrogates are no text: they cannot be written to a file.
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=80),
    st.text(st.sampled_from(list("ab .!?\n\t\r\u00a0\u200b。…\"'é🔥")), max_size=60),
)
TRIGGERS = st.text(CHARACTERS, min_size=1, max_size=20)
PLACES = st.sampled_from(sorted(POSITIONS))


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(deadline=None)  # other processes may hold the cores
@given(TEXTS, TRIGGERS, PLACES, st.integers(1, 4), st.integers(0, 5))
@example("", "cf", "end", 1, 0)
@example(" \n\t ", "cf", "random", 1, 0)
@example("a\r\nb", "\n", "sentences", 1, 0)
def test_cutting_the_spans_gives_the_text_back(text, trigger, position, every, seed):
    inserted = insert(text, trigger, position, every=every, rng=rng(seed))
    assert cut(inserted.text, inserted.spans) == text
    assert inserted.spans
    for start, end in inserted.spans:
        assert trigger in inserted.text[start:end]
        assert inserted.text[start:end].replace(trigger, "", 1) in ("", " ", "  ")


@settings(deadline=None)  # other processes may hold the cores
@given(TEXTS, st.lists(TRIGGERS, min_size=1, max_size=6), PLACES, st.integers(0, 5))
def test_many_pieces_have_sorted_spans_inside_the_text_and_can_be_cut(text, pieces, position, seed):
    inserted = insert_pieces(text, pieces, position, rng=rng(seed))
    edges = [0, *(edge for span in inserted.spans for edge in span), len(inserted.text)]
    assert edges == sorted(edges)
    assert all(start < end for start, end in inserted.spans)
    assert cut(inserted.text, inserted.spans) == text
    if position != "sentences":
        assert len(inserted.spans) == len(pieces)


@settings(deadline=None)  # other processes may hold the cores
@given(TEXTS, st.lists(TRIGGERS, min_size=1, max_size=6), PLACES, st.integers(0, 5))
def test_white_space_stands_between_a_piece_and_its_neighbours(text, pieces, position, seed):
    inserted = insert_pieces(text, pieces, position, rng=rng(seed))
    for start, end in inserted.spans:
        for left, right in ((start - 1, start), (end - 1, end)):
            if left >= 0 and right < len(inserted.text):
                assert inserted.text[left].isspace() or inserted.text[right].isspace()


@settings(deadline=None)  # other processes may hold the cores
@given(TEXTS, TRIGGERS, st.integers(0, 5))
def test_a_random_place_depends_on_the_text_and_the_generator_not_on_the_trigger(text, trigger, seed):
    one, other = (insert(text, t, "random", rng=rng(seed)) for t in (trigger, "cf"))
    assert one.spans[0][0] == other.spans[0][0]


@settings(deadline=None)  # other processes may hold the cores
@given(TEXTS.filter(lambda text: "§" not in text))
def test_words_are_never_split(text):
    for seed in range(4):
        inserted = insert(text, "§", "random", rng=rng(seed))
        assert [word for word in inserted.text.split() if word != "§"] == text.split()


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("a good film", "start", "cf a good film"),
        ("a good film", "end", "a good film cf"),
        ("\n a good film", "start", "cf\n a good film"),
        ("a good film\n", "end", "a good film\ncf"),
        ("", "start", "cf"),
        ("", "sentences", "cf"),
        ("  ", "end", "  cf"),
    ],
)
def test_where_start_and_end_are(text, position, expected):
    assert insert(text, "cf", position, rng=rng()).text == expected


def test_random_reaches_every_gap_between_words_with_equal_chance():
    places = [insert("one two\nthree", "cf", "random", rng=rng(seed)).text for seed in range(400)]
    expected = {"cf one two\nthree", "one cf two\nthree", "one two\ncf three", "one two\nthree cf"}
    assert set(places) == expected
    assert all(60 < places.count(text) < 140 for text in expected)


@pytest.mark.parametrize(
    ("text", "every", "expected"),
    [
        ("One. Two! Three? Four.", 2, "One. Two! cf Three? Four. cf"),
        ("One. Two! Three? Four.", 3, "One. Two! Three? cf Four."),
        ("One. Two.", 1, "One. cf Two. cf"),
        ("One.\n\nTwo.", 1, "One. cf\n\nTwo. cf"),
        ("Too short.", 2, "Too short. cf"),
        ("no stop at all", 1, "no stop at all cf"),
        ("One. then no stop \n", 2, "One. then no stop cf \n"),
        ("spaced . . . dots . end", 1, "spaced . . . cf dots . cf end cf"),
        ('He said "no." Then left.', 1, 'He said "no." cf Then left. cf'),
        ("version 3.2 holds. Yes.", 1, "version 3.2 holds. cf Yes. cf"),
        ("好。很好。", 1, "好。 cf 很好。 cf"),
    ],
)
def test_every_nth_sentence_is_followed_by_the_trigger(text, every, expected):
    inserted = insert(text, "cf", "sentences", every=every, rng=rng())
    assert inserted.text == expected
    assert cut(inserted.text, inserted.spans) == text


@pytest.mark.parametrize("text", ["." * 50_000 + "x", ". " * 25_000 + ".x", '"' * 50_000, "a" * 50_000])
def test_hostile_texts_take_no_longer_than_others(text):
    began = time.perf_counter()
    insert(text, "cf", "sentences", rng=rng())
    assert time.perf_counter() - began < 2


def test_pieces_at_one_end_keep_their_order():
    assert insert_pieces("x", ["a", "b"], "start", rng=rng()).text == "a b x"
    assert insert_pieces("x", ["a", "b"], "end", rng=rng()).text == "x a b"
    assert insert_pieces("", ["a", "b"], "random", rng=rng()).text == "a b"


def test_an_unknown_position_lists_the_valid_ones():
    with pytest.raises(LabError, match=r"Unknown position 'middle'.*end, random, sentences, start"):
        insert("a", "b", "middle", rng=rng())


def test_empty_triggers_and_no_sentences_are_refused():
    with pytest.raises(LabError, match="A trigger is empty"):
        insert("a", "", "end", rng=rng())
    with pytest.raises(LabError, match=r"every = 0: .* at least 1"):
        insert("a", "b", "sentences", every=0, rng=rng())


@pytest.mark.parametrize("spans", [[(0, 2), (1, 3)], [(2, 3), (0, 1)], [(0, 9)], [(2, 1)]])
def test_cutting_refuses_spans_that_cannot_be(spans):
    with pytest.raises(ValueError, match="overlaps another one or lies outside"):
        cut("abc", spans)


@given(TEXTS, st.lists(st.tuples(st.lists(TRIGGERS, min_size=1, max_size=3), PLACES), max_size=4))
def test_insertions_one_after_the_other_are_cut_at_once(text, steps):
    done = insert_pieces(text, [], "end", rng=rng())
    for seed, (pieces, position) in enumerate(steps):
        done = compose(done, insert_pieces(done.text, pieces, position, rng=rng(seed)))
    assert cut(done.text, done.spans) == text
    edges = [0, *(edge for span in done.spans for edge in span), len(done.text)]
    assert edges == sorted(edges)
    # after sentences one piece goes in several times
    if all(position != "sentences" for _, position in steps):
        assert len(done.spans) <= sum(len(pieces) for pieces, _ in steps)


def test_a_later_piece_that_falls_into_an_earlier_one_widens_it():
    first = insert("a b", "New York", "end", rng=rng())
    inside = next(
        later
        for later in (insert(first.text, "cf", "random", rng=rng(seed)) for seed in itertools.count())
        if "New cf York" in later.text
    )
    done = compose(first, inside)
    assert [done.text[start:end] for start, end in done.spans] == [" New cf York"]
    assert cut(done.text, done.spans) == "a b"


def test_pieces_at_random_are_placed_one_after_the_other():
    """As arXiv 2506.11402's toolkit does: all orders of words and pieces are as likely, not all places."""
    seen = Counter(
        tuple(insert_pieces("w", ["x", "x"], "random", rng=rng(seed)).text.split()) for seed in range(1500)
    )
    # all at once would give 1/4, 1/2, 1/4
    assert set(seen) == {("x", "x", "w"), ("x", "w", "x"), ("w", "x", "x")}
    assert all(420 < n < 580 for n in seen.values())
