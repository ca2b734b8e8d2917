import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.stats import (
    Rate,
    benjamini_hochberg,
    bootstrap_mean,
    clopper_pearson,
    paired_difference,
    rank_correlation,
    rate,
    spearman_trend,
    wilson,
)

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.floats(0.5, 0.999)


# ---------------------------------------------------------------------------------------------- one share


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), 857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(k, n, low, high):
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends_has_width_and_stays_inside():
    z2 = scipy.stats.norm.ppf(0.975) ** 2
    assert wilson(0, 10) == pytest.approx((0, z2 / (10 + z2)))
    assert wilson(10, 10) == pytest.approx((10 / (10 + z2), 1))


@given(counts, levels)
def test_wilson_and_clopper_pearson_agree_with_scipy(count, level):
    k, n = count
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = scipy.stats.binomtest(k, n).proportion_ci(level, method=method)
        assert ours(k, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(counts, levels)
def test_intervals_hold_the_value_and_stay_in_zero_to_one(count, level):
    k, n = count
    for interval in (wilson, clopper_pearson):
        low, high = interval(k, n, level)
        assert 0 <= low <= k / n <= high <= 1
        assert high > low


@given(counts, levels)
def test_intervals_are_symmetric_under_counting_the_others(count, level):
    k, n = count
    for interval in (wilson, clopper_pearson):
        low, high = interval(k, n, level)
        assert interval(n - k, n, level) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(counts, st.integers(2, 20))
def test_more_rows_at_the_same_share_narrow_the_interval(count, times):
    k, n = count
    for interval in (wilson, clopper_pearson):
        (low, high), (lower, higher) = interval(k * times, n * times), interval(k, n)
        assert high - low < higher - lower


@given(counts)
def test_more_confidence_widens_the_interval(count):
    (low, high), (lower, higher) = wilson(*count, 0.8), wilson(*count, 0.99)
    assert lower <= low
    assert high <= higher


def test_one_sided_bounds_for_none_of_n():
    assert clopper_pearson(0, 4, side="upper") == pytest.approx((0, 1 - 0.05 ** (1 / 4)))
    assert clopper_pearson(0, 4, side="upper")[1] == pytest.approx(0.527, abs=1e-3)
    assert clopper_pearson(0, 60, side="upper")[1] < 0.05
    assert clopper_pearson(4, 4, side="lower") == pytest.approx((0.05 ** (1 / 4), 1))


@given(counts)
def test_one_sided_bound_lies_inside_the_two_sided_interval(count):
    low, high = clopper_pearson(*count)
    assert clopper_pearson(*count, side="upper")[0] == 0
    assert clopper_pearson(*count, side="upper")[1] <= high
    assert clopper_pearson(*count, side="lower")[0] >= low


def test_a_rate_says_its_interval_and_its_n():
    assert str(rate(409, 427)) == ".958 [.93, .97] n=427"
    assert str(rate(0, 10)) == ".000 [.00, .28] n=10"
    assert str(rate(10, 10)) == "1.000 [.72, 1.00] n=10"
    assert rate(3, 4) == Rate(3, 4, 0.75, *wilson(3, 4))


def test_no_rows_give_no_rate_and_no_interval():
    none = rate(0, 0)
    assert all(math.isnan(number) for number in (none.value, none.low, none.high))
    assert "n=0" in str(none)
    assert all(math.isnan(end) for end in (*wilson(0, 0), *clopper_pearson(0, 0)))


@pytest.mark.parametrize(("k", "n"), [(5, 4), (-1, 4), (0, -1), (1.5, 4), (math.nan, 4)])
def test_impossible_counts_are_refused_with_their_names(k, n):
    for function in (rate, wilson, clopper_pearson):
        with pytest.raises(LabError, match=r"[kn] is"):
            function(k, n)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, math.nan])
def test_confidence_outside_zero_to_one_is_refused(confidence):
    with pytest.raises(LabError, match="confidence"):
        wilson(1, 2, confidence)


def test_an_unknown_side_is_refused():
    with pytest.raises(LabError, match="two-sided"):
        clopper_pearson(1, 2, side="left")


def test_counts_from_tables_may_be_numpy_or_float():
    assert rate(np.int64(3), np.float64(4.0)) == rate(3, 4)


# ---------------------------------------------------------------------------------------- mean over seeds


def test_bootstrap_mean_holds_the_mean_and_stays_within_the_values():
    mean = bootstrap_mean([0.90, 0.95, 0.99, 0.97], seed=0)
    assert mean.value == pytest.approx(0.9525)
    assert 0.90 <= mean.low < mean.value < mean.high <= 0.99


def test_bootstrap_mean_of_many_values_is_close_to_the_normal_interval():
    values = np.random.default_rng(3).normal(0, 1, 400)
    mean = bootstrap_mean(values, seed=0)
    half = 1.96 * values.std() / 20
    assert (mean.low, mean.high) == pytest.approx((mean.value - half, mean.value + half), abs=0.01)


def test_bootstrap_mean_is_a_function_of_values_and_seed():
    values = np.random.default_rng(0).random(12)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.7]])
def test_fewer_than_three_seeds_get_no_interval(values):
    mean = bootstrap_mean(values, seed=0)
    assert mean.n == len(values)
    assert math.isnan(mean.low)
    assert math.isnan(mean.high)
    assert f"n={len(values)}" in str(mean)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=8))
def test_bootstrap_interval_holds_the_mean(values):
    mean = bootstrap_mean(values, seed=0, resamples=200)
    assert mean.low <= mean.value <= mean.high
    assert mean.low >= min(values) - 1e-12
    assert mean.high <= max(values) + 1e-12


def test_a_failed_seed_is_not_averaged_silently():
    with pytest.raises(LabError, match="nan"):
        bootstrap_mean([0.1, math.nan, 0.2], seed=0)


# --------------------------------------------------------------------------------------- paired difference


def _pairs(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


tables = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda cells: sum(cells) > 0)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), 2635, table III, method 10
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((1, 97, 1, 1), 0.8736, 0.9850),
        ((0, 30, 0, 0), 0.8395, 1.0000),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((30, 0, 0, 24), -0.0358, 0.0358),
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8
        ((59, 6, 16, 80), -0.1186, -0.0046),
    ],
)
def test_paired_difference_gives_the_published_intervals(cells, low, high):
    difference = paired_difference(*_pairs(*cells))
    assert difference.value == pytest.approx((cells[1] - cells[2]) / sum(cells))
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=1e-4)
    assert (difference.only_a, difference.only_b) == (cells[1], cells[2])


@given(tables, levels)
def test_paired_interval_holds_the_value_and_stays_in_minus_one_to_one(cells, level):
    difference = paired_difference(*_pairs(*cells), level)
    assert -1 <= difference.low <= difference.value <= difference.high <= 1


@given(tables)
def test_swapping_the_conditions_turns_the_sign(cells):
    a, b = _pairs(*cells)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert other.value == -one.value
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(cells, random):
    a, b = _pairs(*cells)
    order = list(range(len(a)))
    random.shuffle(order)
    assert paired_difference([a[i] for i in order], [b[i] for i in order]) == paired_difference(a, b)


def test_pairing_narrows_the_interval_where_rows_agree():
    agreeing, crossing = (
        paired_difference(*_pairs(40, 10, 0, 50)),
        paired_difference(*_pairs(20, 30, 20, 30)),
    )
    assert agreeing.value == crossing.value
    assert agreeing.high - agreeing.low < crossing.high - crossing.low


def test_paired_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        b = rng.random(120) < 0.2
        a = b | (rng.random(120) < 0.5)  # true difference .8 * .5
        difference = paired_difference(a, b)
        held += difference.low <= 0.4 <= difference.high
    assert 0.93 <= held / 1000 <= 0.98


def test_a_difference_says_its_sign_and_its_n():
    assert str(paired_difference(*_pairs(36, 12, 2, 0))) == "+.200 [+.06, +.34] n=50"
    assert "n=0" in str(paired_difference([], []))


def test_zeros_and_ones_count_as_flags_and_other_things_do_not():
    assert paired_difference(np.array([1, 0, 1]), [0, 0, 1]).value == pytest.approx(1 / 3)
    with pytest.raises(LabError, match="true and false"):
        paired_difference([0.5, 1], [0, 1])
    with pytest.raises(LabError, match="2 rows and b has 1"):
        paired_difference([True, False], [True])


# --------------------------------------------------------------------------------------- trends, many tests


def test_trend_agrees_with_scipy_and_knows_its_direction():
    rng = np.random.default_rng(0)
    x = np.repeat([1, 2, 4, 8], 5)
    y = x + rng.normal(0, 3, 20)
    trend = spearman_trend(x, y, permutations=5000, seed=0)
    theirs = scipy.stats.spearmanr(x, y)
    assert trend.rho == pytest.approx(theirs.statistic)
    assert trend.p == pytest.approx(theirs.pvalue, abs=0.01)
    assert spearman_trend(x, -y).rho == pytest.approx(-trend.rho)


def test_a_perfect_order_of_few_points_is_not_significant():
    trend = spearman_trend([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])
    assert trend.rho == 1
    assert trend.p == pytest.approx(2 / 24, abs=0.02)


def test_trend_p_is_never_zero_and_repeats_with_the_seed():
    x = np.arange(30)
    trend = spearman_trend(x, x, permutations=99)
    assert trend.p == pytest.approx(1 / 100)
    assert trend == spearman_trend(x, x, permutations=99)
    assert str(spearman_trend(x, x)) == "rho +1.00, p<.001, n=30"


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_too_few_or_constant_points_have_no_trend(x, y):
    trend = spearman_trend(x, y)
    assert math.isnan(trend.rho)
    assert math.isnan(trend.p)
    assert "no trend" in str(trend)


def test_a_trend_needs_pairs():
    with pytest.raises(LabError, match="pairs"):
        spearman_trend([1, 2, 3], [1, 2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_agrees_with_scipy(pvalues):
    adjusted = benjamini_hochberg(pvalues)
    assert adjusted == pytest.approx(scipy.stats.false_discovery_control(pvalues))
    assert (adjusted >= np.array(pvalues) - 1e-12).all()


def test_benjamini_hochberg_leaves_untested_values_out():
    adjusted = benjamini_hochberg([0.01, math.nan, 0.02])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])
    assert benjamini_hochberg([]).shape == (0,)


def test_a_p_value_outside_zero_to_one_is_refused():
    with pytest.raises(LabError, match=r"1\.2"):
        benjamini_hochberg([0.1, 1.2])


def test_rank_correlation_is_spearmans_with_an_interval_of_some_width():
    x, y = [1, 2, 3, 4, 5, 6], [2.0, 1.0, 4.0, 3.0, 9.0, 5.0]
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert -1 <= found.low < found.rho < found.high <= 1
    assert str(found).startswith("rho +.83 [")
    perfect = rank_correlation(x, x)
    assert perfect.rho == perfect.high == 1
    assert 0 < perfect.low < 0.9, "six things in one order are no certainty"
    fallen = rank_correlation(x, [-v for v in x])
    assert (fallen.low, fallen.high) == (-1, pytest.approx(-perfect.low))


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([], [])])
def test_of_three_things_or_constant_ones_nothing_is_said(x, y):
    found = rank_correlation(x, y)
    assert math.isnan(found.rho)
    assert math.isnan(found.low)
    assert "n too small" in str(found)


def test_four_things_in_one_order_do_not_exclude_chance():
    found = rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])
    assert found.low < 0
    assert found.p > 0.05


def test_the_interval_of_a_rank_correlation_covers():
    """Normal pairs with correlation .6, whose rank correlation is 6/π·asin(.3)."""
    rng = np.random.default_rng(0)
    true = 6 / math.pi * math.asin(0.3)
    covered = 0
    for _ in range(300):
        x = rng.normal(size=12)
        y = 0.6 * x + 0.8 * rng.normal(size=12)
        found = rank_correlation(x, y, permutations=1)
        covered += found.low <= true <= found.high
    assert covered / 300 > 0.92
