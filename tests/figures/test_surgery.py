import math

import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import surgery_curve
from lab.figures.style import COLOURS
from lab.stats import rate


def _line(kept, kind, k, n=200):
    share = rate(k, n)
    return {"kept": kept, "kind": kind, "value": share.value, "low": share.low, "high": share.high, "n": n}


@pytest.fixture
def table():
    return pd.DataFrame(
        [
            _line(kept, kind, k + kept)
            for kept in (4, 0, 1, 2)
            for kind, k in (("attack_success_rate", 40), ("clean_accuracy", 150), ("same_tokens", 0))
        ]
    )


def _curves(figure):
    return {trace.name: trace for trace in figure.data if trace.hoverinfo != "skip"}


def test_curves_hold_the_tables_values_with_their_bands(table):
    figure = surgery_curve(table)
    curves = _curves(figure)
    assert list(curves) == ["attack success", "clean accuracy"]
    attack = curves["attack success"]
    assert list(attack.x) == [0, 1, 2, 4]
    assert list(attack.y) == [0.2, 41 / 200, 42 / 200, 44 / 200]
    assert attack.line.color == COLOURS["poisoned"]
    assert [list(data) for data in attack.customdata][-1] == [4, "attack_success_rate"]
    assert "n = 200" in attack.hovertext[0]
    band = figure.data[0]
    assert band.fill == "toself"
    assert band.y[0] == rate(40, 200).high
    assert "kept" in figure.layout.xaxis.title.text
    assert "n = 200" in figure.layout.yaxis.title.text


def test_wide_counts_with_none_are_evenly_spaced_and_factors_logarithmic(table):
    wide = pd.DataFrame([_line(kept, "attack_success_rate", 50) for kept in (0, 1, 4, 16, 64)])
    figure = surgery_curve(wide)
    assert list(_curves(figure)["attack success"].x) == [0, 1, 2, 3, 4]
    assert list(figure.layout.xaxis.ticktext) == ["0", "1", "4", "16", "64"]
    factors = wide[1:].rename(columns={"kept": "factor"})
    assert surgery_curve(factors, over="factor").layout.xaxis.type == "log"
    full = pd.DataFrame([_line(kept, "attack_success_rate", 50) for kept in range(65)])
    assert len(surgery_curve(full).layout.xaxis.ticktext) <= 12


def test_another_column_names_its_axis(table):
    figure = surgery_curve(table.rename(columns={"kept": "<b>_scale"}), over="<b>_scale")
    assert figure.layout.xaxis.title.text == "&lt;b&gt; scale"
    with pytest.raises(LabError, match="needs the column factor"):
        surgery_curve(table, over="factor")


def test_one_place_has_whiskers(table):
    attack = _curves(surgery_curve(table[:1]))["attack success"]
    assert list(attack.x) == [4]
    assert attack.error_y.array[0] > 0


def test_a_rate_without_its_n_is_refused_and_one_of_no_rows_left_out(table):
    for unknown in (math.nan, -1):
        with pytest.raises(LabError, match=r"no rate without its n; 1 of 8 lines"):
            surgery_curve(table.assign(n=[unknown, *table["n"][1:]]))
    none = table.assign(n=[0, *table["n"][1:]])
    assert list(_curves(surgery_curve(none))["attack success"].x) == [0, 1, 2]
    nothing = surgery_curve(table.assign(n=0))
    assert len(nothing.data) == 0
    unmeasured = table.assign(value=[math.nan, *table["value"][1:]], n=[math.nan, *table["n"][1:]])
    assert len(_curves(surgery_curve(unmeasured))["attack success"].x) == 3


def test_seeds_at_one_place_are_averaged(table):
    more = pd.concat(
        [table, table.assign(value=table["value"] + 0.1), table.assign(value=table["value"] + 0.2)]
    )
    before = more.copy()
    attack = _curves(surgery_curve(more))["attack success"]
    assert attack.y[0] == pytest.approx(0.3)
    assert "mean of 3 runs" in attack.hovertext[0]
    assert "n = 600" in attack.hovertext[0]
    pd.testing.assert_frame_equal(more, before)


def test_the_figure_survives_json(table, survives_json):
    figure = surgery_curve(table)
    survives_json(figure)
