import math

import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import defense_frontier
from lab.figures._spots import label_spots
from lab.stats import rate
from lab.store import headline_columns


@pytest.fixture
def sweep():
    lines = [
        {
            "arm": arm,
            "seed": seed,
            "run": f"{arm}{seed}",
            "clean_accuracy": acc + seed / 100,
            "excess_asr": asr,
        }
        for arm, acc, asr in (("lora", 0.80, 0.8), ("rora", 0.79, 0.1))
        for seed in range(3)
    ]
    return pd.DataFrame(lines)


def _runs(figure):
    return [trace for trace in figure.data if trace.mode == "markers" and trace.x[0] is not None]


def _means(figure):
    return [trace for trace in figure.data if trace.mode == "markers+text"]


def test_runs_are_small_and_means_large_and_named(sweep):
    figure = defense_frontier(sweep)
    lora, rora = _runs(figure)
    assert list(lora.x) == pytest.approx([0.80, 0.81, 0.82])
    assert list(rora.y) == [0.1] * 3
    assert [list(data) for data in rora.customdata] == [["rora", seed, f"rora{seed}"] for seed in range(3)]
    _, mean = _means(figure)
    assert (mean.x[0], mean.y[0]) == pytest.approx((0.80, 0.1))
    assert list(mean.customdata[0]) == ["rora", -1, "rora0,rora1,rora2"]
    assert list(mean.text) == ["rora"]
    assert mean.marker.size > rora.marker.size
    assert mean.marker.color == rora.marker.color != lora.marker.color
    assert mean.marker.symbol != lora.marker.symbol
    assert "mean of 3 runs · 95 % interval 79.0 to 81.0" in mean.hovertext[0]
    assert "worse" in figure.layout.yaxis.title.text


def test_the_corner_starts_from_the_reference(sweep):
    figure = defense_frontier(sweep, target_rate=0.1, accuracy_drop=0.03)
    (corner,) = figure.layout.shapes
    assert corner.x0 == pytest.approx(0.81 - 0.03)
    assert corner.x1 == figure.layout.xaxis.range[1]
    assert corner.y1 == 0.1
    assert "at most 10 %" in figure.data[-1].name
    without = defense_frontier(sweep, reference="<none>")
    assert not without.layout.shapes
    assert without.data[-1].name.endswith("no run of the arm &lt;none&gt;")


def test_a_sweeps_table_brings_error_bars_and_counts():
    shares = {"attack_success_rate": rate(40, 400), "clean_accuracy": rate(600, 800)}
    columns = headline_columns({"poisoned": {name: vars(share) for name, share in shares.items()}})
    figure = defense_frontier(pd.DataFrame([{"arm": "lora", "seed": 0, **columns}]), "attack_success_rate")
    (run,) = _runs(figure)
    low, high = shares["attack_success_rate"].low, shares["attack_success_rate"].high
    assert run.error_y.array[0] == pytest.approx(high - 0.1)
    assert run.error_y.arrayminus[0] == pytest.approx(0.1 - low)
    assert run.error_x.array[0] == pytest.approx(shares["clean_accuracy"].high - 0.75)
    assert "n = 400" in run.hovertext[0]
    assert list(run.customdata[0]) == ["lora", 0, ""]
    assert "one run" in _means(figure)[0].hovertext[0]
    assert "n = 400" in figure.layout.yaxis.title.text
    assert "n = 800" in figure.layout.xaxis.title.text


def test_triggers_are_panels_with_one_legend_and_their_own_corner(sweep):
    other = sweep.assign(trigger="<iso>", clean_accuracy=sweep["clean_accuracy"] - 0.1)
    third = sweep[sweep["arm"] == "rora"].assign(trigger="pep")
    figure = defense_frontier(pd.concat([sweep.assign(trigger="rfc"), other, third]))
    assert [a.text for a in figure.layout.annotations] == ["rfc", "&lt;iso&gt;", "pep"]
    assert [shape.x0 for shape in figure.layout.shapes] == pytest.approx([0.79, 0.69])
    assert [trace.xaxis for trace in _means(figure)] == ["x", "x", "x2", "x2", "x3"]
    assert [trace.showlegend for trace in _means(figure)] == [True, True, False, False, False]


def test_unfinished_runs_are_left_out(sweep):
    some = sweep.assign(excess_asr=[math.nan, math.inf, *sweep["excess_asr"][2:]])
    before = some.copy()
    assert len(_runs(defense_frontier(some))[0].x) == 1
    pd.testing.assert_frame_equal(some, before)
    assert len(defense_frontier(sweep.assign(excess_asr=math.nan)).data) == 0


def test_a_rate_below_zero_is_inside(sweep):
    figure = defense_frontier(sweep.assign(excess_asr=-0.2))
    assert figure.layout.yaxis.range[0] < -0.2


def test_another_rate_is_refused(sweep):
    with pytest.raises(LabError, match="allowed: excess_asr, attack_success_rate"):
        defense_frontier(sweep, rate="loss")


def test_many_arms(sweep):
    many = pd.concat([sweep.assign(arm=f"arm {i}") for i in range(20)])
    looks = {(trace.marker.color, trace.marker.symbol) for trace in _means(defense_frontier(many))}
    assert len(looks) == 20


def test_names_are_escaped_and_the_figure_survives_json(sweep, survives_json):
    figure = defense_frontier(sweep.assign(arm="<b>%{x}", seed="<i>"))
    (mean,) = _means(figure)
    assert mean.name == mean.text[0] == "&lt;b&gt;&#37;{x}"
    assert mean.customdata[0][0] == "<b>%{x}"
    (run,) = _runs(figure)
    assert run.hovertext[0].startswith("<b>&lt;b&gt;&#37;{x}</b>, seed &lt;i&gt;<br>")
    survives_json(figure)


def test_names_go_where_nothing_lies():
    unit = ((0.0, 1.0), (0.0, 1.0))
    assert label_spots([(0.5, 0.5)], ["lora"], unit, (600, 300)) == ["top center"]
    assert label_spots([(0.5, 0.99)], ["lora"], unit, (600, 300)) == ["bottom center"]
    stacked = label_spots([(0.5, 0.5), (0.5, 0.56)], ["lora", "rora"], unit, (600, 300))
    assert stacked == ["bottom center", "top center"]
    beside_the_edge = label_spots([(0.99, 0.0)], ["a long name"], unit, (600, 300))
    assert beside_the_edge[0].endswith("left")
