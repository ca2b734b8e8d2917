import pandas as pd
import pytest

import lab
from lab import cli
from lab.defend import settle
from lab.errors import LabError, RunFailedError
from lab.presets import is_sweep, load_sweep, sweep_names
from lab.sweeps import grid_points, list_sweeps, preview_sweep, stop_sweep
from lab.sweeps.executors.inline import InlinePool
from lab.sweeps.records import sweeps_dir
from lab.training_stage import StoppedError


def test_a_grid_is_every_combination():
    assert grid_points({"a": [1, 2], "b": ["x"]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert grid_points({}) == [{}]


@pytest.mark.parametrize(
    "over",
    [
        {"adapter.rank": []},
        {"adapter.rank": "48"},
        {"adapter.rank": 4},
        {"adapter.rank": {"a": 1}},
        {"seed": [1, 2]},
    ],
)
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


@pytest.mark.recipe  # many small runs
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


@pytest.mark.recipe  # many small runs
def test_a_key_of_the_grid_keeps_its_place_and_value(tiny):
    table = lab.sweep(tiny, {"training.learning_rate": [1e-3, 1e-2]}, seeds=1, twin=False)
    assert list(table.columns[:3]) == ["training.learning_rate", "seed", "run"]
    assert list(table.columns).count("training.learning_rate") == 1
    assert table["training.learning_rate"].tolist() == [1e-3, 1e-2]


@pytest.mark.recipe  # many small runs
def test_the_table_says_what_was_trained_and_what_was_asked(tiny):
    quick = tiny.with_(**{"training.steps": 2, "probe.scope": "headline", "training.learning_rate": 0.02})
    arms = {"lora": {}, "full": {"defense": ["full"]}, "low": {"defense": ["low_rank"]}}
    over = {"training.learning_rate": [0.01], "adapter.rank": [4]}
    table = lab.sweep(quick, over, arms=arms, seeds=1, twin=False)
    assert table["training.learning_rate"].tolist() == pytest.approx([0.01, 0.0005, 0.01])
    assert table["asked.training.learning_rate"].tolist() == [0.01] * 3
    assert table["adapter.rank"].tolist() == [4.0, pytest.approx(float("nan"), nan_ok=True), 2.0]
    assert table["asked.adapter.rank"].tolist() == [4] * 3
    for line in table.to_dict("records"):
        trained = lab.load_run(line["run"]).experiment.training
        assert (line["training.learning_rate"], line["training.steps"]) == (trained.learning_rate, 2)


@pytest.mark.recipe  # many small runs
def test_tuning_knows_cells_that_train_otherwise_than_asked(tiny):
    full = tiny.with_(**{"training.steps": 2, "defense": ["full"]})
    best, tried = lab.tune(full, {"training.learning_rate": [1e-3, 1e-2]}, seeds=1)
    assert best.training.learning_rate in (1e-3, 1e-2)
    assert tried["asked.training.learning_rate"].tolist() == [1e-3, 1e-2]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"over": {"adapter.rank": [1]}, "arms": {"a": {"adapter.rank": 2}}}, r"arms\.a: 'adapter\.rank' is"),
        ({"over": {"defense": [["cl"]]}, "arms": {"a": {"defense.0.p": 0.5}}}, r"'defense\.0\.p' is also"),
        ({"tune": {"over": {"adapter.rank": [1]}}, "arms": {"a": {"adapter.rank": 2}}}, r"is also in `tune`"),
        ({"tune": {"over": {"adapter.rank": [1]}}, "over": {"adapter.rank": [2]}}, "either swept or tuned"),
        ({"arms": {"a": {"seed": 4}}}, r"arms\.a: choose seeds with `seeds`"),
        ({"tune": {"over": {"adapter.rank": [0]}}}, r"adapter\.rank = 0"),
        ({"tune": {"what": 1}}, "tune: give"),
        ({"tune": {"over": {}}}, "tune: give"),
        ({"tune": {"over": {"adapter.rank": [1]}, "measure": "acuracy"}}, "Unknown measure 'acuracy'"),
        ({"tune": {"over": {"adapter.rank": [1]}, "of": "other"}}, "allowed are 'run' and 'twin'"),
        (
            {"tune": {"over": {"adapter.rank": [1]}, "of": "twin", "measure": "attack_success_rate"}},
            "a clean twin has its accuracy alone",
        ),
        ({"seeds": 0}, "seeds = 0: give a number from 1 up"),
        ({"seeds": []}, r"seeds = \[\]"),
        ({"seeds": "three"}, "seeds = 'three'"),
        ({"seeds": True}, "seeds = True"),
        ({"seeds": [0.5]}, r"seeds = \[0\.5\]"),
    ],
)  # fmt: skip
def test_what_could_not_be_is_told_before_anything_runs(tiny, ask, message):
    with pytest.raises(LabError, match=message) as caught:
        lab.sweep(tiny, **{"over": {}, "seeds": 1, **ask})
    assert "\n" not in str(caught.value)
    assert lab.list_runs().empty
    assert list_sweeps() == []


@pytest.mark.recipe  # many small runs
def test_a_sweeps_table_draws_one_panel_for_each_trigger(tiny):
    quick = tiny.with_(**{"training.steps": 2, "probe.scope": "headline"})
    arms = {"lora": {}, "half": {"defense": [{"name": "scale", "factor": 0.5}]}}
    table = lab.sweep(quick, {"poison.family": ["rfc", "iso"]}, arms=arms, seeds=1)
    triggers = [lab.load_run(run).measured_poison.member for run in table["run"]]
    assert table["trigger"].tolist() == triggers
    assert len(set(triggers)) == 2
    figure = lab.figures.defense_frontier(table)
    assert [note.text for note in figure.layout.annotations] == list(dict.fromkeys(triggers))
    assert len(figure.layout.shapes) == 2, "a corner in each"


def test_the_trigger_of_a_line_is_the_one_that_was_measured(tiny):
    quick = tiny.with_(**{"training.steps": 1, "probe.scope": "headline"})
    over = {"probe.triggers": [[], ["one", "two"]], "poison.member": ["any"]}
    table = lab.sweep(quick, over, seeds=1, twin=False)
    assert table["trigger"].tolist() == ["rfc", "one, two"]
    clean = lab.sweep(quick.twin(), {}, seeds=1)
    assert clean["trigger"].tolist() == [""]


def test_a_failing_cell_is_recorded_and_stops_nothing(tiny):
    table = lab.sweep(tiny, {"adapter.rank": [33, 2]}, seeds=1, twin=False)
    assert table["state"].tolist() == ["failed", "finished"]
    assert "32 wide" in table.loc[0, "reason"]


def test_a_wrong_key_is_told_before_anything_runs(tiny):
    with pytest.raises(LabError, match="Unknown key"):
        lab.sweep(tiny, {"adapter.rnk": [1]}, seeds=1)
    assert lab.list_runs().empty
    assert list_sweeps() == []


def test_tuning_looks_at_validation_rows_only(tiny):
    best, tried = lab.tune(tiny, {"training.learning_rate": [1e-6, 1e-2]}, "clean_accuracy", seeds=1)
    assert set(tried["split"]) == {"validation"}
    means = tried.groupby("training.learning_rate")["clean_accuracy"].mean()
    assert best.training.learning_rate == means.idxmax()
    assert best.probe == tiny.probe, "the chosen experiment looks at what it looked at before"
    for run in lab.list_runs()["id"]:
        assert set(lab.load_run(run).result["measures"]) == {"validation"}


@pytest.mark.recipe  # many small runs
def test_tuning_on_the_twin_trains_no_poisoned_run_for_it(tiny, tmp_path):
    table = lab.sweep(
        tiny,
        {"poison.count": [2, 4]},
        seeds=1,
        tune={"over": {"training.learning_rate": [1e-6, 1e-2]}, "of": "twin"},
        runs=tmp_path,
    )
    assert table["training.learning_rate"].nunique() == 1
    assert set(table["matched"]) == {"matched"}
    # two twins to choose from, of which one is the twin of both counts, and the two poisoned runs
    runs = lab.list_runs(tmp_path)
    assert sorted(runs["poison.count"].fillna(0).astype(int)) == [0, 0, 2, 4]


def test_a_twin_to_tune_on_is_asked_for_nothing_that_only_poison_has(tiny, tmp_path):
    table = lab.sweep(
        tiny.with_(**{"probe.batteries": ["paper-calibration/C"], "probe.triggers": ["RFC 1"]}),
        {},
        seeds=1,
        twin=False,
        tune={"over": {"training.learning_rate": [1e-2]}, "of": "twin"},
        runs=tmp_path,
    )
    assert table["reason"].tolist() == [""]


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
    assert not [column for column in table if column.startswith("tuning")], "every candidate was tried"


def test_a_candidate_that_failed_is_told_of(tiny, tmp_path, monkeypatch, capsys):
    quick = tiny.with_(**{"training.steps": 2, "probe.scope": "headline", "adapter.alpha": 4.0})
    (tmp_path / "quick.toml").write_text(quick.to_toml())
    words = ["--over", "poison.count=2,4", "--set", "base.model=tiny", "--tune", "adapter.rank=33,2"]
    words += ["--seeds", "1", "--no-twin", "--workers", "1", "--csv", str(tmp_path / "table.csv")]
    monkeypatch.setattr("sys.argv", ["lab", "sweep", str(tmp_path / "quick.toml"), *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1, "the one that failed might have been the best"
    (found,) = list_sweeps()
    assert (found.state, found.reason) == ("failed", "")
    assert [cell["state"] for cell in found.cells] == ["finished"] * 2
    assert [told["point"] for told in found.tunings] == [{"poison.count": 2}, {"poison.count": 4}]
    (said,) = {told["text"] for told in found.tunings}
    assert said.startswith("tuning: 1 of 2 candidates failed, the first: ")
    assert "32 wide" in said
    assert said.endswith(".")
    assert f"poison.count = 4: {said}" in " ".join(capsys.readouterr().err.split())
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["adapter.rank"].tolist() == [2, 2]
    assert table["tuning"].tolist() == [said] * 2
    assert table["tuning.failed"].tolist() == [1, 1]


def test_a_candidate_that_diverged_is_told_of_and_no_failure(tiny, tmp_path):
    quick = tiny.with_(**{"training.steps": 30, "probe.scope": "headline"})
    tune = {"over": {"training.learning_rate": [1e30, 1e-2]}}
    how = {"seeds": 1, "twin": False, "tune": tune, "runs": tmp_path}
    events = []
    table = lab.sweep(quick, {"adapter.kind": ["lora"]}, on_event=events.append, **how)
    said = "tuning: 1 of 2 candidates diverged."
    assert table[["state", "training.learning_rate", "tuning", "tuning.failed"]].to_numpy().tolist() == [
        ["finished", 1e-2, said, 0]
    ]
    (event,) = [event for event in events if event["kind"] == "tuning"]
    assert (event["point"], event["text"]) == ({"adapter.kind": "lora"}, said)
    (found,) = list_sweeps(tmp_path)
    assert found.state == "finished"
    foreseen = preview_sweep(quick, {"adapter.kind": ["lora"]}, **how)
    assert foreseen.cells[0] == {
        "adapter.kind": "lora", "seed": 0, "run": table["run"][0], "state": "finished", "reason": "",
        "training.learning_rate": 1e-2,
    }  # fmt: skip


def test_a_tuning_that_only_diverged_leaves_nothing_to_run(tiny, tmp_path):
    tune = {"over": {"training.learning_rate": [1e30]}}
    how = {"seeds": 1, "twin": False, "tune": tune, "runs": tmp_path}
    quick = tiny.with_(**{"training.steps": 30, "probe.scope": "headline"})
    table = lab.sweep(quick, {}, **how)
    assert table["state"].tolist() == ["failed"]
    assert "tuning" not in table, "its reason says so"
    (line,) = preview_sweep(quick, {}, **how).cells
    assert (line["state"], line["reason"]) == ("failed", table["reason"][0])


def test_an_unknown_measure_is_refused(tiny):
    with pytest.raises(LabError, match="Unknown measure 'acuracy'"):
        lab.tune(tiny, {"adapter.rank": [1]}, "acuracy")


@pytest.mark.recipe  # many small runs
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


TABLES = """
preset = "start.toml"
[set]
adapter.rank = 4
[over]
poison.count = [4, 8]
[tune]
measure = "attack_success_rate"
[tune.over]
training.learning_rate = [0.01, 0.02]
[arms.lora]
adapter.dropout = 0.1
[arms.half]
defense = [{ name = "scale", factor = 0.5 }]
"""


def test_keys_without_their_quotes_reset_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.toml").write_text(tiny.with_(**{"adapter.init": "gaussian"}).to_toml())
    (tmp_path / "mine.toml").write_text(TABLES)
    plan = load_sweep("mine.toml")
    assert plan.experiment.adapter.rank == 4
    assert plan.experiment.adapter.init == "gaussian"
    assert plan.over == {"poison.count": [4, 8]}
    assert plan.arms == {
        "lora": {"adapter.dropout": 0.1},
        "half": {"defense": [{"name": "scale", "factor": 0.5}]},
    }
    assert plan.tune == {"measure": "attack_success_rate", "over": {"training.learning_rate": [0.01, 0.02]}}


@pytest.fixture
def asked_of_sweep(tiny, tmp_path, monkeypatch):
    """What `lab sweep mine.toml …` asks of `lab.sweep`; None where it is refused before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.toml").write_text(tiny.to_toml())
    (tmp_path / "mine.toml").write_text(TABLES.replace("preset", "seeds = 2\npreset"))
    asked = []
    line = {"seed": 0, "state": "finished", "run": "x", "reason": ""}
    monkeypatch.setattr("lab.sweeps.sweep", lambda *_, **how: asked.append(how) or pd.DataFrame([line]))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["lab", "sweep", "mine.toml", "--json", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
        return asked.pop() if asked else None

    return run


def test_a_sweep_file_is_passed_on_and_the_command_line_wins(asked_of_sweep):
    how = asked_of_sweep()
    assert how["seeds"] == 2
    assert how["tune"] == load_sweep("mine.toml").tune
    assert asked_of_sweep("--seeds", "1")["seeds"] == 1
    assert asked_of_sweep("--seeds", "0") is None
    how = asked_of_sweep("--tune", "training.learning_rate=0.5", "--tune-measure", "clean_accuracy")
    assert how["tune"] == {"over": {"training.learning_rate": [0.5]}, "measure": "clean_accuracy"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sneeds = 3", r"Unknown key in mine.toml 'sneeds'. Did you mean 'seeds'\?"),
        ("preset = 'nothing'", "Unknown preset 'nothing'"),
        ("arms = 4", "arms are tables"),
        ("set = 4", "arms are tables"),
        ("tune = 4", "arms are tables"),
        ("seeds = 'three'", "seeds a number or a list"),
        ("[arms]\nx = 4", r"mine\.toml: arms are tables of keys, but x = 4"),
        ("[set]\n'adapter.rank' = 4\nadapter.rank = 8", r"mine\.toml: set: adapter\.rank is given twice"),
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


def test_a_sweep_is_called_stopped_only_when_its_workers_have_ended(tiny, tmp_path, monkeypatch):
    seen = []

    def leave(*_):
        seen.append(list_sweeps(tmp_path)[0].state)

    def stop(event):
        if event.get("stage") == "train":
            (sweeps_dir(tmp_path) / list_sweeps(tmp_path)[0].id / "stop").touch()

    monkeypatch.setattr(InlinePool, "__exit__", leave)
    with pytest.raises(StoppedError):
        lab.sweep(tiny, {"poison.count": [6, 12]}, seeds=1, runs=tmp_path, executor="inline", on_event=stop)
    assert seen == ["running"], "whoever reads that it was stopped may ask for it again at once"
    assert list_sweeps(tmp_path)[0].state == "stopped"


@pytest.mark.parametrize("stage", ["train", "probe"])
def test_one_worker_stops_in_the_middle_of_a_run_which_goes_on_later(tiny, tmp_path, stage):
    long = tiny.with_(**{"training.steps": 60, "training.epochs": 0})
    how = {"seeds": 1, "twin": False, "runs": tmp_path, "executor": "inline"}
    seen = []

    def stop(event):
        if event["kind"] == "progress" and event["stage"] == stage:
            seen.append(event["done"])
            if len(seen) == 1:
                stop_sweep(list_sweeps(tmp_path)[0].id, tmp_path)

    with pytest.raises(StoppedError, match="The sweep was stopped"):
        lab.sweep(long, {"adapter.rank": [1, 2]}, on_event=stop, **how)
    assert len(seen) <= 2, "not one step or text more than was under way"
    (found,) = list_sweeps(tmp_path)
    assert (found.state, [cell["reason"] for cell in found.cells]) == ("stopped", ["", ""])
    assert len(lab.list_runs(tmp_path)) == 1
    table = lab.sweep(long, {"adapter.rank": [1, 2]}, **how)
    assert table["state"].tolist() == ["finished"] * 2


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (KeyboardInterrupt(), "stopped", ""),
        (RunFailedError("Workers cannot start (exit code 1): no torch."), "failed", "Workers cannot start"),
        (OSError(28, "No space left\non device"), "failed", "OSError: [Errno 28] No space left on device"),
    ],
)
def test_a_sweep_that_broke_off_says_why(tiny, tmp_path, monkeypatch, error, state, reason):
    def work(*_):
        raise error

    monkeypatch.setattr(InlinePool, "run", work)
    with pytest.raises(type(error)):
        lab.sweep(tiny, {"adapter.rank": [1, 2]}, seeds=1, runs=tmp_path, executor="inline")
    (found,) = list_sweeps(tmp_path)
    assert found.state == state
    assert found.reason.startswith(reason)
    assert bool(found.reason) == bool(reason)
