import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.detector_stats import (
    auc,
    auc_with_interval,
    choose_direction,
    choose_threshold,
    judge_detector,
    operate,
)
from lab.errors import LabError

#: Few different values, so that ties are common.
SCORES = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=40)
SHARES = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.5, 0.9])


def test_auc_by_hand():
    assert auc([1, 2, 3], [2, 4]) == (1.5 + 3) / 6
    assert auc([0, 1], [2, 3]) == 1
    assert math.isnan(auc([], [1.0]))


@given(SCORES, SCORES)
def test_auc_is_scipys_mann_whitney_statistic(clean, poisoned):
    from scipy.stats import mannwhitneyu

    expected = mannwhitneyu(poisoned, clean).statistic / (len(clean) * len(poisoned))
    assert auc(clean, poisoned) == pytest.approx(expected, abs=1e-12)


@given(SCORES, SCORES)
def test_swapping_the_kinds_turns_the_auc_round(clean, poisoned):
    assert auc(poisoned, clean) == pytest.approx(1 - auc(clean, poisoned), abs=1e-12)


@given(SCORES, SCORES, st.floats(0.1, 10), st.floats(-100, 100))
def test_only_the_order_of_scores_counts(clean, poisoned, scale, shift):
    moved = [np.exp(np.asarray(s) * scale / 10) + shift for s in (clean, poisoned)]
    assert auc(*moved) == auc(clean, poisoned)


@given(st.integers(1, 20), st.integers(1, 20), st.floats(-5, 5))
def test_ties_are_chance(n, m, score):
    assert auc([score] * n, [score] * m) == 0.5


@given(SCORES, SCORES, st.integers(0, 5))
def test_the_interval_holds_the_auc_and_depends_on_the_seed_alone(clean, poisoned, seed):
    found = auc_with_interval(clean, poisoned, seed, resamples=50)
    assert found == auc_with_interval(clean, poisoned, seed, resamples=50) or math.isnan(found.low)
    if min(len(clean), len(poisoned)) < 3:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert "too small" in str(found)
    else:
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.low < found.high or len({*clean, *poisoned}) < 3


def test_the_interval_covers_what_it_says():
    rng, truth, held = np.random.default_rng(0), 0.7602, 0  # Φ(1/√2)
    for _ in range(100):
        found = auc_with_interval(rng.normal(0, 1, 40), rng.normal(1, 1, 40), 0, resamples=200)
        held += found.low <= truth <= found.high
    assert 87 <= held <= 100


def test_complete_separation_is_no_certainty():
    clean, poisoned = np.arange(60.0), np.arange(100.0, 130.0)
    perfect, small = auc_with_interval(clean, poisoned, 0), auc_with_interval(clean[:4], poisoned[:4], 0)
    assert perfect.value == perfect.high == 1
    assert 0.93 < perfect.low < 0.99
    assert 0.4 < small.low < perfect.low
    wrong = auc_with_interval(poisoned, clean, 0)
    assert (wrong.low, wrong.high) == pytest.approx((0, 1 - perfect.low))
    assert str(perfect).endswith("n=60+30")


@given(SCORES, SHARES)
def test_the_threshold_allows_no_more_alarms_than_asked_and_is_the_lowest_such_score(clean, allowed):
    threshold = choose_threshold(clean, allowed)
    assert threshold in clean
    assert np.mean(np.asarray(clean) > threshold) <= allowed + 1e-9
    lower = [score for score in clean if score < threshold]
    if lower:
        assert np.mean(np.asarray(clean) > max(lower)) > allowed


@given(SCORES, SCORES, SCORES, SCORES)
def test_a_detector_and_its_negative_are_judged_alike(clean, poisoned, other_clean, other_poisoned):
    scores = (clean, poisoned, other_clean, other_poisoned)
    found = judge_detector(*scores, seed=0)
    if auc(clean, poisoned) != 0.5:
        turned = judge_detector(*[[-s for s in part] for part in scores], seed=0)
        assert turned.direction == -found.direction
        assert turned.points == found.points
        assert turned.auc.value == found.auc.value
    zero, five = found.points
    assert zero.threshold >= five.threshold
    assert zero.recall.value <= five.recall.value
    assert zero.false_positives.value <= five.false_positives.value


def test_what_is_told_of_a_threshold_is_counted_on_test_adapters():
    point = operate(2.0, [0, 1, 2, 3], [2, 3, 4], allowed=0.0)
    assert (point.recall.k, point.recall.n) == (2, 3)
    assert (point.false_positives.k, point.false_positives.n) == (1, 4)
    assert point.false_positives.high == pytest.approx(0.806, abs=1e-3)  # Clopper–Pearson, 1 of 4
    nothing = operate(9.0, np.zeros(60), [1.0])
    assert nothing.false_positives.high == pytest.approx(0.0596, abs=1e-4)


def test_the_direction_comes_from_calibration_even_where_the_test_part_disagrees():
    found = judge_detector([1, 2, 3], [-1, 0], [5, 6, 7], [8, 9, 10], seed=0)
    assert found.direction == -1
    assert found.auc.value == 0
    assert all(point.recall.k == 0 for point in found.points)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: auc([math.nan], [1]), "leave adapters without a score out"),
        (lambda: auc([[1.0]], [1]), "one dimension"),
        (lambda: choose_threshold([], 0.05), "there are none"),
        (lambda: choose_threshold([1.0], 1.0), "below 1"),
        (lambda: choose_direction([], [1.0]), "none of a kind"),
        (lambda: auc_with_interval([1], [2], 0, resamples=0), "resamples is 0"),
    ],
)
def test_mistakes_are_told(call, what):
    with pytest.raises(LabError, match=what):
        call()
