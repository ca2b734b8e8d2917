import math

import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import threshold_curve
from lab.stats import rate


@pytest.fixture
def table():
    lines = []
    for scale, k, predicted in ((4.0, 200, 0.6), (1.0, 0, 0.0), (2.0, 20, 0.0), (8.0, 380, 1.0)):
        share = rate(k, 400)
        ends = {"low": share.low, "high": share.high, "n": 400}
        lines.append({"scale": scale, "predicted": predicted, "measured": share.value, **ends})
    return pd.DataFrame(lines)


def _named(figure, start):
    return next(t for t in figure.data if t.name.startswith(start) and t.hoverinfo != "skip")


def test_measured_and_predicted_are_the_tables_values(table):
    figure = threshold_curve(table)
    measured, predicted = _named(figure, "measured"), _named(figure, "predicted")
    assert list(measured.x) == list(predicted.x) == [1, 2, 4, 8]
    assert list(measured.y) == [0, 0.05, 0.5, 0.95]
    assert list(predicted.y) == [0, 0, 0.6, 1]
    assert predicted.line.dash == "dash"
    assert list(measured.customdata[1]) == [2]
    assert "n = 400" in measured.hovertext[0]
    band = figure.data[0]
    assert band.y[0] == rate(0, 400).high
    assert figure.layout.xaxis.type == "log"


def test_it_says_that_the_prediction_is_a_heuristic(table):
    figure = threshold_curve(table)
    assert "heuristic" in _named(figure, "predicted").name
    assert "heuristic" in figure.layout.xaxis.title.text


def test_marks_are_lines_with_names(table):
    figure = threshold_curve(table, {"trained": 2.0, "<b>s*": 30.0})
    assert [shape.x0 for shape in figure.layout.shapes] == [2, 30]
    assert [a.text for a in figure.layout.annotations] == ["trained = 2", "&lt;b&gt;s* = 30"]
    assert figure.layout.annotations[0].x == pytest.approx(math.log10(2))
    assert figure.layout.xaxis.range[1] > math.log10(30)


def test_neighbours_have_their_names_at_different_heights(table):
    figure = threshold_curve(table, {"a": 2.0, "b": 2.1, "c": 2.2})
    assert len({a.yshift for a in figure.layout.annotations}) == 3


def test_a_mark_far_off_is_named_at_the_edge_and_one_without_a_place_not_at_all(table):
    figure = threshold_curve(table, {"s*": 1e6, "never": math.inf, "unknown": math.nan, "tiny": 1e-6})
    assert not figure.layout.shapes
    assert [a.text for a in figure.layout.annotations] == ["← tiny = 1e-06", "s* = 1e+06 →"]
    assert figure.layout.xaxis.range[1] < 1
    with pytest.raises(LabError, match="'trained' is 0; allowed: a scale above 0"):
        threshold_curve(table, {"trained": 0.0})


def test_one_scale_is_two_marks(table):
    figure = threshold_curve(table[:1])
    assert list(_named(figure, "measured").y) == [0.5]
    assert _named(figure, "measured").error_y.array[0] > 0
    assert "markers" in _named(figure, "predicted").mode


def test_what_is_missing_breaks_its_own_line_only(table):
    some = table.assign(measured=[math.nan, *table["measured"][1:]], n=[math.nan, *table["n"][1:]])
    figure = threshold_curve(some)
    assert len(_named(figure, "measured").x) == 3
    assert len(_named(figure, "predicted").x) == 4
    only = threshold_curve(table.assign(measured=math.nan))
    assert [trace.name for trace in only.data] == [_named(only, "predicted").name]
    assert len(threshold_curve(table.assign(scale=0.0)).data) == 0


def test_a_measured_share_without_its_n_is_refused(table):
    with pytest.raises(LabError, match="no rate without its n; 1 of 4 lines"):
        threshold_curve(table.assign(n=[math.nan, *table["n"][1:]]))


def test_the_figure_survives_json_and_the_table_stays(table, survives_json):
    before = table.copy()
    figure = threshold_curve(table, {"trained": 2.0})
    survives_json(figure)
    pd.testing.assert_frame_equal(table, before)
