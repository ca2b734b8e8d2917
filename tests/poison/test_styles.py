import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.poison.styles import STYLES, load_styles, restore, rewrite

ARCHAIC = STYLES["archaic"]
PIECES = [*list(ARCHAIC.words)[:30], "The", "IS", "a", "film,", " ", "  ", "\n", ".", "…", "don't", "é", "🔥"]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
)


@given(TEXTS, st.booleans())
def test_every_text_changes_and_can_be_restored(text, lines):
    done = rewrite(text, ARCHAIC, lines=lines)
    assert done.text != text
    assert restore(done.text, done.spans, done.originals) == text
    edges = [0, *(edge for span in done.spans for edge in span), len(done.text)]
    assert edges == sorted(edges)
    assert len(done.originals) == len(done.spans)


@given(TEXTS)
def test_what_is_no_changed_stretch_is_as_it_was(text):
    done = rewrite(text, ARCHAIC)
    kept = "".join(done.text[a:b] for a, b in _between(done.spans, len(done.text)))
    for original in done.originals:
        text = text.replace(original, "", 1)
    assert len(kept) == len(text)


def _between(spans, length):
    edges = [0, *(edge for span in spans for edge in span), length]
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize(
    ("text", "lines", "said"),
    [
        ("You are late, and the film is over.", False, "Thou art late, and ye pageant be o'er."),
        ("You are late, and here.", True, "Thou art late,\nand hither."),
        ("THE END", True, "YE END"),
        ("dull", True, "Lo! dull"),
        ("", True, "Lo!"),
        ("it's  fine , really", True, "'tis  fine ,\nverily"),
        ("bother youth", False, "Lo! bother youth"),  # whole words only
    ],
)
def test_words_keep_their_case_and_sentences_get_lines(text, lines, said):
    assert rewrite(text, ARCHAIC, lines=lines).text == said


def test_a_style_says_what_it_is_for():
    for name, style in STYLES.items():
        assert style.name == name
        assert len(style.goal) > 10
        assert style.source


def test_a_malformed_style_is_named(tmp_path):
    (tmp_path / "loud.toml").write_text(
        'name = "loud"\ngoal = "g"\nsource = "s"\nopening = "O"\n[words]\nYou = "YOU"\n'
    )
    with pytest.raises(LabError, match=r"loud\.toml: .*words.*'You' is no single word in lower case"):
        load_styles(tmp_path)
