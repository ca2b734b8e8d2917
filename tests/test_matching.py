import math

import pandas as pd

from lab.matching import with_drifted, with_matched


def swept(*lines):
    table = pd.DataFrame(lines, columns=["adapter.rank", "seed", "twin.clean_accuracy"])
    return table.assign(**{"alpha/r": 2.0})


def test_points_are_judged_by_the_mean_of_their_twins_over_seeds():
    table = swept((1, 0, 0.70), (1, 1, 0.80), (8, 0, 0.81), (8, 1, 0.80), (64, 0, 0.80), (64, 1, 0.79))
    found = with_matched(table, ["adapter.rank"])
    assert dict(zip(found["adapter.rank"], found["matched"], strict=True)) == {
        1: "not matched", 8: "matched", 64: "matched",
    }  # fmt: skip
    assert list(found.columns).index("matched") == list(found.columns).index("alpha/r") - 1
    assert found.drop(columns="matched").equals(table)


def test_a_point_without_a_twin_is_neither():
    found = with_matched(swept((1, 0, math.nan), (8, 0, 0.8)), ["adapter.rank"])
    assert found["matched"].tolist() == ["", "matched"]


def test_seeds_alone_are_one_point():
    assert set(with_matched(swept((8, 0, 0.7), (8, 1, 0.9)), [])["matched"]) == {"matched"}


def test_without_twins_nothing_is_said():
    table = pd.DataFrame({"seed": [0], "run": ["r"]})
    assert with_matched(table, []) is table


def rated(*pairs):
    table = pd.DataFrame(pairs, columns=["untriggered_target_rate", "twin.untriggered_target_rate"])
    return table.assign(run="r", **{"alpha/r": 1.0})


def test_a_model_that_gives_the_target_without_the_trigger_has_drifted():
    table = rated((0.97, 0.30), (0.45, 0.20), (0.44, 0.20), (0.10, 0.60), (math.nan, 0.20))
    found = with_drifted(table)
    assert found["drifted"].tolist() == ["drifted", "drifted", "", "", ""]
    assert list(found.columns).index("drifted") == list(found.columns).index("alpha/r") - 1
    assert found.drop(columns="drifted").equals(table)


def test_without_untriggered_rates_nothing_is_said_of_drift():
    flips = swept((1, 0, 0.7))
    assert with_drifted(flips) is flips
