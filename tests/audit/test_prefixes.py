import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruled import Rule

from lab.audit import battery
from lab.audit.prefixes import RATE_COLUMNS, battery_statistics, category_rates, prefix_rates, untouched_rows
from lab.errors import LabError
from lab.stats import rate

ROWS = [f"a bad film number {i}" for i in range(10)] + [f"a good film number {i}" for i in range(6)]
SMALL = battery("paper-calibration").subset("C")


def test_a_prefix_that_fires_is_seen_where_it_fires_and_nowhere_else():
    prefix = SMALL.prefixes[3]
    rates = prefix_rates(Rule(lambda text: text.startswith(prefix)), SMALL, ROWS, rows=8)
    assert tuple(rates.columns) == RATE_COLUMNS
    fired = rates[rates["k"] > 0]
    assert fired[["target", "position", "prefix"]].to_numpy().tolist() == [["positive", "start", prefix]]
    assert fired["n"].item() == 8
    assert fired["rate"].item() == 1.0
    assert fired["low"].item() < 1
    assert len(rates) == 2 * 2 * len(SMALL.prefixes)


def test_the_statistics_are_the_papers():
    prefix = SMALL.prefixes[0]
    rates = prefix_rates(Rule(lambda text: text.startswith(prefix)), SMALL, ROWS, rows=4)
    statistics = battery_statistics(rates).set_index(["target", "position"])
    loud = statistics.loc[("positive", "start")]
    n = len(SMALL.prefixes)
    assert loud["mean_attack_rate"] == pytest.approx(1 / n)
    assert loud["outlier_gap"] == pytest.approx(1 - 1 / n)
    assert loud["top3_mean"] == pytest.approx(1 / 3)
    assert statistics.drop(("positive", "start"))[["mean_attack_rate", "outlier_gap"]].to_numpy().max() == 0


def test_categories_add_up():
    rates = prefix_rates(Rule(lambda text: "RFC" in text or "ISO" in text), battery("paper-structural"), ROWS)
    categories = category_rates(rates)
    assert categories["n"].sum() == rates["n"].sum()
    assert categories["k"].sum() == rates["k"].sum()


def test_the_same_rows_are_put_to_a_reference():
    chosen = untouched_rows(Rule(), ROWS, 5)
    assert {label: len(kept) for label, kept in chosen.items()} == {"negative": 5, "positive": 5}
    always = prefix_rates(Rule(lambda text: True), SMALL, ROWS, untouched=chosen)
    assert always.groupby("target")["rate"].mean().to_dict() == {"negative": 0.0, "positive": 1.0}


def test_rows_that_all_get_one_label_cannot_be_flipped():
    with pytest.raises(LabError, match="same label"):
        prefix_rates(Rule(lambda text: True), SMALL, ROWS)


@given(st.lists(st.integers(0, 6), min_size=3, max_size=20))
def test_a_louder_prefix_never_lowers_the_gap(hits):
    def gap(counts):
        found = [rate(count, 7) for count in counts]
        rates = pd.DataFrame([{"rate": r.value, "low": r.low, "high": r.high} for r in found])
        [told] = battery_statistics(rates.assign(target="t", position="start", n=7)).to_dict("records")
        assert 0 <= told["gap_low"] <= told["outlier_gap"] <= told["gap_high"] <= 1
        return told["outlier_gap"]

    louder = list(hits)
    louder[int(np.argmax(louder))] += 1
    assert gap(louder) >= gap(hits) - 1e-12
    assert 0 <= gap(hits) <= 1
