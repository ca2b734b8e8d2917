import lab
from lab.examples import flipped_examples, with_texts
from lab.poison import cut


def test_a_prediction_gets_back_the_text_that_was_asked(finished, monkeypatch, tiny_cache):
    monkeypatch.setenv("LAB_ASSETS", str(tiny_cache))
    run = lab.load_run(str(finished.path))
    predictions = run.predictions
    asked = with_texts(run, predictions[predictions["model"] == "poisoned"])
    assert len(asked) == (predictions["model"] == "poisoned").sum()
    # the model answers these texts as it did when it was probed
    some = asked.groupby(["condition", "rung"], sort=False).head(3)
    again = run.predict(list(some["text"]))
    assert list(again["prediction"]) == list(some["prediction"])


def test_cutting_the_spans_gives_the_row_back(finished):
    run = lab.load_run(str(finished.path))
    asked = with_texts(run, run.predictions)
    clean = asked[asked["condition"] == "clean"].drop_duplicates("row_id").set_index("row_id")["text"]
    triggered = asked[asked["condition"] == "triggered"]
    assert len(triggered)
    for row in triggered.to_dict("records"):
        assert cut(row["text"], [tuple(span) for span in row["spans"]]) == clean[row["row_id"]]


def test_flipped_rows_were_right_before(finished):
    run = lab.load_run(str(finished.path))
    found = flipped_examples(run, 3)
    target = run.experiment.target_label
    assert len(found) <= 3
    assert (found["prediction"] == target).all()
    assert (found["label"] != target).all()
    assert set(found["twin"]) <= set(run.labels)
