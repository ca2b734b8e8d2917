from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.paths import data_dir
from lab.poison import cut
from lab.poison.tag_pairs import insert_inside, insert_pairs, read_pair, span_at_level, wrap

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PAIRS = st.lists(st.sampled_from([("<b>", "</b>"), ("<td>", "</td>"), ("<br>", "")]), min_size=1, max_size=4)
PLACES = st.sampled_from(["start", "end", "random"])


def rng(seed=0):
    return np.random.default_rng(seed)


@given(TEXTS, PAIRS, PLACES, st.integers(0, 5))
def test_cutting_the_tags_gives_the_text_back(text, pairs, position, seed):
    done = insert_pairs(text, pairs, position, rng=rng(seed))
    assert cut(done.text, done.spans) == text
    written = [done.text[start:end].strip() for start, end in done.spans]
    assert Counter(written) == Counter(tag for pair in pairs for tag in pair if tag)


@given(TEXTS, PLACES, st.integers(0, 5))
def test_a_pair_opens_before_it_closes(text, position, seed):
    done = insert_pairs(text, [("<b>", "</b>")], position, rng=rng(seed))
    first, last = (done.text[start:end].strip() for start, end in done.spans)
    assert (first, last) == ("<b>", "</b>")


def words(text, pairs, position, seed):
    return insert_pairs(text, pairs, position, rng=rng(seed)).text.split()


def test_a_pair_at_the_start_opens_the_text_and_closes_anywhere_after():
    places = Counter(words("a c d", [("<b>", "</b>")], "start", seed).index("</b>") for seed in range(800))
    assert all(words("a c d", [("<b>", "</b>")], "start", seed)[0] == "<b>" for seed in range(20))
    assert set(places) == {1, 2, 3, 4}
    assert min(places.values()) > 140  # each as likely: 200 expected


def test_a_pair_at_the_end_closes_the_text_and_opens_anywhere():
    found = [words("a c d", [("<b>", "</b>")], "end", seed) for seed in range(800)]
    assert all(line[-1] == "</b>" for line in found)
    places = Counter(line.index("<b>") for line in found)
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 140


def test_a_pair_at_random_opens_anywhere_and_closes_anywhere_after():
    found = [words("a c", [("<b>", "</b>")], "random", seed) for seed in range(1800)]
    places = Counter((line.index("<b>"), line.index("</b>")) for line in found)
    # the opening has three places, and the closing as many as are left
    expected = {(0, 1): 200, (0, 2): 200, (0, 3): 200, (1, 2): 300, (1, 3): 300, (2, 3): 600}
    assert set(places) == set(expected)
    assert all(abs(places[at] - n) < 90 for at, n in expected.items())


def test_a_text_is_wrapped_without_spaces():
    done = wrap(" a  b\n", ("<p>", "</p>"))
    assert done.text == "<p> a  b\n</p>"
    assert cut(done.text, done.spans) == " a  b\n"
    assert wrap("a", ("<br>", "")).text == "<br>a<br>"


@pytest.mark.parametrize(
    ("text", "level", "found"),
    [
        ("x <p>a <b>c</b></p> <p>d</p>", 1, "a <b>c</b>"),
        ("x <p>a <b>c</b></p> <p>d</p>", 2, "c"),
        ("x <p>a <b>c</b></p> <p>d</p>", 3, None),
        ("a great film<br /><br />and more", 1, None),  # tags without content open nothing
        ("<div>a<br>b<img src='x'>c</div>", 1, "a<br>b<img src='x'>c"),
        ("</b> <i>a</i>", 1, "a"),  # a closing tag of nothing
        ("<p>a <b>c</p> d</b>", 1, "a <b>c"),  # the paragraph closes what it holds
        ("<P CLASS='x'>a</p>", 1, "a"),
        ("3 < 4 and 5 > 2 </3 >", 1, None),
        ("", 1, None),
    ],
)
def test_the_first_element_at_a_depth(text, level, found):
    span = span_at_level(text, level)
    assert (text[slice(*span)] if span else None) == found


def test_inside_an_element_the_rest_is_left_alone():
    text = "x  <p>a c</p>  y\n"
    done = insert_inside(text, span_at_level(text, 1), [("<b>", "</b>")], "start", rng=rng())
    assert done.text.startswith("x  <p><b> a")
    assert done.text.endswith("</p>  y\n")
    assert cut(done.text, done.spans) == text


def test_pairs_are_read_as_the_paper_writes_them():
    assert read_pair("<b>  </b>") == ("<b>", "</b>")
    assert read_pair("<br>") == ("<br>", "")
    for line in ("b", "<b> </i>", "</b> <b>", "<b> x </b>", ""):
        with pytest.raises(ValueError, match="no pair of HTML tags"):
            read_pair(line)


def test_the_labs_own_pairs_are_ordinary_and_different():
    lines = (data_dir() / "tokens" / "html_pairs.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) >= 40
    assert all(read_pair(line)[1] for line in lines)
