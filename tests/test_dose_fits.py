import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from lab.errors import LabError
from lab.stats import fit_dose_response

#: Bliss, Ann. Appl. Biol. 22 (1935): beetles killed by carbon disulphide, log10 of mg/l; Dobson, An
#: Introduction to Generalized Linear Models, table 7.2, gives the logistic fit −60.72 + 34.27 log10 dose.
LOG_DOSES = np.array([1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839])
BEETLES = [59, 60, 62, 56, 63, 59, 62, 60]
KILLED = [6, 13, 18, 28, 52, 53, 61, 60]


def test_bliss_beetles_come_out_as_published():
    fit = fit_dose_response(10**LOG_DOSES, KILLED, BEETLES)
    slope = fit.slope * math.log(10)
    assert slope == pytest.approx(34.27, abs=0.01)
    assert -slope * math.log10(fit.half) == pytest.approx(-60.72, abs=0.02)
    assert (fit.n, fit.doses) == (sum(BEETLES), 8)


def test_the_fit_is_that_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    design = sm.add_constant(np.log(10**LOG_DOSES))
    counts = np.column_stack([KILLED, np.array(BEETLES) - np.array(KILLED)])
    theirs = sm.GLM(counts, design, family=sm.families.Binomial()).fit()
    ours = fit_dose_response(10**LOG_DOSES, KILLED, BEETLES)
    assert ours.slope == pytest.approx(theirs.params[1], rel=1e-4)
    assert ours.half == pytest.approx(math.exp(-theirs.params[0] / theirs.params[1]), rel=1e-5)


def test_runs_that_differ_more_than_their_rows_widen_the_interval():
    doses, rows = [2, 4, 8, 16, 32] * 3, [200] * 15
    calm = fit_dose_response(doses, [10, 40, 100, 160, 190] * 3, rows)
    rough = fit_dose_response(
        doses, [4, 10, 40, 100, 170, 10, 40, 100, 160, 190, 16, 70, 160, 190, 199], rows
    )
    assert calm.heterogeneity == 1
    assert rough.heterogeneity > 5
    assert rough.high / rough.low > 1.5 * calm.high / calm.low


def test_a_background_is_taken_off():
    doses, share = np.array([2, 4, 8, 16, 32, 64]), 0.3
    true = share + (1 - share) * special.expit(2 * np.log(doses / 10))
    fit = fit_dose_response(doses, np.round(2000 * true), [2000] * 6, background=share)
    assert fit.half == pytest.approx(10, rel=0.03)
    assert fit.slope == pytest.approx(2, rel=0.1)
    assert fit.rate(10) == pytest.approx(0.65, abs=0.01)
    assert fit_dose_response(doses, np.round(2000 * true), [2000] * 6).half < 9


@pytest.mark.parametrize(
    ("k", "verdict", "low", "high"),
    [
        ([0, 1, 3, 4], "not reached", 16, math.inf),
        ([9, 9, 10, 10], "always reached", 0, 2),
        ([0, 0, 10, 10], "separated", 4, 8),
        ([9, 6, 3, 1], "no trend", math.nan, math.nan),
    ],
)
def test_what_cannot_be_fitted_is_said(k, verdict, low, high):
    fit = fit_dose_response([2, 4, 8, 16], k, [10] * 4)
    assert fit.verdict == verdict
    assert [fit.low, fit.high] == pytest.approx([low, high], nan_ok=True)
    assert math.isnan(fit.slope)
    assert math.isnan(fit.rate(8))


def test_two_doses_are_too_few_and_a_dose_of_zero_is_none():
    assert fit_dose_response([0, 4, 8], [1, 2, 8], [10] * 3).verdict == "n too small"
    assert fit_dose_response([], [], []).verdict == "n too small"


@pytest.mark.parametrize(
    ("doses", "k", "n", "more"),
    [
        ([1, 2], [1], [1, 2], {}),
        ([1, 2, 3], [1, 1, 4], [3, 3, 3], {}),
        ([1, -2, 3], [1, 1, 1], [3, 3, 3], {}),
        ([1, 2, 3], [1, 1, 1], [3, 3, 3.5], {}),
        ([1, 2, math.nan], [1, 1, 1], [3, 3, 3], {}),
        ([1, 2, 3], [1, 1, 1], [3, 3, 3], {"background": 1.0}),
        ([1, 2, 3], [1, 1, 1], [3, 3, 3], {"confidence": 0.0}),
    ],
)
def test_impossible_counts_are_one_sentence(doses, k, n, more):
    with pytest.raises(LabError) as caught:
        fit_dose_response(doses, k, n, **more)
    assert "\n" not in str(caught.value)


@settings(max_examples=25)
@given(st.floats(0.01, 100), st.permutations(range(8)))
def test_the_unit_of_the_dose_and_the_order_of_runs_change_nothing(unit, order):
    plain = fit_dose_response(10**LOG_DOSES, KILLED, BEETLES)
    fit = fit_dose_response(unit * 10 ** LOG_DOSES[order], np.array(KILLED)[order], np.array(BEETLES)[order])
    assert fit.half / unit == pytest.approx(plain.half, rel=1e-3)
    assert fit.slope == pytest.approx(plain.slope, rel=1e-2)
    assert fit.low / unit == pytest.approx(plain.low, rel=1e-3)


def test_the_interval_holds_the_true_half_count_as_often_as_it_says():
    rng, held, trials = np.random.default_rng(0), 0, 40
    doses = np.array([3, 6, 12, 24, 48])
    for _ in range(trials):
        k = rng.binomial(60, 0.1 + 0.9 * special.expit(1.5 * np.log(doses / 11)))
        fit = fit_dose_response(doses, k, [60] * 5, background=0.1)
        held += fit.low <= 11 <= fit.high
    assert held >= 34, "95 % of 40 is 38; below 34 it would be one in a thousand"
