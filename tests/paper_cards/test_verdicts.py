import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lab.paper_cards import VERDICTS, Expected, verdict
from lab.paper_cards.verdicts import reason, short

NAN = math.nan
share = st.floats(-1, 1, allow_nan=False)


@st.composite
def intervals(draw):
    low, value, high = sorted(draw(st.tuples(share, share, share)))
    return value, low, high


@st.composite
def sides(draw):
    one, other = sorted(draw(st.tuples(share, share)))
    assume(one < other)
    kind = draw(st.sampled_from(["above", "below", "between"]))
    return Expected(above=-math.inf if kind == "below" else one, below=math.inf if kind == "above" else other)


def mirrored(expected):
    return Expected(-expected.below, -expected.above, -expected.paper_value, expected.tolerance)


@pytest.mark.parametrize(
    ("number", "expected", "said"),
    [
        ((0.3, 0.2, 0.4), Expected(above=0), "agrees"),
        ((0.3, -0.1, 0.4), Expected(above=0), "cannot say"),
        ((-0.3, -0.4, -0.2), Expected(above=0), "disagrees"),
        ((0.3, 0.0, 0.4), Expected(above=0), "cannot say"),
        ((-0.1, -0.2, 0.0), Expected(above=0), "cannot say"),
        ((0.3, 0.2, 0.4), Expected(below=0.5), "agrees"),
        ((0.3, 0.2, 0.4), Expected(above=0.25, below=0.35), "cannot say"),
        ((0.3, 0.28, 0.32), Expected(above=0.25, below=0.35), "agrees"),
        ((0.3, 0.28, 0.32), Expected(above=0.4, below=0.5), "disagrees"),
        ((0.3, 0.2, 0.4), Expected(above=0, paper_value=0.35, tolerance=0.05), "agrees"),
        ((0.3, 0.2, 0.4), Expected(above=0, paper_value=0.9, tolerance=0.1), "direction only"),
        ((0.3, 0.2, 0.4), Expected(above=0.5, paper_value=0.3, tolerance=0.1), "disagrees"),
        ((0.3, NAN, NAN), Expected(above=0), "cannot say"),
        ((NAN, NAN, NAN), Expected(above=0), "not run here"),
        ((1.0, 1.0, 1.0), Expected(above=0.8), "agrees"),
    ],
)
def test_the_rule_on_made_intervals(number, expected, said):
    assert verdict(*number, expected) == said


@given(intervals(), sides(), share, st.floats(0, 1))
def test_a_mirror_image_of_everything_is_judged_the_same(number, side, theirs, tolerance):
    value, low, high = number
    expected = Expected(side.above, side.below, theirs, tolerance)
    assert verdict(value, low, high, expected) == verdict(-value, -high, -low, mirrored(expected))


@given(intervals(), st.sampled_from([Expected(above=0), Expected(below=0)]))
def test_flipping_the_sign_of_what_was_measured_turns_agreement_into_disagreement(number, expected):
    value, low, high = number
    turned = {"agrees": "disagrees", "disagrees": "agrees", "cannot say": "cannot say"}
    assert verdict(-value, -high, -low, expected) == turned[verdict(value, low, high, expected)]


@given(intervals(), sides(), share, st.floats(0, 1))
def test_a_paper_value_never_changes_the_side(number, side, theirs, tolerance):
    bare = verdict(*number, side)
    told = verdict(*number, Expected(side.above, side.below, theirs, tolerance))
    assert told in (("agrees", "direction only") if bare == "agrees" else (bare,))


@given(intervals(), sides(), share, st.floats(0, 0.2), st.floats(0, 2))
def test_a_wider_interval_never_says_more(number, side, theirs, more, tolerance):
    value, low, high = number
    expected = Expected(side.above, side.below, theirs, tolerance)
    wide = verdict(value, low - more, high + more, expected)
    assert wide in (verdict(value, low, high, expected), "cannot say")


@given(intervals(), sides())
def test_every_verdict_has_its_words(number, side):
    assert verdict(*number, side) in VERDICTS
    assert reason(*number, side)


def test_numbers_are_short():
    assert [short(v) for v in (0.5, -0.05, 1.0, -0.001, -1.0)] == [".50", "−.05", "1.00", ".00", "−1.00"]
