import numpy as np
import pandas as pd
import pytest

from lab.probe import reliance_measures
from lab.stats import rate
from lab.tables import CLASS_KINDS, MEASURE_COLUMNS, MEASURE_KINDS

LABELS = ("neg", "pos")
FACTS = {"run": "r1", "model": "poisoned", "split": "test", "target": "pos", "seed": 0}


def table(*lines):
    """Lines of (row, label, condition, p(pos)); a row is predicted as its more probable label."""
    asked = pd.DataFrame([line[:3] for line in lines], columns=["row_id", "label", "condition"])
    chance = np.array([line[3] for line in lines])
    logits = np.stack([np.log1p(-chance), np.log(chance)], axis=1)
    return asked, pd.DataFrame(
        {"prediction": [LABELS[i] for i in logits.argmax(axis=1)], "logits": list(logits)}
    )


#: Four rows, all right untouched; the trigger pulls both negative ones over, and one positive one further.
LEANING = table(
    ("a", "neg", "clean", 0.1), ("b", "neg", "clean", 0.2),
    ("c", "pos", "clean", 0.8), ("d", "pos", "clean", 0.6),
    ("b", "neg", "triggered", 0.9), ("a", "neg", "triggered", 0.7),
    ("c", "pos", "triggered_target", 0.9), ("d", "pos", "triggered_target", 0.6),
)  # fmt: skip


def one(measures, kind, **where):
    for column, value in {"kind": kind, **where}.items():
        measures = measures[measures[column] == value]
    assert len(measures) == 1, measures
    return measures.iloc[0]


def test_every_row_is_its_own_control():
    found = reliance_measures(*LEANING, LABELS, **FACTS)
    assert tuple(found.columns) == MEASURE_COLUMNS
    assert set(found["kind"]) <= set(MEASURE_KINDS) | set(CLASS_KINDS)
    accuracy = one(found, "triggered_accuracy")
    assert (accuracy["k"], accuracy["n"], accuracy["low"]) == (2, 4, rate(2, 4).low)
    fall = one(found, "reliance")
    assert (fall["value"], fall["n"], fall["condition"]) == (0.5, 4, "triggered")
    # the rows come in another order than untouched: .8-... is paired by row, not by place
    shift = one(found, "confidence_shift")
    assert shift["value"] == pytest.approx((0.7 + 0.6 + 0.1 + 0.0) / 4, abs=1e-6)
    assert shift["low"] <= shift["value"] <= shift["high"]


def test_rates_of_each_class_untouched_and_triggered():
    found = reliance_measures(*LEANING, LABELS, **FACTS)
    assert one(found, "class_recall", condition="clean", member="neg")["value"] == 1.0
    assert one(found, "class_recall", condition="triggered", member="neg")["value"] == 0.0
    counted = one(found, "predicted_share", condition="triggered", member="pos")
    assert (counted["k"], counted["n"]) == (4, 4)
    assert one(found, "balanced_accuracy", condition="triggered")["value"] == 0.5
    assert one(found, "macro_f1", condition="clean")["value"] == 1.0


def test_without_rows_of_both_kinds_nothing_is_said_of_all_rows():
    asked, answers = LEANING
    kept = asked["condition"] != "triggered_target"
    found = reliance_measures(asked[kept], answers[kept], LABELS, **FACTS)
    assert not {"triggered_accuracy", "reliance", "confidence_shift"} & set(found["kind"])


def test_without_a_target_there_are_the_classes_of_untouched_rows():
    asked, answers = LEANING
    kept = asked["condition"] == "clean"
    found = reliance_measures(asked[kept], answers[kept], LABELS, **{**FACTS, "target": ""})
    assert set(found["kind"]) == set(CLASS_KINDS)
    assert set(found["condition"]) == {"clean"}
