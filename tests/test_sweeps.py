import pandas as pd
import pytest

import lab
from lab.defend import settle
from lab.errors import LabError
from lab.presets import is_sweep, load_sweep, sweep_names
from lab.sweeps import grid_points


def test_a_grid_is_every_combination():
    assert grid_points({"a": [1, 2], "b": ["x"]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert grid_points({}) == [{}]


@pytest.mark.parametrize("over", [{"adapter.rank": []}, {"adapter.rank": "48"}, {"seed": [1, 2]}])
def test_a_grid_that_means_nothing_is_refused(over):
    with pytest.raises(LabError):
        grid_points(over)


def test_a_sweep_is_a_table_of_ordinary_runs(tiny):
    events = []
    table = lab.sweep(tiny, {"poison.count": [6, 12]}, seeds=2, on_event=events.append)
    assert table[["poison.count", "seed"]].to_numpy().tolist() == [[6, 0], [6, 1], [12, 0], [12, 1]]
    assert (table["state"] == "finished").all()
    for kind in ("attack_success_rate", "clean_accuracy"):
        assert (table[f"{kind}.low"] <= table[kind]).all()
        assert (table[kind] <= table[f"{kind}.high"]).all()
        assert (table[f"{kind}.n"] > 0).all()
    runs = lab.list_runs()
    assert set(table["run"]) <= set(runs["id"])
    assert len(runs) == 6, "four cells and two twins, shared over the counts"


def test_a_sweep_asked_again_trains_nothing(tiny):
    first = lab.sweep(tiny, {"adapter.rank": [1, 2]}, seeds=1)
    events = []
    again = lab.sweep(tiny, {"adapter.rank": [1, 2, 4]}, seeds=1, on_event=events.append)
    pd.testing.assert_frame_equal(again.head(2), first)
    trained = [e["run"] for e in events if e.get("stage") == "train" and e["kind"] == "status"]
    assert len(trained) == 2, "the new cell and its twin"


def test_what_is_confounded_with_a_rank_stands_beside_it(tiny):
    table = lab.sweep(
        tiny, {"adapter.kind": ["lora", "full"], "adapter.alpha": [4.0]}, seeds=1, twin=False
    )  # fmt: skip
    assert table.loc[0, "alpha/r"] == 1.0
    assert pd.isna(table.loc[1, "alpha/r"]), "full fine-tuning has no rank"
    assert (table["training.learning_rate"] == 0.01).all()
    steps = [lab.load_run(run).experiment.training.steps for run in table["run"]]
    assert table["training.steps"].tolist() == steps
    assert min(steps) > 0


def test_a_key_of_the_grid_keeps_its_place_and_value(tiny):
    table = lab.sweep(tiny, {"training.learning_rate": [1e-3, 1e-2]}, seeds=1, twin=False)
    assert list(table.columns[:3]) == ["training.learning_rate", "seed", "run"]
    assert list(table.columns).count("training.learning_rate") == 1
    assert table["training.learning_rate"].tolist() == [1e-3, 1e-2]


def test_a_failing_cell_is_recorded_and_stops_nothing(tiny):
    table = lab.sweep(tiny, {"adapter.rank": [33, 2]}, seeds=1, twin=False)
    assert table["state"].tolist() == ["failed", "finished"]
    assert "32 wide" in table.loc[0, "reason"]


def test_a_wrong_key_is_told_before_anything_runs(tiny):
    with pytest.raises(LabError, match="Unknown key"):
        lab.sweep(tiny, {"adapter.rnk": [1]}, seeds=1)
    assert lab.list_runs().empty


def test_tuning_looks_at_validation_rows_only(tiny):
    best, tried = lab.tune(tiny, {"training.learning_rate": [1e-6, 1e-2]}, "clean_accuracy", seeds=1)
    assert set(tried["split"]) == {"validation"}
    means = tried.groupby("training.learning_rate")["clean_accuracy"].mean()
    assert best.training.learning_rate == means.idxmax()
    assert best.probe == tiny.probe, "the chosen experiment looks at what it looked at before"
    for run in lab.list_runs()["id"]:
        assert set(lab.load_run(run).result["measures"]) == {"validation"}


def test_every_point_of_a_sweep_can_be_tuned(tiny):
    table = lab.sweep(
        tiny,
        {"adapter.rank": [1, 2]},
        seeds=1,
        twin=False,
        tune={"over": {"training.learning_rate": [1e-6, 1e-2]}, "measure": "clean_accuracy"},
    )
    assert set(table["training.learning_rate"]) <= {1e-6, 1e-2}
    assert set(table["split"]) == {"test"}


def test_an_unknown_measure_is_refused(tiny):
    with pytest.raises(LabError, match="Unknown measure 'acuracy'"):
        lab.tune(tiny, {"adapter.rank": [1]}, "acuracy")
    table = lab.sweep(tiny, {}, seeds=1, tune={"what": 1})
    assert "tune: give" in table.loc[0, "reason"]


def test_arms_are_named_ways_to_run_every_point(tiny):
    quick = tiny.with_(**{"training.epochs": 0, "training.steps": 4, "probe.scope": "headline"})
    arms = {
        "plain": {},
        "half": {"defense": [{"name": "scale", "factor": 0.5}]},
        "decay": {"defense": "weight_decay"},
    }
    events = []
    table = lab.sweep(quick, {"adapter.rank": [1, 2]}, arms=arms, seeds=1, twin=False, on_event=events.append)
    assert table["arm"].tolist() == ["plain", "half", "decay"] * 2
    assert (table["state"] == "finished").all()
    trained = [e for e in events if e.get("stage") == "train" and e["kind"] == "status"]
    assert len(trained) == 4, "the edited arm is derived from the plain one"
    half = lab.load_run(table["run"][1])
    assert half.parent.id == table["run"][0]


def test_a_failed_arm_does_not_stop_the_others(tiny):
    quick = tiny.with_(**{"training.epochs": 0, "training.steps": 4, "probe.scope": "headline"})
    arms = {"lost": {"defense": [{"name": "tr", "k": 10_000}]}, "plain": {}}
    table = lab.sweep(quick, {}, arms=arms, seeds=1, twin=False)
    assert table["state"].tolist() == ["failed", "finished"]
    assert "k = 10000" in table["reason"][0]


SWEEP = """
preset = "start.toml"
seeds = 1
[about]
goal = "a sweep of its own"
[set]
"probe.scope" = "headline"
[over]
"poison.count" = [4, 8]
[arms.lora]
[arms.decay]
defense = ["weight_decay"]
"""


def test_a_sweep_file_says_what_to_run(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.toml").write_text(tiny.to_toml())
    (tmp_path / "mine.toml").write_text(SWEEP)
    assert is_sweep("mine.toml")
    assert not is_sweep("start.toml")
    plan = load_sweep("mine.toml")
    assert plan.about == {"goal": "a sweep of its own"}
    assert plan.experiment == tiny.with_(**{"probe.scope": "headline"})
    assert plan.over == {"poison.count": [4, 8]}
    assert plan.arms == {"lora": {}, "decay": {"defense": ["weight_decay"]}}
    assert plan.seeds == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sneeds = 3", r"Unknown key in mine.toml 'sneeds'. Did you mean 'seeds'\?"),
        ("preset = 'nothing'", "Unknown preset 'nothing'"),
        ("arms = 4", "arms are tables"),
        ("set = 4", "arms are tables"),
        ("[set]\n'adapter.rang' = 4", "adapter"),
    ],
)
def test_a_sweep_file_that_is_wrong_is_one_sentence(change, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f"{change}\n[over]\n'adapter.rank' = [1]\n")
    with pytest.raises(LabError, match=message):
        load_sweep(str(path))


@pytest.mark.parametrize("name", sweep_names())
def test_every_shipped_sweep_can_be_asked(name):
    plan = load_sweep(name)
    assert {"goal", "paper", "machine", "takes"} <= set(plan.about)
    for keys in (plan.arms or {"": {}}).values():
        settle(plan.experiment.with_(**keys))
