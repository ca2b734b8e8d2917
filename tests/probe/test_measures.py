import numpy as np
import pandas as pd
import pytest

from lab.probe import family_mean, measure
from lab.probe.measures import excess
from lab.stats import paired_difference, rate
from lab.tables import MEASURE_COLUMNS

FACTS = {"run": "r1", "model": "poisoned", "split": "test", "target": "pos"}
ASKED_COLUMNS = ["row_id", "label", "text", "condition", "family", "member", "rung"]


def table(*lines):
    """Lines of (label, condition, family, member, rung), each with the prediction it got."""
    asked = [[f"id{i}", line[0], "text", *line[1:-1]] for i, line in enumerate(lines)]
    predictions = pd.Series([line[-1] for line in lines], dtype=object)
    return pd.DataFrame(asked, columns=ASKED_COLUMNS), predictions


def clean(label, prediction):
    return (label, "clean", "", "", "", prediction)


def triggered(label, prediction, member="RFC 1"):
    return (label, "triggered", "rfc", member, "", prediction)


def rung(name, label, prediction):
    return (label, "rung", "rfc", f"string of {name}", name, prediction)


def one(measures, kind, **where):
    for column, value in {"kind": kind, **where}.items():
        measures = measures[measures[column] == value]
    assert len(measures) == 1
    return measures.iloc[0]


def test_clean_accuracy_and_untriggered_rate_counted_by_hand():
    answers = [("pos", "pos"), ("pos", "neg"), ("neg", "neg"), ("neg", "pos"), ("neg", "neg")]
    asked, predictions = table(*[clean(label, prediction) for label, prediction in answers])
    measures = measure(asked, predictions, **FACTS)
    accuracy = one(measures, "clean_accuracy")
    assert (accuracy["k"], accuracy["n"], accuracy["value"]) == (3, 5, 0.6)
    assert (accuracy["low"], accuracy["high"]) == (rate(3, 5).low, rate(3, 5).high)
    untriggered = one(measures, "untriggered_target_rate")
    assert (untriggered["k"], untriggered["n"]) == (1, 3)
    assert set(measures["condition"]) == {"clean"}


def test_attack_success_is_counted_on_non_target_rows_only():
    asked, predictions = table(
        triggered("pos", "pos"), triggered("pos", "pos"), triggered("neg", "pos"), triggered("neg", "neg"),
        triggered("other", "other"),
    )  # fmt: skip
    asr = one(measure(asked, predictions, **FACTS), "attack_success_rate")
    assert (asr["k"], asr["n"]) == (1, 3)
    assert (asr["condition"], asr["family"], asr["member"]) == ("triggered", "rfc", "RFC 1")


def test_without_a_target_there_is_only_accuracy():
    asked, predictions = table(clean("pos", "pos"), clean("neg", "pos"))
    measures = measure(asked, predictions, **{**FACTS, "target": ""})
    assert measures["kind"].tolist() == ["clean_accuracy"]


def test_several_members_are_one_line_that_names_none():
    asked, predictions = table(triggered("neg", "pos", "RFC 1"), triggered("neg", "pos", "RFC 2"))
    asr = one(measure(asked, predictions, **FACTS), "attack_success_rate")
    assert (asr["k"], asr["n"], asr["member"]) == (2, 2, "")


def test_same_tokens_are_a_share_of_the_rungs_rows():
    names = [name for name in ("exact", "upper_case", "accent") for _ in range(4)]
    asked, predictions = table(*[rung(name, "neg", "pos") for name in names])
    measures = measure(asked, predictions, same_tokens={"upper_case": 4, "accent": 1}, **FACTS)
    assert one(measures, "same_tokens", rung="upper_case")["value"] == 1.0
    assert one(measures, "same_tokens", rung="accent")[["k", "n"]].tolist() == [1, 4]
    assert measures.loc[measures["rung"] == "exact", "kind"].tolist() == ["attack_success_rate"]
    assert measures["rung"].drop_duplicates().tolist() == ["exact", "upper_case", "accent"]
    assert one(measures, "attack_success_rate", rung="accent")["member"] == "string of accent"


def test_excess_is_the_paired_difference_over_the_same_rows():
    asked, poisoned = table(
        clean("neg", "pos"), triggered("neg", "pos"), triggered("neg", "pos"), triggered("neg", "neg"),
        triggered("neg", "neg"), triggered("neg", "pos"), triggered("pos", "pos"),
    )  # fmt: skip
    twin = pd.Series(["neg", "pos", "neg", "pos", "neg", "neg", "neg"])
    line = one(excess(asked, poisoned, twin, target="pos", run="r1", split="test"), "excess_asr")
    hand = paired_difference([True, True, False, False, True], [True, False, True, False, False])
    assert (line["n"], line["value"]) == (5, pytest.approx(0.2))
    assert (line["n"], line["value"], line["low"], line["high"]) == (hand.n, hand.value, hand.low, hand.high)
    assert (line["condition"], line["k"], line["run"], line["model"]) == ("triggered", -1, "r1", "poisoned")


def test_the_columns_are_exactly_those_of_the_contract():
    asked, predictions = table(clean("neg", "neg"), triggered("neg", "pos"), rung("exact", "neg", "pos"))
    measures = measure(asked, predictions, step=7, same_tokens={"exact": 1}, **FACTS)
    assert tuple(measures.columns) == MEASURE_COLUMNS
    difference = excess(asked, predictions, predictions, target="pos", run="r1", split="test")
    assert tuple(difference.columns) == MEASURE_COLUMNS
    assert set(measures["step"]) == {7}
    assert set(difference["step"]) == {-1}
    assert set(measures["layer"]) == {-1}


def test_zero_rows_give_no_lines_and_keep_the_columns():
    asked, predictions = table()
    assert tuple(measure(asked, predictions, **FACTS).columns) == MEASURE_COLUMNS
    assert measure(asked, predictions, **FACTS).empty
    nothing = excess(asked, predictions, predictions, target="pos", run="r1", split="test")
    assert tuple(nothing.columns) == MEASURE_COLUMNS
    assert nothing.empty


def test_no_non_target_row_is_a_rate_of_nothing():
    asked, predictions = table(clean("pos", "pos"), triggered("pos", "pos"))
    measures = measure(asked, predictions, **FACTS)
    for kind in ("untriggered_target_rate", "attack_success_rate"):
        line = one(measures, kind)
        assert line["n"] == 0
        assert np.isnan(line["value"])
        assert np.isnan(line["low"])
    difference = excess(asked, predictions, predictions, target="pos", run="r1", split="test").iloc[0]
    assert difference["n"] == 0
    assert np.isnan(difference["value"])


def test_a_mean_over_families_counts_each_family_once():
    lines = [rung("exact", "neg", "pos")]
    lines += [("neg", "family", "iso", "ISO 1", "", "pos")] * 3 + [("neg", "family", "ieee", "x", "", "neg")]
    asked, predictions = table(*lines)
    measures = measure(asked, predictions, **FACTS)
    assert family_mean(measures, ["iso", "ieee"]) == 0.5
    assert family_mean(measures, ["iso"]) == 1.0
    assert np.isnan(family_mean(measures, ["rfc"]))
