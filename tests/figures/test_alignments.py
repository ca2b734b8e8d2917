import math

import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import alignment_map

COLUMNS = ["module", "layer", "side", "k", "share", "uniform"]


@pytest.fixture
def table():
    lines = []
    for side, times in (("left", 1), ("right", 2)):
        for k in (1, 8):
            lines += [
                ("layer.0.query", 0, side, k, times * k / 100, k / 100),
                ("layer.1.query", 1, side, k, times * 4 * k / 100, k / 100),
                ("layer.1.value", 1, side, k, times * k / 200, k / 100),
            ]
    return pd.DataFrame(lines, columns=COLUMNS)


def test_cells_are_times_a_random_updates_share(table):
    figure = alignment_map(table)
    heat, cells = figure.data
    # The colour is read from powers of two, so that twice and half lie equally far from 1.
    assert np.array(heat.z) == pytest.approx(np.array([[0, 2], [np.nan, -1]]), nan_ok=True)
    assert [list(line) for line in heat.text] == [["1", "4"], ["", "0.5"]]
    assert (heat.zmin, heat.zmax) == (-2, 2)
    assert [list(data) for data in cells.customdata] == [
        ["layer.0.query", 0, 1.0],
        ["layer.1.query", 1, 4.0],
        ["layer.1.value", 1, 0.5],
    ]
    assert list(figure.layout.yaxis.ticktext) == ["query", "value"]
    assert "share 32.0 % · random 8.0 %" in cells.hovertext[1]
    assert "left side, k = 8" in cells.hovertext[1]
    assert heat.colorbar.ticktext[list(heat.colorbar.tickvals).index(0)] == "<b>1</b>"


def test_side_and_k_choose_the_lines(table):
    _, cells = alignment_map(table, side="right", k=1).data
    assert [data[2] for data in cells.customdata] == [2, 8, 1]


def test_what_was_not_measured_is_refused_with_what_was(table):
    with pytest.raises(LabError, match=r"side is 'top'; measured: left, right\."):
        alignment_map(table, side="top")
    with pytest.raises(LabError, match=r"k is 3; measured on the left side: 1, 8\."):
        alignment_map(table, k=3)


def test_one_cell_at_the_random_share_is_pale_and_scaled_to_twice():
    table = pd.DataFrame([("head", -1, "left", 8, 0.5, 0.5)], columns=COLUMNS)
    heat, _ = alignment_map(table).data
    assert (heat.z[0][0], heat.zmin, heat.zmax) == (0, -1, 1)


def test_a_share_of_nothing_is_at_the_end_of_the_scale_and_a_missing_one_nowhere(table):
    table = table.assign(share=[*table["share"][:3], 0.0, math.nan, *table["share"][5:]])
    heat, cells = alignment_map(table).data
    assert heat.z[0][0] == heat.zmin
    assert math.isnan(heat.z[0][1])
    assert len(cells.x) == 2
    nothing = table[:0]
    assert len(alignment_map(nothing).data) == 0


def test_many_layers_and_large_ratios():
    lines = [(f"layers.{i}.q", i, "left", 8, min(1, 2.0**i / 4096), 1 / 4096) for i in range(40)]
    heat, cells = alignment_map(pd.DataFrame(lines, columns=COLUMNS)).data
    assert heat.texttemplate is None
    assert heat.zmax == 12
    assert len(heat.colorbar.tickvals) <= 9
    assert len(cells.x) == 40


def test_names_are_escaped_and_the_figure_survives_json(table, survives_json):
    figure = alignment_map(table.assign(module="layer.0.<b>%{x}", side="<i>"), side="<i>")
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;&#37;{x}"
    assert "<i>" not in figure.data[0].colorbar.title.text
    assert "<b>%" not in figure.data[1].hovertext[0]
    assert figure.data[1].customdata[0][0] == "layer.0.<b>%{x}"
    survives_json(figure)
