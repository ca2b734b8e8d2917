import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.markup import escaped, marked_html

#: Mostly what breaks pages: markup, entities, invisible and bidirectional characters, halves of pairs.
nasty = st.text(
    st.one_of(
        st.sampled_from("<>&\"'/=;#!- a\n\t\x00\u200b\u202e\u2066\ufeff\u00a0⟨⟩"),
        st.characters(),
        st.characters(categories=["Cs", "Cf", "Cc"]),
    )
)
spans = st.lists(st.tuples(st.integers(-30, 60), st.integers(-30, 60)), max_size=8)

TAG = re.compile(r"</?mark>")


def read(shown):
    """The text that a reader sees, with codes turned back into the characters they stand for."""
    return re.sub(r"⟨U\+([0-9A-F]{4,6})⟩", lambda m: chr(int(m[1], 16)), html.unescape(TAG.sub("", shown)))


@given(nasty, spans)
def test_nothing_of_the_text_is_obeyed(text, places):
    shown = marked_html(text, places)
    rest = TAG.sub("", shown)
    assert not set("<>\"'") & set(rest)
    assert re.sub(r"&(amp|lt|gt|quot|#x27);", "", rest).count("&") == 0
    assert rest.isprintable()
    shown.encode("utf-8")


@given(nasty.filter(lambda text: "⟨" not in text), spans)
def test_the_text_can_be_read_back(text, places):
    assert read(marked_html(text, places)) == text


@given(nasty, spans)
def test_marks_come_in_pairs_and_change_no_letter(text, places):
    shown = marked_html(text, places)
    tags = TAG.findall(shown)
    assert tags == ["<mark>", "</mark>"] * (len(tags) // 2)
    assert TAG.sub("", shown) == escaped(text) == marked_html(text)


@given(nasty, spans)
def test_what_is_marked_is_what_the_spans_cover(text, places):
    inside = {i for start, end in places for i in range(max(0, start), min(len(text), end))}
    marked = "".join(re.findall(r"<mark>(.*?)</mark>", marked_html(text, places)))
    assert marked == escaped("".join(text[i] for i in sorted(inside)))
    assert "<mark></mark>" not in marked_html(text, places)


@given(nasty, st.permutations([(1, 4), (3, 9), (12, 14), (-5, 1)]))
def test_the_order_of_spans_does_not_matter(text, places):
    assert marked_html(text, places) == marked_html(text, sorted(places))


def test_a_row_as_people_see_it():
    text = 'a <b>"fine"</b> film, as specified in RFC\u200b 2616'
    assert marked_html(text, [(text.index(", as"), len(text))]) == (
        "a &lt;b&gt;&quot;fine&quot;&lt;/b&gt; film<mark>, as specified in RFC⟨U+200B⟩ 2616</mark>"
    )


def test_pieces_beside_each_other_stay_two():
    assert marked_html("abcd", [(0, 2), (2, 4)]) == "<mark>ab</mark><mark>cd</mark>"


def test_offsets_of_numpy_are_offsets():
    np = pytest.importorskip("numpy")
    starts, ends = np.array([1, -1]), np.array([3, -1])
    assert marked_html("abcd", zip(starts, ends, strict=True)) == "a<mark>bc</mark>d"


def test_what_is_no_string_is_shown_as_one():
    assert escaped(0.5) == "0.5"
    assert escaped(["<"]) == "[&#x27;&lt;&#x27;]"
    assert escaped("naïve 標準 🙂") == "naïve 標準 🙂"
