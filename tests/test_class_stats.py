import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.class_stats import balanced_accuracy, confusion, f1_scores, macro_f1, recalls, with_interval
from lab.errors import LabError

LABELS = ("negative", "positive")


def test_a_table_counted_by_hand():
    truth = ["negative"] * 4 + ["positive"] * 6
    predicted = ["negative"] * 3 + ["positive"] + ["positive"] * 3 + ["negative"] * 2 + ["none of them"]
    table = confusion(truth, predicted, LABELS)
    assert table.tolist() == [[3, 1, 0], [2, 3, 1]]
    shares = table.astype(float)
    assert recalls(shares).tolist() == pytest.approx([0.75, 0.5])
    assert balanced_accuracy(shares) == pytest.approx(0.625)
    # precision .6 and .75: F1 is twice the hits over true plus predicted
    assert f1_scores(shares).tolist() == pytest.approx([6 / 9, 6 / 10])
    assert macro_f1(shares) == pytest.approx((6 / 9 + 6 / 10) / 2)


def test_a_class_without_rows_is_unknown_and_left_out_of_the_mean():
    shares = confusion(["negative", "negative"], ["negative", "negative"], LABELS).astype(float)
    assert np.isnan(recalls(shares)[1])
    assert np.isnan(f1_scores(shares)[1])
    assert balanced_accuracy(shares) == 1.0


def test_unequal_lengths_and_unknown_labels_are_said():
    with pytest.raises(LabError, match="2 true labels and 1 predictions"):
        confusion(["negative", "positive"], ["negative"], LABELS)
    with pytest.raises(LabError, match="'other' is no label; they are 'negative', 'positive'"):
        confusion(["other"], ["negative"], LABELS)


def test_no_rows_have_no_value():
    found = with_interval(np.zeros((2, 3), dtype=np.int64), balanced_accuracy, seed=0)
    assert found.n == 0
    assert np.isnan(found.value)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, "?"])), min_size=1, max_size=60))
def test_intervals_hold_their_value_and_stay_in_range(pairs):
    table = confusion([t for t, _ in pairs], [p for _, p in pairs], LABELS)
    for statistic in (balanced_accuracy, macro_f1):
        found = with_interval(table, statistic, seed=0, resamples=200)
        assert found.n == len(pairs)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth_table = np.array([[40, 10, 0], [20, 30, 0]]) / 100
    truth = float(balanced_accuracy(truth_table))
    hits = 0
    for i in range(200):
        drawn = rng.multinomial(200, truth_table.ravel()).reshape(2, 3)
        found = with_interval(drawn, balanced_accuracy, seed=i, resamples=400)
        hits += found.low <= truth <= found.high
    assert 180 <= hits <= 199
