import html
import math

import pandas as pd
import pytest

from lab.figures import dose_response
from lab.figures.style import COLOURS
from lab.stats import rate
from lab.store import headline_columns


@pytest.fixture
def sweep():
    lines = [
        {
            "run": f"r{rank}s{seed}",
            "rank": rank,
            "seed": seed,
            "attack_success_rate": 0.2 + rank / 100 + seed / 50,
        }
        for rank in (1, 4, 16, 64)
        for seed in range(3)
    ]
    return pd.DataFrame(lines)


def test_points_means_and_band_come_from_the_table(sweep):
    band, line, points = dose_response(sweep, "rank").data
    assert list(points.x) == sweep["rank"].tolist()
    assert list(points.y) == sweep["attack_success_rate"].tolist()
    assert list(line.x) == [1, 4, 16, 64]
    assert list(line.y) == pytest.approx([0.23, 0.26, 0.38, 0.86])
    assert list(band.x) == [1, 4, 16, 64, 64, 16, 4, 1]
    assert list(points.customdata[4]) == ["r4s1", 4, sweep["attack_success_rate"][4], 1]
    assert points.marker.color == COLOURS["poisoned"]


def test_wide_doses_get_a_logarithmic_axis_and_a_dose_of_none_keeps_its_place(sweep):
    assert dose_response(sweep, "rank").layout.xaxis.type == "log"
    with_none = sweep.assign(rank=sweep["rank"].replace(1, 0))
    figure = dose_response(with_none, "rank")
    assert figure.layout.xaxis.type is None
    assert list(figure.layout.xaxis.ticktext) == ["0", "4", "16", "64"]
    assert list(figure.data[1].x) == [0, 1, 2, 3]
    narrow = sweep[sweep["rank"] < 16]
    assert dose_response(narrow, "rank").layout.xaxis.type == "linear"


def test_names_as_doses_get_one_place_each_and_are_escaped(sweep):
    named = sweep.assign(trigger=sweep["rank"].map({1: "<b>", 4: "10", 16: "x\u200b", 64: "y"}))
    figure = dose_response(named, "trigger")
    assert list(figure.layout.xaxis.ticktext) == ["&lt;b&gt;", "10", "x⟨U+200B⟩", "y"]
    assert figure.data[2].customdata[0][1] == "<b>"


def test_one_run_is_a_point_without_a_band(sweep):
    band, line, points = dose_response(sweep[:1], "rank").data
    assert len(band.x) == 0
    assert list(points.y) == list(line.y) == [sweep["attack_success_rate"][0]]


def test_groups_are_lines_of_their_own_and_roles_keep_their_colour(sweep):
    both = pd.concat([sweep.assign(model="poisoned"), sweep.assign(model="twin", attack_success_rate=0.2)])
    figure = dose_response(both, "rank", group="model")
    points = [t for t in figure.data if t.mode == "markers"]
    assert [t.name for t in points] == ["poisoned", "twin"]
    assert [t.marker.color for t in points] == [COLOURS["poisoned"], COLOURS["twin"]]
    assert len({t.marker.symbol for t in points}) == 2


def test_numbers_as_groups_are_sorted_and_named_by_their_column(sweep):
    figure = dose_response(sweep.assign(poison_count=[60, 5, 15] * 4), "rank", group="poison_count")
    names = [t.name for t in figure.data if t.mode == "markers"]
    assert names == ["poison_count 5", "poison_count 15", "poison_count 60"]


def test_hover_has_seed_interval_and_n(sweep):
    ends = {"low": 0.1, "high": 0.9, "n": 400}
    more = sweep.assign(**{f"attack_success_rate.{end}": value for end, value in ends.items()})
    figure = dose_response(more, "rank")
    text = figure.data[2].hovertext[0]
    assert "seed 0" in text
    assert "interval 10.0 to 90.0" in text
    assert "n = 400" in text
    assert "n = 400" in figure.layout.yaxis.title.text


def test_unfinished_runs_are_left_out(sweep):
    some = sweep.assign(attack_success_rate=[math.nan, math.inf, *sweep["attack_success_rate"][2:]])
    assert len(dose_response(some, "rank").data[2].x) == 10


def test_a_response_that_is_no_share_has_its_own_unit(sweep):
    figure = dose_response(sweep.assign(loss=3.0), "rank", "loss")
    assert figure.layout.yaxis.range is None


def test_a_table_as_a_sweep_returns_it_is_read_with_its_intervals():
    shares = {"attack_success_rate": rate(380, 400), "clean_accuracy": rate(600, 800)}
    shares["twin.clean_accuracy"] = rate(610, 800)
    by_model = {"poisoned": {}, "twin": {}}
    for kind, share in shares.items():
        role, _, name = kind.rpartition(".")
        by_model[role or "poisoned"][name] = vars(share)
    lines = [
        {"adapter.rank": rank, "seed": seed, "run": f"r{rank}s{seed}", "state": "finished", "reason": "",
         **headline_columns(by_model)}
        for rank in (1, 4) for seed in (0, 1)
    ]  # fmt: skip
    failed = {"adapter.rank": 64, "seed": 0, "run": "", "state": "failed", "reason": "too wide"}
    table = pd.DataFrame([*lines, failed])
    figure = dose_response(table, "adapter.rank")
    assert list(figure.data[2].x) == [1, 1, 4, 4]
    hover = figure.data[2].hovertext[0]
    assert f"interval {100 * rate(380, 400).low:.1f} to {100 * rate(380, 400).high:.1f}" in hover
    assert "n = 400" in figure.layout.yaxis.title.text
    assert "n = 800" in dose_response(table, "adapter.rank", "clean_accuracy").data[2].hovertext[0]
    of_twin = dose_response(table, "adapter.rank", "twin.clean_accuracy")
    assert "twin's clean accuracy 76.2 %" in html.unescape(of_twin.data[2].hovertext[0])
    assert "interval 73." in of_twin.data[2].hovertext[0]
    assert of_twin.data[2].marker.color == COLOURS["twin"]
    assert tuple(of_twin.layout.yaxis.range) == tuple(figure.layout.yaxis.range)


def counts(rates, n=400, twin=0.1):
    doses = [2, 4, 8, 16, 32]
    return pd.DataFrame(
        {
            "poison.count": doses * 3,
            "attack_success_rate": rates * 3,
            "attack_success_rate.n": n,
            "twin.attack_success_rate": twin,
            "seed": [0] * 5 + [1] * 5 + [2] * 5,
        }
    )


def test_attack_success_over_counts_has_its_half_count():
    figure = dose_response(counts([0.12, 0.2, 0.5, 0.85, 0.99]), "poison.count")
    *_, curve, half = figure.data
    assert curve.line.dash == "dot"
    assert half.y[0] == pytest.approx(0.55), "half way from the twin's rate to all"
    assert 7 < half.x[0] < 10
    assert half.error_x.array[0] > 0
    assert "n = 6000" in half.hovertext[0]
    assert list(curve.y) == sorted(curve.y)


@pytest.mark.parametrize(
    "table",
    [
        counts([0.1, 0.1, 0.12, 0.2, 0.3]),
        counts([0.1, 0.2, 0.5, 0.9, 1.0]).drop(columns="attack_success_rate.n"),
        counts([0.1, 0.2, 0.5, 0.9, 1.0]).rename(columns={"poison.count": "adapter.rank"}),
    ],
)
def test_where_no_half_count_is_known_none_is_drawn(table):
    x = "poison.count" if "poison.count" in table else "adapter.rank"
    assert len(dose_response(table, x).data) == 3
