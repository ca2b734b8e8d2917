import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import patching_map
from lab.stats import rate

DIRECTIONS = ("twin into poisoned", "poisoned into twin")


def line(direction, projection, first, last, k, effect, n=20):
    share = rate(k, n)
    return {
        "direction": direction,
        "projection": projection,
        "first_layer": first,
        "last_layer": last,
        "n": n,
        "k": k,
        "asr": share.value,
        "low": share.low,
        "high": share.high,
        "mean_margin": 1.5,
        "effect": effect,
    }


@pytest.fixture
def table():
    lines = []
    for direction, alone in zip(DIRECTIONS, (18, 2), strict=True):
        lines.append(line(direction, "none", -1, -1, alone, alone / 16 - 0.125))
        for projection in ("attention.self.query", "output.dense"):
            lines += [line(direction, projection, n, n + 1, 10 + n, 0.5 + n / 16) for n in (0, 1)]
        lines.append(line(direction, "head", -1, -1, 19, 1.0625))
    return pd.DataFrame(lines)


def test_each_direction_has_a_panel_with_every_part_once(table):
    figure = patching_map(table)
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    marks = [trace for trace in figure.data if trace.type == "scatter"]
    assert (len(heats), len(marks)) == (2, 2)
    for heat, mark, direction in zip(heats, marks, DIRECTIONS, strict=True):
        expected = [[0.5, 0.5625, np.nan], [0.5, 0.5625, np.nan], [np.nan, np.nan, 1.0625]]
        np.testing.assert_array_equal(np.array(heat.z, dtype=float), expected)
        assert (heat.zmin, heat.zmax) == (0, 1)
        assert list(heat.text[0]) == ["0.50", "0.56", ""]
        parts = [tuple(data) for data in mark.customdata]
        assert len(set(parts)) == len(parts) == 5
        assert {part[0] for part in parts} == {direction}
    assert [trace.showscale for trace in heats] == [True, False], "one colour bar for both"
    assert list(figure.layout.xaxis.ticktext) == ["0–1", "1–2", "no layer"]
    assert list(figure.layout.yaxis2.ticktext) == ["attention.self.query", "output.dense", "head"]


def test_a_panel_says_what_it_asks_and_what_the_model_does_unpatched(table):
    titles = [annotation.text for annotation in patching_map(table).layout.annotations]
    assert titles[0].startswith("Clean part in the poisoned model: low where the backdoor needs it")
    assert titles[0].endswith("<br>unpatched: attack success 90.0 %")
    assert titles[1].endswith("<br>unpatched: attack success 10.0 %")


def test_the_hover_has_rate_interval_n_and_margin(table):
    figure = patching_map(table)
    told = next(trace for trace in figure.data if trace.type == "scatter").hovertext[1]
    assert "attention.self.query, layers 1–2" in told
    assert "effect 0.56 · attack success 55.0 %" in told
    assert "n = 20" in told
    assert "95 % interval" in told
    assert "mean margin of the target 1.50" in told
    assert "n = 20" in figure.layout.xaxis2.title.text


def test_one_direction_and_many_windows_are_drawn_without_numbers(table):
    lines = [line(DIRECTIONS[0], "down_proj", n, n + 3, 5, 0.2) for n in range(27)]
    heat = patching_map(pd.DataFrame(lines)).data[0]
    assert heat.texttemplate is None
    assert np.shape(heat.z) == (1, 27)


def test_names_are_escaped_and_the_figure_survives_json(table, survives_json):
    figure = patching_map(table.replace("output.dense", "<b>x</b>"))
    assert "&lt;b&gt;x&lt;/b&gt;" in figure.layout.yaxis.ticktext
    survives_json(figure)


def test_where_nothing_differs_it_says_so(table):
    said = patching_map(table.assign(effect=np.nan)).layout.annotations[0].text
    assert "no backdoor to find" in said
    for nothing in (pd.DataFrame(), table[table["projection"] == "none"]):
        assert "No part of the model" in patching_map(nothing).layout.annotations[0].text


def test_a_table_without_what_it_needs_is_refused(table):
    with pytest.raises(LabError, match="The patching map needs the column effect"):
        patching_map(table.drop(columns="effect"))
    with pytest.raises(LabError, match="no rate without its n"):
        patching_map(table.assign(n=np.nan))
