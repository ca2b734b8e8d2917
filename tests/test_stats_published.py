"""lab.stats against printed tables, against statsmodels and scipy, and against plain enumeration."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from lab.stats import (
    benjamini_hochberg,
    bootstrap_mean,
    clopper_pearson,
    fit_dose_response,
    paired_difference,
    spearman_trend,
    wilson,
)

# ---------------------------------------------------------------------------------------- shares of rows


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 29, 60, 427])
@pytest.mark.parametrize(("ours", "theirs"), [(wilson, "wilson"), (clopper_pearson, "beta")])
def test_intervals_of_a_share_are_those_of_statsmodels(ours, theirs, n, confidence):
    k = np.arange(n + 1)
    low, high = proportion_confint(k, n, alpha=1 - confidence, method=theirs)
    assert np.array([ours(i, n, confidence) for i in k]) == pytest.approx(np.c_[low, high], abs=1e-9)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), 857, table I, method 5
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0000, 0.1684),
        (1, 29, 0.0009, 0.1776),
        # by hand, since here the tail is one power: p^n = .025
        (0, 1, 0.0000, 0.9750),
        (1, 1, 0.0250, 1.0000),
        (0, 2, 0.0000, 1 - math.sqrt(0.025)),
        (0, 10, 0.0000, 0.3085),
    ],
)
def test_clopper_pearson_gives_the_published_intervals(k, n, low, high):
    assert clopper_pearson(k, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [4, 20, 60])
def test_a_one_sided_bound_is_an_end_of_the_interval_with_twice_the_error(n):
    k = np.arange(n + 1)
    low, high = proportion_confint(k, n, alpha=0.1, method="beta")
    assert [clopper_pearson(i, n, side="upper")[1] for i in k] == pytest.approx(high, abs=1e-9)
    assert [clopper_pearson(i, n, side="lower")[0] for i in k] == pytest.approx(low, abs=1e-9)


@pytest.mark.parametrize(("hits", "n"), [(14, 50), (1, 20), (97, 100), (30, 30)])
def test_a_paired_difference_without_correlation_is_that_of_statsmodels(hits, n):
    """Where every row counts under one condition, pairing tells nothing, and Newcombe's two methods agree."""
    ours = paired_difference([True] * n, [True] * hits + [False] * (n - hits))
    theirs = confint_proportions_2indep(n, n, hits, n, method="newcomb")
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-9)


# ---------------------------------------------------------------------------------------- mean over seeds

#: Efron and Tibshirani, An Introduction to the Bootstrap (1993), table 2.1: days that treated mice survived.
MICE = [94, 197, 16, 38, 99, 141, 23]


def _every_resample(values):
    """The mean of each of the n^n resamples and its probability; those that differ only in order are one."""
    n = len(values)
    drawn = np.array(list(itertools.combinations_with_replacement(range(n), n)))
    times = (drawn[:, :, None] == np.arange(n)).sum(axis=1)
    orders = math.factorial(n) / np.vectorize(math.factorial)(times).prod(axis=1)
    return times @ np.array(values) / n, orders / n**n


def test_all_resamples_of_the_mice_spread_as_published():
    means, weights = _every_resample(MICE)
    assert weights.sum() == pytest.approx(1)
    assert np.average(means, weights=weights) == pytest.approx(86.86, abs=0.005)
    spread = math.sqrt(np.cov(means, aweights=weights, ddof=0))
    assert spread == pytest.approx(23.36, abs=0.005)  # table 2.2, for endless replications
    assert spread * math.sqrt(7 / 6) == pytest.approx(
        25.24, abs=0.005
    )  # table 2.1, by the textbook's formula


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("confidence", [0.68, 0.9, 0.95, 0.99])
def test_the_bootstrap_cuts_off_the_tails_of_all_resamples(confidence, seed):
    means, weights = _every_resample(MICE)
    found = bootstrap_mean(MICE, seed=seed, confidence=confidence)
    assert found.value == pytest.approx(86.857, abs=5e-4)
    tail = (1 - confidence) / 2
    error = 4 * math.sqrt(tail * (1 - tail) / 10_000)
    # values repeat, so a share lies below an end and a larger one at or below it
    assert weights[means < found.low - 1e-9].sum() - error <= tail
    assert tail <= weights[means <= found.low + 1e-9].sum() + error
    assert weights[means > found.high + 1e-9].sum() - error <= tail
    assert tail <= weights[means >= found.high - 1e-9].sum() + error


@pytest.mark.parametrize("values", [MICE, [0.90, 0.95, 0.99], [0.2, 0.4, 0.9, 0.95, 0.97]])
def test_the_bootstrap_is_that_of_scipy(values):
    draws = 100_000
    ours = bootstrap_mean(values, seed=1, resamples=draws, confidence=0.9)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=draws, confidence_level=0.9, rng=2
    )
    # four standard errors of a difference of two quantiles, for means that are about normal
    error = 4 * math.sqrt(2 * 0.05 * 0.95 / draws) / scipy.stats.norm.pdf(1.645) * theirs.standard_error
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=error)


# -------------------------------------------------------------------------------------- dose and response

#: Bliss, Ann. Appl. Biol. 22 (1935), 134: beetles, carbon disulphide in log10 mg/l; their deaths vary by more
#: than a binomial's.
BEETLES = (
    10 ** np.array([1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839]),
    np.array([6, 13, 18, 28, 52, 53, 61, 60]),
    np.array([59, 60, 62, 56, 63, 59, 62, 60]),
    0.0,
)
#: Martin, Ann. Appl. Biol. 29 (1942), 69: aphids, rotenone in mg/l; an example in Finney, Probit Analysis.
APHIDS = (
    np.array([2.6, 3.8, 5.1, 7.7, 10.2]),
    np.array([6, 16, 24, 42, 44]),
    np.array([50, 48, 46, 49, 50]),
    0.0,
)
#: Made up: poisoned rows, where one in five answers goes to the target anyhow.
BACKGROUND = (
    np.array([2, 4, 8, 16, 32, 64]),
    np.array([44, 47, 66, 118, 171, 193]),
    np.full(6, 200),
    0.2,
)


class _Abbott(sm.families.links.Logit):
    """The logit of what a known background leaves over."""

    def __init__(self, background):
        self.background = background

    def __call__(self, p):
        return super().__call__((p - self.background) / (1 - self.background))

    def inverse(self, z):
        return self.background + (1 - self.background) * scipy.special.expit(z)

    def deriv(self, p):
        return super().deriv((p - self.background) / (1 - self.background)) / (1 - self.background)


def _glm(data, columns, start):
    _, k, n, background = data
    family = sm.families.Binomial(link=_Abbott(background))
    # a share to start from must exceed the background, which the mean of k / n and 1/2 need not
    return sm.GLM(np.c_[k, n - k], columns, family=family).fit(start_params=start, tol=1e-12)


def _by_statsmodels(data, confidence):
    """Half count, slope, heterogeneity and the interval: where the deviance of a GLM through it has risen."""
    x = np.log(data[0])
    free = _glm(data, sm.add_constant(x), (-2 * x.mean(), 2.0))
    shift, slope = free.params
    place = -shift / slope
    more = free.pearson_chi2 / free.df_resid
    limit = (
        more * scipy.stats.f.ppf(confidence, 1, free.df_resid)
        if more > 1
        else scipy.stats.chi2.ppf(confidence, 1)
    )

    def over(at):
        # no constant: a line that is 0 at the place, hence a curve whose half count it is
        return _glm(data, (x - at)[:, None], (slope,)).deviance - free.deviance - limit

    ends = [scipy.optimize.brentq(over, place, place + way, xtol=1e-9) for way in (-0.7, 0.7)]
    width = math.sqrt(np.array([1, place]) @ free.cov_params() @ np.array([1, place])) / slope
    return math.exp(place), slope, max(more, 1), np.exp(ends), math.sqrt(limit) * width


# a warning here would be an infinite or undefined likelihood on the way
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("data", "confidence"),
    [
        pytest.param(BEETLES, 0.95, id="beetles"),
        pytest.param(BEETLES, 0.8, id="beetles at 80 %"),
        pytest.param(APHIDS, 0.95, id="aphids"),
        pytest.param(BACKGROUND, 0.95, id="background"),
    ],
)
def test_the_interval_of_the_half_count_is_the_profile_of_statsmodels(data, confidence):
    doses, k, n, background = data
    ours = fit_dose_response(doses, k, n, background=background, confidence=confidence)
    half, slope, more, ends, width = _by_statsmodels(data, confidence)
    assert ours.verdict == "fitted"
    assert ours.half == pytest.approx(half, rel=1e-4)
    assert ours.slope == pytest.approx(slope, rel=1e-3)
    assert ours.heterogeneity == pytest.approx(more, rel=1e-3)
    assert (ours.low, ours.high) == pytest.approx(tuple(ends), rel=1e-4)
    # and the delta method, which is symmetric in the logarithm, differs from it by little
    assert math.log(ours.high / ours.low) == pytest.approx(2 * width, rel=0.1)


def test_the_published_half_counts():
    beetles = fit_dose_response(*BEETLES[:3])
    assert math.log10(beetles.half) == pytest.approx(60.72 / 34.27, abs=5e-4)  # Dobson's fit of Bliss
    # Pearson's χ² of 10.03 on 6 degrees of freedom
    assert beetles.heterogeneity == pytest.approx(10.03 / 6, abs=0.002)
    aphids = fit_dose_response(*APHIDS[:3])
    assert aphids.half == pytest.approx(4.85, rel=0.01)  # Finney, by probits, which differ in the tails alone
    assert aphids.heterogeneity == 1


# ------------------------------------------------------------------------------------ trends, many tests


def _exact_p(x, y):
    """The share of all orders of y whose rank correlation with x is as strong; in whole numbers."""
    x, y = ((2 * scipy.stats.rankdata(values)).astype(int) for values in (x, y))
    orders = np.array(list(itertools.permutations(y)))  # the first is y as it is
    strength = np.abs(len(x) * orders @ x - x.sum() * y.sum())
    return float((strength >= strength[0]).mean())


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 2, 3, 4, 5], [2, 1, 3, 4, 5]),
        ([1, 2, 3, 4, 5], [5, 4, 3, 1, 2]),
        ([1, 2, 4, 4, 8], [0.1, 0.3, 0.3, 0.6, 0.9]),
        ([1, 2, 3, 4, 5, 6], [1, 3, 2, 4, 6, 5]),
        ([1, 1, 2, 2, 4, 4], [0.2, 0.1, 0.5, 0.4, 0.9, 0.9]),
        ([1, 2, 3, 4, 5, 6], [3, 5, 1, 6, 2, 4]),
        ([1, 2, 3, 4, 5, 6, 7], [2, 1, 4, 3, 7, 6, 5]),
        ([1, 2, 4, 8, 16, 32, 64], [0.0, 0.0, 0.0, 0.2, 0.1, 0.9, 1.0]),
        ([1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1]),
    ],
)
def test_the_permutation_p_is_that_of_all_orders(x, y):
    shuffles, exact = 40_000, _exact_p(x, y)
    trend = spearman_trend(x, y, permutations=shuffles, seed=1)
    expected = (1 + shuffles * exact) / (1 + shuffles)
    assert trend.p == pytest.approx(expected, abs=4 * math.sqrt(exact * (1 - exact) / shuffles))
    assert trend.rho == pytest.approx(scipy.stats.spearmanr(x, y).statistic)


@pytest.mark.parametrize(
    ("n", "level", "critical"),
    [  # Zar, Biostatistical Analysis, table of critical values of Spearman's rank correlation, two-tailed
        (5, 0.10, 0.900),
        (5, 0.05, 1.000),
        (5, 0.02, 1.000),
        (6, 0.10, 0.829),
        (6, 0.05, 0.886),
        (6, 0.02, 0.943),
        (6, 0.01, 1.000),
        (7, 0.10, 0.714),
        (7, 0.05, 0.786),
        (7, 0.02, 0.893),
        (7, 0.01, 0.929),
    ],
)
def test_the_published_critical_values_are_the_first_to_be_significant(n, level, critical):
    x = np.arange(n)
    orders = {
        round(1 - 6 * int(((x - order) ** 2).sum()) / (n**3 - n), 3): order
        for order in itertools.permutations(range(n))
    }
    below = max(rho for rho in orders if rho < critical)
    at, before = (spearman_trend(x, orders[rho], permutations=100_000) for rho in (critical, below))
    assert at.rho == pytest.approx(critical, abs=5e-4)
    assert at.p <= level < before.p


#: Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995), 289, section 3: fifteen comparisons of one trial.
FIFTEEN = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
FIFTEEN += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]


def test_benjamini_and_hochbergs_own_example_calls_four_of_fifteen():
    adjusted = benjamini_hochberg(FIFTEEN)
    assert (adjusted <= 0.05).tolist() == [True] * 4 + [False] * 11
    assert adjusted[3] == pytest.approx(0.0095 * 15 / 4)
    assert (np.array(FIFTEEN) * 15 <= 0.05).sum() == 3, "Bonferroni calls one fewer, as they say"


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_p_values_are_those_of_statsmodels(seed):
    drawn = np.random.default_rng(seed).beta(0.4, 1, 40).round(2)  # rounded, so that some are equal
    for pvalues in (FIFTEEN, FIFTEEN[::-1], drawn):
        called, theirs, *_ = multipletests(pvalues, alpha=0.05, method="fdr_bh")
        ours = benjamini_hochberg(pvalues)
        assert ours == pytest.approx(theirs)
        assert ((ours <= 0.05) == called).all()
