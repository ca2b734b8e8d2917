import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import alignment_curve

COLUMNS = ["module", "layer", "side", "k", "share", "uniform"]


@pytest.fixture
def table():
    lines = [
        (
            f"layer.{layer}.{kind}",
            layer,
            side,
            k,
            (2 + layer) * k / 400,
            k / (400 if side == "left" else wide),
        )
        for side in ("left", "right")
        for layer in (0, 1)
        for kind, wide in (("query", 400), ("dense", 1600))
        for k in (1, 4, 16)
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def _lines(figure):
    return [trace for trace in figure.data if trace.legendgroup != " random"]


def _random(figure):
    return [trace for trace in figure.data if trace.legendgroup == " random"]


def test_a_line_is_the_mean_over_layers_with_a_panel_per_side(table):
    figure = alignment_curve(table)
    lines = _lines(figure)
    assert [(line.name, line.xaxis) for line in lines] == [
        ("query", "x"), ("dense", "x"), ("query", "x2"), ("dense", "x2"),
    ]  # fmt: skip
    assert list(lines[0].x) == [1, 4, 16]
    assert list(lines[0].y) == pytest.approx([2.5 / 400, 10 / 400, 40 / 400])
    assert list(lines[0].customdata[1]) == ["query", 4]
    assert "mean of 2 matrices, 2.0 % to 3.0 %" in lines[0].hovertext[1]
    assert "2.5 times random" in lines[0].hovertext[1]
    assert [line.showlegend for line in lines] == [True, True, False, False]
    assert lines[0].line.color == lines[2].line.color != lines[1].line.color
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert "output side" in figure.layout.annotations[0].text
    assert "input side" in figure.layout.annotations[1].text


def test_the_random_share_is_dashed_once_per_width(table):
    left, narrow, wide = _random(alignment_curve(table))
    assert {trace.line.dash for trace in (left, narrow, wide)} == {"dash"}
    assert list(left.y) == [1 / 400, 4 / 400, 16 / 400]
    assert left.mode == "lines"
    assert list(wide.y) == [1 / 1600, 4 / 1600, 16 / 1600]
    assert wide.text[-1] == " k/1600"
    assert "dense, width 1600" in wide.hovertext[0]
    assert [trace.showlegend for trace in (left, narrow, wide)] == [True, False, False]


def test_one_module_is_one_line_per_side(table):
    lines = _lines(alignment_curve(table, module="layer.1.dense"))
    assert [line.name for line in lines] == ["layer.1.dense"] * 2
    assert list(lines[0].y) == pytest.approx([3 / 400, 12 / 400, 48 / 400])
    assert "layer 1" in lines[0].hovertext[0]
    with pytest.raises(LabError, match=r"module is 'dense'; measured: layer\.0\.query, .*dense\.$"):
        alignment_curve(table, module="dense")
    many = pd.concat([table.assign(module=f"layer.{i}.x") for i in range(9)])
    with pytest.raises(LabError, match="and 3 more"):
        alignment_curve(many, module="dense")


def test_one_line_of_the_table_is_two_marks_in_one_panel(table):
    figure = alignment_curve(table[:1])
    assert len(figure.data) == 2
    assert _random(figure)[0].mode == "markers"
    low, high = figure.layout.yaxis.range
    assert low < high


def test_shares_of_zero_have_no_place_and_the_table_stays(table):
    zeros = table.assign(share=table["share"].where(table["k"] > 1, 0.0))
    before = zeros.copy()
    assert list(_lines(alignment_curve(zeros))[0].x) == [4, 16]
    pd.testing.assert_frame_equal(zeros, before)
    figure = alignment_curve(table.assign(share=0.0))
    assert list(_lines(figure)[0].x) == []


def test_names_are_escaped_and_the_figure_survives_json(table, survives_json):
    figure = alignment_curve(table.assign(module="<b>%{x}", side="<i>"))
    (line,) = _lines(figure)
    assert line.name == "&lt;b&gt;&#37;{x}"
    assert figure.layout.annotations[0].text == "&lt;i&gt;"
    assert "<b>%" not in line.hovertext[0] + _random(figure)[0].hovertext[0]
    survives_json(figure)
