import math

import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import spectral_strength
from lab.tables import SPECTRUM_COLUMNS


def _table(lines):
    return pd.DataFrame(lines, columns=list(SPECTRUM_COLUMNS))


def test_cells_are_the_ratio_of_the_largest_values_at_the_last_step():
    table = _table(
        [
            (10, "layer.0.query", 0, 0, 9.0, math.nan),
            (20, "layer.0.query", 0, 0, 2.0, 4.0),
            (20, "layer.0.query", 0, 1, 1.0, 3.0),
            (20, "layer.1.query", 1, 0, 3.0, 4.0),
            (20, "layer.1.value", 1, 0, 1.0, 10.0),
        ]
    )
    figure = spectral_strength(table)
    heat, cells = figure.data
    assert np.array(heat.z) == pytest.approx(np.array([[0.5, 0.75], [np.nan, 0.1]]), nan_ok=True)
    assert list(figure.layout.yaxis.ticktext) == ["query", "value"]
    assert list(figure.layout.xaxis.ticktext) == ["0", "1"]
    assert list(cells.customdata[0]) == ["layer.0.query", 0, 0.5]
    for x, y, data in zip(cells.x, cells.y, cells.customdata, strict=True):
        assert heat.z[y][x] == pytest.approx(data[2])


def test_one_cell():
    heat, _ = spectral_strength(_table([(5, "head", -1, 0, 1.0, 2.0)])).data
    assert np.array(heat.z).tolist() == [[0.5]]


def test_without_the_base_there_is_a_sentence():
    figure = spectral_strength(_table([(5, "layer.0.query", 0, 0, 1.0, math.nan)]))
    assert len(figure.data) == 0
    assert "base weights" in figure.layout.annotations[0].text


def test_many_layers_have_no_numbers_in_their_cells():
    table = _table([(5, f"layers.{i}.q_proj", i, 0, 1.0, 2.0 + i) for i in range(40)])
    assert spectral_strength(table).data[0].texttemplate is None


def test_names_are_escaped():
    figure = spectral_strength(_table([(5, "layer.0.<b>", 0, 0, 1.0, 2.0)]))
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;"
    assert "layer.0.&lt;b&gt;" in figure.data[1].hovertext[0]


def test_a_table_of_strengths_is_drawn_as_it_is():
    table = pd.DataFrame(
        [("layer.0.query", 0, 0.2), ("layer.1.<b>", 1, 0.4), ("layer.1.query", 1, math.nan)],
        columns=["module", "layer", "strength"],
    )
    figure = spectral_strength(table)
    heat, cells = figure.data
    assert np.array(heat.z) == pytest.approx(np.array([[0.2, np.nan], [np.nan, 0.4]]), nan_ok=True)
    assert list(cells.customdata[1]) == ["layer.1.<b>", 1, 0.4]
    assert cells.hovertext[1] == "<b>layer.1.&lt;b&gt;</b><br>strength 0.4"
    assert heat.zmax == 0.4


def test_a_table_without_one_known_strength_is_a_sentence():
    for rows in ([], [("head", -1, math.nan)]):
        figure = spectral_strength(pd.DataFrame(rows, columns=["module", "layer", "strength"]))
        assert len(figure.data) == 0
    with pytest.raises(LabError, match="layer"):
        spectral_strength(pd.DataFrame({"module": ["head"], "strength": [0.1]}))
