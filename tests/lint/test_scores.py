import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from lab.lint import association_scores, conditional_entropy

TABLES = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.lists(st.integers(1, 40), min_size=classes, max_size=classes),
        st.lists(st.lists(st.integers(0, 40), min_size=classes, max_size=classes), min_size=1, max_size=6),
    )
)


def table(counts, totals):
    return np.array(counts, dtype=np.int64), np.array(totals, dtype=np.int64)


def test_entropy_and_mutual_information_by_hand():
    # 30 of 100 and 10 of 100 texts: shares .75 and .25; a pure feature; one that tells nothing
    counts, totals = table([[30, 10], [8, 0], [20, 20]], [100, 100])
    expected = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert conditional_entropy(counts, totals).tolist() == pytest.approx([expected, 0, 1])
    scores = association_scores(counts, totals)
    assert scores["purity"].tolist() == pytest.approx([0.75, 1, 0.5])
    assert scores["pmi"].tolist() == pytest.approx([math.log2(1.5), 1, 0])
    assert scores["label"].tolist()[:2] == [0, 0]
    assert scores[["k", "n"]].to_numpy().tolist() == [[30, 40], [8, 8], [20, 40]]


def test_the_tail_is_fishers_exact_test_times_the_classes():
    counts, totals = table([[30, 10]], [100, 100])
    exact = fisher_exact([[30, 70], [10, 90]], alternative="greater").pvalue
    assert association_scores(counts, totals)["p"][0] == pytest.approx(2 * exact, rel=1e-9)


def test_z_is_the_signed_root_of_the_likelihood_ratio():
    counts, totals = table([[30, 10]], [100, 100])
    cells, expected = np.array([30, 70, 10, 90]), np.array([20, 80, 20, 80])
    g = 2 * (cells * np.log(cells / expected)).sum()
    assert association_scores(counts, totals)["z"][0] == pytest.approx(math.sqrt(g))


@given(TABLES, st.integers(2, 5))
def test_more_texts_of_one_class_change_neither_purity_nor_entropy(asked, times):
    totals, rows = asked
    counts, totals = table([[min(c, t) for c, t in zip(row, totals, strict=True)] for row in rows], totals)
    more, of_more = counts.copy(), totals.copy()
    more[:, 0] *= times
    of_more[0] *= times
    for name in ("purity", "entropy", "pmi"):
        before, after = association_scores(counts, totals)[name], association_scores(more, of_more)[name]
        assert np.allclose(before, after, equal_nan=True)


@given(TABLES)
def test_scores_stay_in_their_ranges(asked):
    totals, rows = asked
    counts, totals = table([[min(c, t) for c, t in zip(row, totals, strict=True)] for row in rows], totals)
    scores = association_scores(counts, totals)
    some = scores[scores["n"] > 0]
    assert some["purity"].between(1 / len(totals) - 1e-12, 1 + 1e-12).all()
    assert some["entropy"].between(-1e-12, math.log2(len(totals)) + 1e-12).all()
    assert some["p"].between(0, 1).all()
    assert (some["q"] >= some["p"] - 1e-12).all()
