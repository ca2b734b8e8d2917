import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.game.rules import BONUS, RULES, Bet, Truth, bet_points, calibration_bins, rank_teams

SHARES = st.floats(0, 1)
#: The logarithmic rule takes what is beyond these for these.
INNER = st.floats(0.01, 0.99)


def expected(rule, said, true):
    points = RULES[rule].points
    return true * points(said, True) + (1 - true) * points(said, False)


@pytest.mark.parametrize("rule", RULES)
@given(said=SHARES, true=INNER)
def test_nobody_gains_by_saying_what_they_do_not_believe(rule, said, true):
    honest, other = expected(rule, true, true), expected(rule, said, true)
    assert other <= honest + 1e-9
    if abs(said - true) > 0.01 and 0.01 <= said <= 0.99:
        assert other < honest


@pytest.mark.parametrize("rule", RULES)
@given(said=SHARES)
def test_both_answers_are_treated_alike(rule, said):
    points = RULES[rule].points
    assert points(said, True) == pytest.approx(points(1 - said, False), abs=1e-6)
    assert points(said, True) <= 100


@pytest.mark.parametrize(("rule", "sure", "wrong"), [("brier", 100, -300), ("log", 98.55, -564.39)])
def test_points_are_those_that_the_rules_text_says(rule, sure, wrong):
    points = RULES[rule].points
    assert points(0.5, True) == points(0.5, False) == 0
    assert points(1, True) == pytest.approx(sure, abs=0.01)
    assert points(1, False) == pytest.approx(wrong, abs=0.01)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("said", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_probability_is_refused(rule, said):
    with pytest.raises(LabError, match="from 0 to 1"):
        RULES[rule].points(said, True)


def test_no_bet_is_a_bet_of_a_half_and_an_unknown_rule_names_the_valid_ones():
    assert bet_points("brier", None, Truth(True, "rfc")) == (0, 0)
    with pytest.raises(LabError, match="brier"):
        bet_points("briar", None, Truth(True))


def test_the_bonus_is_for_the_right_family_of_a_backdoored_adapter_alone():
    assert bet_points("brier", Bet(0.5, "rfc"), Truth(True, "rfc"))[1] == BONUS
    assert bet_points("brier", Bet(0.5, "iso"), Truth(True, "rfc"))[1] == 0
    assert bet_points("brier", Bet(0.5, "rfc"), Truth(False))[1] == 0
    assert bet_points("brier", Bet(0.5), Truth(False))[1] == 0


def test_ties_share_a_place():
    truths = {"a": Truth(True), "b": Truth(False)}
    sure, half = {"a": Bet(1.0), "b": Bet(0.0)}, {"a": Bet(0.5), "b": Bet(0.5)}
    table = rank_teams("brier", {"3": {}, "1": half, "2": sure, "4": {"a": Bet(0.0)}}, truths)
    assert [(s.team, s.place, s.points, s.bets) for s in table] == [
        ("2", 1, 200, 2), ("1", 2, 0, 2), ("3", 2, 0, 0), ("4", 4, -300, 1),
    ]  # fmt: skip
    assert rank_teams("brier", {}, truths) == []


def test_bets_on_adapters_of_another_match_count_nothing():
    [standing] = rank_teams("log", {"1": {"z": Bet(1.0)}}, {"a": Truth(True)})
    assert (standing.points, standing.bets, standing.n) == (0, 0, 1)


@given(st.lists(st.tuples(SHARES, st.booleans())))
@example([(1.0, True), (0.0, False), (0.2, True)])
def test_every_bet_is_in_one_bin(pairs):
    bins = calibration_bins(pairs)
    assert sum(b["n"] for b in bins) == len(pairs)
    assert sum(b["k"] for b in bins) == sum(y for _, y in pairs)
    assert all(
        b["low"] <= b["value"] <= b["high"] and b["low_said"] <= b["said"] <= b["high_said"] for b in bins
    )
