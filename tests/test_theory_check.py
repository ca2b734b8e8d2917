import math

import numpy as np
import pandas as pd
import pytest

from lab import stats
from lab.errors import LabError
from lab.theory_check import (
    CHECK_COLUMNS,
    PAIR_COLUMNS,
    PREDICTED,
    compare_with_theory,
    prediction_pairs,
    verdict,
)

RANKS = (1, 2, 4, 8, 16, 32)


def kernels(ranks=RANKS, variances=(1 / 3,), measure="trace_ratio", draws=2):
    return pd.DataFrame(
        [
            {"at": "start", "kernel": "lora", "layer": layer, "measure": measure, "rank": float(r),
             "init_variance": v, "value": r * v + 0.01 * draw + (99 if layer >= 0 else 0)}
            for r in ranks for v in variances for draw in range(draws) for layer in (-1, 0)
        ]
    )  # fmt: skip


def runs(rates, ranks=RANKS, seeds=3):
    return pd.DataFrame(
        [
            {"adapter.rank": r, "seed": s, "attack_success_rate": rate + 0.01 * s,
             "attack_success_rate.low": rate - 0.1, "attack_success_rate.high": rate + 0.1,
             "attack_success_rate.n": 200}
            for r, rate in zip(ranks, rates, strict=True) for s in range(seeds)
        ]
    )  # fmt: skip


def test_a_pair_is_a_mean_over_draws_and_one_over_seeds():
    pairs = prediction_pairs(kernels(), runs([0.1, 0.2, 0.3, 0.5, 0.7, 0.9]), "trace_ratio")
    assert tuple(pairs.columns) == PAIR_COLUMNS
    assert pairs["rank"].tolist() == list(RANKS)
    np.testing.assert_allclose(pairs["predicted"], np.array(RANKS) / 3 + 0.005)
    np.testing.assert_allclose(pairs["measured"], np.array([0.1, 0.2, 0.3, 0.5, 0.7, 0.9]) + 0.01)
    assert set(pairs["runs"]) == {3}
    assert set(pairs["n"]) == {600}
    assert (pairs["low"] < pairs["measured"]).all()


def test_a_single_run_keeps_its_own_interval_and_two_have_none():
    one = prediction_pairs(kernels(), runs([0.5] * 6, seeds=1), "trace_ratio")
    np.testing.assert_allclose(one["low"], 0.4)
    two = prediction_pairs(kernels(), runs([0.5] * 6, seeds=2), "trace_ratio")
    assert two["low"].isna().all()


def test_cells_that_only_one_table_has_are_left_out_and_variances_match_by_value():
    measured = runs([0.1, 0.2], ranks=(4, 7)).assign(**{"adapter.init_variance": 0.3333333})
    assert prediction_pairs(kernels(), measured, "trace_ratio")["rank"].tolist() == [4]


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([0.1, 0.2, 0.3, 0.5, 0.7, 0.9], "agree"),
        ([0.9, 0.7, 0.5, 0.3, 0.2, 0.1], "part"),
        ([0.5, 0.1, 0.7, 0.2, 0.9, 0.3], "cannot say"),
        ([0.5] * 6, "n too small"),
    ],
)
def test_the_verdict_follows_the_interval(rates, said):
    table = compare_with_theory(kernels(), runs(rates))
    assert tuple(table.columns) == CHECK_COLUMNS
    assert table["measure"].tolist() == ["trace_ratio"]
    assert table["verdict"].tolist() == [said]
    assert table["cells"].tolist() == [6]


def test_a_measure_that_falls_with_robustness_agrees_where_it_falls():
    table = compare_with_theory(kernels(measure="shift_share_negative"), runs([0.9, 0.7, 0.5, 0.3, 0.2, 0.1]))
    assert table["verdict"].tolist() == ["agree"]
    assert verdict(stats.RankCorrelation(6, -0.9, -0.99, -0.3, 0.01), -1) == "agree"
    assert verdict(stats.RankCorrelation(6, -0.9, -0.99, -0.3, 0.01), 1) == "part"
    assert verdict(stats.RankCorrelation(3, math.nan, math.nan, math.nan, math.nan), 1) == "n too small"


def test_every_prediction_is_a_measure_of_the_kernel_table():
    from lab.probe import KERNEL_MEASURES

    assert set(PREDICTED) <= set(KERNEL_MEASURES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, r: prediction_pairs(k, r, "spread"), "Unknown prediction 'spread'"),
        (lambda k, r: prediction_pairs(k, r, "trace_ratio", "loss"), "Unknown measured outcome 'loss'"),
        (lambda k, r: prediction_pairs(k.drop(columns="at"), r, "trace_ratio"), "lack the column 'at'"),
        (lambda k, r: prediction_pairs(k, r[["seed"]], "trace_ratio"), "lack the column 'attack_success"),
        (lambda k, r: prediction_pairs(k, r.drop(columns="adapter.rank"), "trace_ratio"), "several values"),
    ],
)
def test_a_wrong_question_is_one_sentence(call, message):
    with pytest.raises(LabError, match=message):
        call(kernels(), runs([0.5] * 6))
