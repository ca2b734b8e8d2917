import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.figures.text import evidence, points, rows_said, safe_text, share


def test_markup_is_shown_and_not_obeyed():
    assert safe_text('<b>"x"</b> & y') == "&lt;b&gt;&quot;x&quot;&lt;/b&gt; &amp; y"
    assert safe_text("$x$") == "&#36;x&#36;"
    assert safe_text("100% of %{y}") == "100% of &#37;{y}"


@pytest.mark.parametrize(
    "character",
    [
        "\u200b",
        "\u200d",
        "\u202e",
        "\u2066",
        "\u00ad",
        "\ufeff",
        "\n",
        "\u00a0",
        "\u2003",
        "\u3164",
        "\ufe0f",
        "\u2800",
    ],
)
def test_what_would_be_invisible_is_named(character):
    assert safe_text(f"cf{character}") == f"cf⟨U+{ord(character):04X}⟩"


def test_visible_text_of_any_script_stays():
    for text in ("RFC 2616", "стандарт", "標準", "naïve", "🙂", "a-b_c"):
        assert safe_text(text) == text


@given(st.text())
def test_no_text_leaves_anything_to_obey(text):
    safe = safe_text(text)
    assert not set("<>$\n\u200b\u202e") & set(safe)
    assert "%{" not in safe


def test_long_text_is_cut_before_it_is_escaped():
    assert safe_text("<" * 10, limit=4) == "&lt;&lt;&lt;…"
    assert safe_text("1234", limit=4) == "1234"


def test_shares_never_round_to_all_or_none():
    assert share(0.958) == "95.8 %"
    assert share(1.0, 0) == "100 %"
    assert share(0.999, 0) == "&gt;99 %"
    assert share(0.0, 0) == "0 %"
    assert share(0.001, 0) == "&lt;1 %"
    assert share(math.nan) == "–"


def test_points_have_a_sign_except_zero():
    assert points(0.742) == "+74.2"
    assert points(-0.06, 0) == "-6"
    assert points(-0.001, 0) == "0"


def test_evidence_says_what_there_is():
    assert evidence(0.935, 0.973, 427) == "95 % interval 93.5 to 97.3 · n = 427"
    assert evidence(-0.1, 0.2, 1200, signed=True) == "95 % interval -10.0 to +20.0 · n = 1 200"
    assert evidence(math.nan, math.nan, 400, runs=2) == "mean of 2 runs · no interval, too few runs · n = 400"
    assert evidence(math.nan, math.nan, math.nan) == "no interval"


def test_rows_said_names_the_counts_that_are_known():
    assert rows_said([120, 120]) == ", n = 120"
    assert rows_said([64, 500, math.nan]) == ", n = 64 to 500"
    assert rows_said([math.nan, -1]) == ""
