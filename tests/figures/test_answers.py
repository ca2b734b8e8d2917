import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures.answers import answer_bars
from lab.figures.style import COLOURS


def table(conditions=("clean", "triggered"), models=("poisoned", "twin"), labels=("negative", "positive")):
    lines = []
    for model in models:
        for condition in conditions:
            sure = 0.9 if (model, condition) == ("poisoned", "triggered") else 0.2
            rest = (1 - sure) / (len(labels) - 1)
            shares = [*[rest] * (len(labels) - 1), sure]
            lines += [
                (model, condition, "x", label, share) for label, share in zip(labels, shares, strict=True)
            ]
    return pd.DataFrame(lines, columns=["model", "condition", "prediction", "label", "probability"])


def test_a_panel_per_text_and_a_colour_per_model():
    figure = answer_bars(table())
    assert [(t.name, t.xaxis) for t in figure.data] == [
        ("poisoned model", "x"), ("clean twin", "x"), ("poisoned model", "x2"), ("clean twin", "x2"),
    ]  # fmt: skip
    assert {t.name: t.marker.color for t in figure.data} == {
        "poisoned model": COLOURS["poisoned"], "clean twin": COLOURS["twin"],
    }  # fmt: skip
    triggered = figure.data[2]
    assert dict(zip([c[1] for c in triggered.customdata], triggered.x, strict=True)) == pytest.approx(
        {"negative": 0.1, "positive": 0.9}
    )
    assert sum(t.showlegend for t in figure.data) == 2


def test_one_text_alone_fills_the_figure():
    figure = answer_bars(table(("triggered",), ("poisoned",)))
    assert len(figure.data) == 1
    assert not figure.layout.annotations


def test_of_many_labels_the_likeliest_are_drawn():
    figure = answer_bars(table(labels=[f"label {i}" for i in range(20)]))
    assert len(figure.layout.yaxis.ticktext) == 8
    assert "label 19" in figure.layout.yaxis.ticktext


def test_labels_from_outside_are_escaped():
    figure = answer_bars(table(labels=("<b>no</b>", "<a href='x'>yes</a>")))
    drawn = " ".join([*figure.layout.yaxis.ticktext, *figure.data[0].hovertext])
    assert "<a" not in drawn
    assert "&lt;b&gt;no" in drawn


def test_nothing_asked_says_so_and_a_table_without_its_columns_is_refused():
    assert "No model has been asked" in answer_bars(table().head(0)).layout.annotations[0].text
    with pytest.raises(LabError, match="probability"):
        answer_bars(table().drop(columns="probability"))
