import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.figures import rate_map
from lab.stats import rate
from lab.store import headline_columns


def run_line(rank, count, k, seed=0, **more):
    columns = headline_columns({"poisoned": {"attack_success_rate": vars(rate(k, 100))}})
    name = f"r{rank}-n{count}-s{seed}"
    return {"run": name, "seed": seed, "adapter.rank": rank, "poison.count": count, **columns, **more}


@pytest.fixture
def sweep():
    return pd.DataFrame(
        [run_line(64, 15, 90), run_line(1, 60, 40), run_line(1, 15, 10)]
        + [run_line(64, 60, k, seed) for seed, k in enumerate((98, 99, 100))]
    )


def parts(figure):
    return figure.data


def test_cells_hold_the_mean_rate_with_numbers_in_order(sweep):
    figure = rate_map(sweep)
    heat, _, cells = parts(figure)
    assert list(figure.layout.xaxis.ticktext) == ["1", "64"]
    assert list(figure.layout.yaxis.ticktext) == ["15", "60"]
    assert figure.layout.yaxis.range[0] < figure.layout.yaxis.range[1], "more is higher up"
    assert np.array(heat.z) == pytest.approx(np.array([[0.1, 0.9], [0.4, 0.99]]))
    assert [list(row) for row in heat.text] == [["10", "90"], ["40", "99"]]
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert heat.colorbar.title.text == "attack success rate, n = 100 to 300"
    assert len(cells.x) == 4


def test_marks_hand_over_the_runs_of_their_cell(sweep):
    heat, _, cells = parts(rate_map(sweep))
    by_place = {(x, y): list(data) for x, y, data in zip(cells.x, cells.y, cells.customdata, strict=True)}
    assert by_place[1, 1] == [64, 60, "r64-n60-s0,r64-n60-s1,r64-n60-s2"]
    assert by_place[0, 0] == [1, 15, "r1-n15-s0"]
    assert heat.z[0][1] == pytest.approx(0.9)
    assert cells.marker.opacity == 0
    assert cells.selected.marker.opacity > 0
    assert heat.hoverinfo == "skip"


def test_the_hover_says_seeds_runs_and_rows(sweep):
    cells = parts(rate_map(sweep))[-1]
    one, many = cells.hovertext[0], cells.hovertext[3]
    assert one.startswith("<b>adapter rank 1, poison count 15</b><br>attack success rate 10.0 %")
    assert "95 % interval 5.5 to 17.4 · n = 100<br>1 seed" in one
    assert "mean of 3 runs · 95 % interval 98.0 to 100.0 · n = 300<br>3 seeds" in many
    assert "differ" not in many


def test_runs_that_differ_in_more_than_the_seed_are_said_to(sweep):
    more = pd.concat([sweep, pd.DataFrame([run_line(1, 15, 30, run="another family")])])
    assert "1 seed, 2 runs: they differ in more than the seed" in parts(rate_map(more))[-1].hovertext[0]


def test_a_run_in_two_lines_counts_once(sweep):
    heat, _, cells = parts(rate_map(pd.concat([sweep, sweep])))
    assert heat.z[0][0] == pytest.approx(0.1)
    assert cells.customdata[0][2] == "r1-n15-s0"
    assert "mean" not in cells.hovertext[0]


def test_missing_cells_say_so(sweep):
    failed = {"run": "", "seed": 0, "adapter.rank": 8, "poison.count": 15, "state": "failed"}
    heat, missing, cells = parts(rate_map(pd.concat([sweep, pd.DataFrame([failed])])))
    assert dict(zip(zip(missing.x, missing.y, strict=True), missing.text, strict=True)) == {
        (1, 0): "no rate",
        (1, 1): "no run",
    }
    assert math.isnan(heat.z[0][1])
    assert heat.text[0][1] == ""
    said = dict(zip(zip(cells.x, cells.y, strict=True), cells.hovertext, strict=True))
    assert said[1, 0].endswith("run, but without this rate")
    assert said[1, 1].endswith("no run here")
    assert list(cells.customdata[1]) == [8, 15, ""]


def test_a_listing_names_its_runs_id_and_has_runs_without_poison(sweep):
    clean = {"run": "clean", "seed": 0, "adapter.rank": 8}
    listing = pd.concat([sweep, pd.DataFrame([clean])]).rename(columns={"run": "id"})
    figure = rate_map(listing)
    assert list(figure.layout.xaxis.ticktext) == ["1", "64"]
    assert parts(figure)[-1].customdata[0][2] == "r1-n15-s0"


def test_excess_is_in_points_and_the_twins_rate_is_its_own(sweep):
    table = sweep.assign(**{"excess_asr": sweep["attack_success_rate"] - 0.5, "twin.clean_accuracy": 0.8})
    heat = parts(rate_map(table, value="excess_asr"))[0]
    assert (heat.zmin, heat.zmax) == (-1, 1)
    assert list(heat.text[0]) == ["-40", "+40"]
    assert "points" in heat.colorbar.title.text
    twin = parts(rate_map(table, value="twin.clean_accuracy"))
    assert twin[0].colorbar.title.text == "clean twin's clean accuracy"
    assert "clean twin's clean accuracy 80.0 %" in twin[-1].hovertext[0]


def test_names_stand_as_they_appear_and_lists_are_told_apart(sweep):
    table = sweep.assign(arm=["rora"] * 3 + ["lora"] * 3, defense=[["a"], ["b"], ["a"], [], [], []])
    figure = rate_map(table, x="defense", y="arm")
    assert list(figure.layout.yaxis.ticktext) == ["rora", "lora"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1], "the first is on top"
    assert list(figure.layout.xaxis.ticktext) == ["['a']", "['b']", "[]"]


def test_names_are_escaped_and_the_figure_survives_json(sweep, survives_json):
    figure = rate_map(sweep.assign(family="<b>%{x}"), y="family")
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;&#37;{x}"
    assert parts(figure)[-1].customdata[0][1] == "<b>%{x}"
    survives_json(figure)


def test_the_table_is_left_alone(sweep):
    before = sweep.copy()
    rate_map(sweep)
    pd.testing.assert_frame_equal(sweep, before)


def test_what_is_no_map_is_refused(sweep):
    with pytest.raises(LabError, match="Valid: attack_success_rate"):
        rate_map(sweep, value="training.tokens")
    with pytest.raises(LabError, match="both 'seed'"):
        rate_map(sweep, x="seed", y="seed")
    with pytest.raises(LabError, match="needs the column arm"):
        rate_map(sweep, x="arm")
    assert len(rate_map(sweep.assign(attack_success_rate=math.nan)).data) == 0


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 4, 16]), st.sampled_from([0, 15]), st.integers(0, 100), st.integers(0, 2)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_cell_is_marked_once_and_holds_the_mean_of_its_runs(drawn):
    table = pd.DataFrame([run_line(*line) | {"run": f"run {i}"} for i, line in enumerate(drawn)])
    heat, missing, cells = parts(rate_map(table))
    ranks, counts = sorted({line[0] for line in drawn}), sorted({line[1] for line in drawn})
    assert sorted(zip(cells.x, cells.y, strict=True)) == [
        (i, j) for i in range(len(ranks)) for j in range(len(counts))
    ]
    ids = [name for data in cells.customdata for name in data[2].split(",") if name]
    assert sorted(ids) == sorted(table["run"])
    for i, rank in enumerate(ranks):
        for j, count in enumerate(counts):
            own = [k / 100 for r, c, k, _ in drawn if (r, c) == (rank, count)]
            assert heat.z[j][i] == pytest.approx(np.mean(own) if own else math.nan, nan_ok=True)
            assert ((i, j) in zip(missing.x, missing.y, strict=True)) == (not own)
