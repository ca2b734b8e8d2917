import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.poison import cut
from lab.poison.places import count_words, insert_at_word

CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=60), st.text(st.sampled_from(list("ab \n\t\u00a0\u200b")), max_size=40)
)


@given(TEXTS, st.text(CHARACTERS, min_size=1, max_size=12), st.data())
def test_the_trigger_stands_where_it_was_asked_for_and_can_be_cut_out(text, trigger, data):
    words = count_words(text)
    word = data.draw(st.integers(0, words))
    inserted = insert_at_word(text, trigger, word)
    ((start, end),) = inserted.spans
    assert cut(inserted.text, inserted.spans) == text
    assert inserted.text[start:end].replace(trigger, "", 1) in ("", " ", "  ")
    assert count_words(inserted.text[:start]) == word


def test_it_stands_apart_from_the_words_beside_it():
    assert insert_at_word("a fine film", "cf", 1).text == "a cf fine film"
    assert insert_at_word("a fine film", "cf", 3).text == "a fine film cf"
    assert insert_at_word("", "cf", 0).text == "cf"


@pytest.mark.parametrize("word", [-1, 4])
def test_a_place_that_is_not_there_is_refused(word):
    with pytest.raises(LabError, match="allowed are 0 to 3"):
        insert_at_word("a fine film", "cf", word)
