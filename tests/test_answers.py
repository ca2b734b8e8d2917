import pandas as pd
import pytest

from lab.answers import ANSWER_COLUMNS, ask, recorded
from lab.examples import with_texts


def test_each_answer_sums_to_one_and_names_its_largest(finished):
    table = ask(
        {"poisoned": finished, "twin": finished.twin},
        {"clean": "a dull film", "triggered": "a dull film RFC 1"},
    )
    assert tuple(table.columns) == ANSWER_COLUMNS
    assert list(dict.fromkeys(table["model"])) == ["poisoned", "twin"]
    groups = table.groupby(["model", "condition"])
    assert len(groups) == 4
    for _, answer in groups:
        assert answer["probability"].sum() == pytest.approx(1)
        assert answer.loc[answer["probability"].idxmax(), "label"] == answer["prediction"].iloc[0]


def test_what_was_recorded_is_what_the_models_say_now(finished):
    told = finished.predictions
    told = told[(told["condition"] == "triggered") & (told["model"] == "poisoned")].head(1)
    row = told["row_id"].iloc[0]
    clean = finished.predictions.query("condition == 'clean' and model == 'poisoned' and row_id == @row")
    texts = {
        "clean": with_texts(finished, clean)["text"].iloc[0],
        "triggered": with_texts(finished, told)["text"].iloc[0],
    }
    now = ask({"poisoned": finished, "twin": finished.twin}, texts)
    keys = ["model", "condition", "label"]
    both = recorded(finished, row).merge(now, on=keys, suffixes=("", "_now"))
    assert len(both) == len(now)
    assert both["probability"].to_numpy() == pytest.approx(both["probability_now"].to_numpy(), abs=1e-4)
    assert (both["prediction"] == both["prediction_now"]).all()


def test_a_row_that_was_not_probed_has_no_lines(finished):
    empty = recorded(finished, "nobody")
    assert empty.empty
    assert tuple(empty.columns) == ANSWER_COLUMNS
    pd.testing.assert_frame_equal(empty, ask({}, {"clean": "x"}))
