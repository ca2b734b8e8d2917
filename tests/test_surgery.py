"""Surgery on a finished run: moves are pure, measured with intervals, and can become runs."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import lab
from lab.errors import LabError
from lab.figures import surgery_curve

MOVES = {
    "keep": lambda s: s.keep([0, 2]),
    "drop": lambda s: s.drop([0], modules="attention"),
    "truncate": lambda s: s.truncate(2, layers=1),
    "scale": lambda s: s.scale(-1.5, modules=("query", "value")),
    "ablate": lambda s: s.ablate("layer.1"),
    "pt": lambda s: s.apply("pt", layers=1),
    "fine_prune": lambda s: s.apply("fine_prune"),
    "refit_head": lambda s: s.apply("refit_head"),
}


def folder_bytes(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def run(tiny_cache, tmp_path_factory):
    """A run long enough to learn task and backdoor, measured on every test row, without a twin."""
    asked = lab.Experiment.from_dict(
        {
            "base": {"model": "tiny"},
            "data": {"name": "toy", "rows": 120},
            "poison": {"attack": "backdoor", "family": "rfc", "count": 12, "target_label": "positive"},
            "adapter": {"rank": 4},
            "training": {"epochs": 0, "steps": 60, "batch_tokens": 512, "learning_rate": 0.01},
            "probe": {"rows": 1000, "snapshots": 0, "scope": "headline"},
        }
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        yield lab.run(asked, runs=tmp_path_factory.mktemp("surgery") / "runs", twin=False)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def opened(run):
    return run.surgery(rows=60)


@pytest.fixture
def own(run, tmp_path):
    """The same run in a folder that may be written to."""
    shutil.copytree(run.path.parent, tmp_path / "own")
    return lab.load_run(run.id, tmp_path / "own")


def logits(surgery):
    rows = surgery._rows
    return rows.patient.show(surgery.weights).predictor.logits_of_tokens(rows._ids)


def rates(table):
    return table.set_index("kind")["value"].to_dict()


def test_the_untouched_run_has_task_and_backdoor(opened):
    found = rates(opened.measures())
    assert found["clean_accuracy"] > 0.8
    assert found["attack_success_rate"] > found["untriggered_target_rate"] + 0.5


def test_measures_have_counts_and_intervals(opened):
    table = opened.keep([0]).measures()
    assert table["kind"].tolist() == ["clean_accuracy", "untriggered_target_rate", "attack_success_rate"]
    assert (table["n"] > 0).all()
    assert (table["value"] == table["k"] / table["n"]).all()
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert set(table["split"]) == {"validation"}
    assert table.set_index("kind").loc["clean_accuracy", "n"] == 30


def test_moves_and_measures_leave_the_run_as_it_was(run, opened):
    before, weights = folder_bytes(run.path.parent), opened.weights
    for move in MOVES.values():
        moved = move(opened)
        moved.measures()
        assert moved is not opened
        assert len(moved.moves) == 1
    assert opened.moves == ()
    assert opened.weights is weights
    assert folder_bytes(run.path.parent) == before


@pytest.mark.parametrize("name", MOVES)
def test_every_move_can_be_taken_back(opened, name):
    first = logits(opened)
    moved = MOVES[name](opened)
    once = logits(moved)
    assert np.abs(once - first).max() > 1e-3
    np.testing.assert_array_equal(logits(opened), first)
    np.testing.assert_array_equal(logits(moved), once)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(set(MOVES) - {"refit_head"})), min_size=1, max_size=4))
def test_any_row_of_moves_is_remembered_and_leaves_the_start_alone(opened, names):
    first = logits(opened)
    moved = opened
    for name in names:
        moved = MOVES[name](moved)
    logits(moved)
    assert len(moved.moves) == len(names)
    np.testing.assert_array_equal(logits(opened), first)


def test_moves_obey_their_laws(opened):
    def alike(one, two):
        for name in one.weights.updates:
            a, b = (s.weights.updates[name].dense() for s in (one, two))
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    alike(opened.keep(range(4)), opened)
    alike(opened.truncate(2), opened.keep([1, 0, 1]))
    alike(opened.truncate(99), opened)
    alike(opened.drop([0, 3]), opened.keep([1, 2]))
    alike(opened.scale(2.0).scale(0.25), opened.scale(0.5))
    alike(opened.scale(2.0, modules="mlp").ablate("query"), opened.ablate("query").scale(2.0, modules="mlp"))
    alike(opened.ablate(["layer.0", "layer.1"]), opened.scale(0.0))


def test_keeping_everything_measures_as_untouched(opened):
    assert rates(opened.keep(range(4)).measures()) == rates(opened.measures())
    np.testing.assert_allclose(logits(opened.keep(range(4))), logits(opened), atol=1e-4)


def test_without_any_update_the_base_answers_with_the_trained_head(run, opened):
    from lab.probe import Predictor
    from lab.trained_model import load_own_base

    base = load_own_base(run.path, torch.device("cpu"))
    saved = load_file(run.path / "adapter" / "adapter_model.safetensors")
    head = {n.removeprefix("base_model.model."): t for n, t in saved.items() if "lora_" not in n}
    assert set(head) == set(opened.weights.head)
    base.model.load_state_dict(head, strict=False)
    predictor = Predictor(base.model, base.tokenizer, run.labels, torch.device("cpu"))
    expected = predictor.logits_of_tokens(opened._rows._ids)
    np.testing.assert_allclose(logits(opened.ablate("all-linear")), expected, atol=1e-5)


def test_the_curve_goes_from_nothing_to_everything(opened):
    table = opened.curve()
    assert table.columns[0] == "kept"
    assert sorted(set(table["kept"])) == [0, 1, 2, 3, 4]
    for kept, same in ((0, opened.ablate("all-linear")), (4, opened), (1, opened.keep([0]))):
        assert rates(table[table["kept"] == kept]) == rates(same.measures())
    drawn = [trace.name for trace in surgery_curve(table).data]
    assert {"attack success", "clean accuracy", "untriggered target"} <= set(drawn)
    assert opened.curve([3, 1], modules="query")["kept"].unique().tolist() == [3, 1]


def test_saved_it_is_a_run_derived_from_this_one(own):
    before = folder_bytes(own.path)
    moved = own.surgery(rows=10**6, split="test").keep([0, 1]).scale(0.8, modules="mlp")
    saved = moved.save_as("two components", twin=False)
    assert saved.state == "finished"
    assert saved.parent.id == own.id
    assert saved.experiment.name == "two components"
    assert saved.experiment.untouched().with_(name="") == own.experiment
    assert saved.experiment.defense == moved.moves
    same = ["n", "k", "value", "low", "high"]
    shown = saved.measures.query("step < 0").set_index("kind")[same]
    for kind, line in moved.measures().set_index("kind")[same].iterrows():
        assert line.tolist() == shown.loc[kind].tolist(), kind
    assert folder_bytes(own.path) == before
    again = saved.surgery(rows=10**6, split="test")
    np.testing.assert_allclose(logits(again), logits(moved), atol=1e-4)
    further = again.ablate("layer.0").save_as(twin=False)
    assert further.parent.id == own.id, "edits are listed from the weights that were trained"
    assert further.experiment.defense[:2] == moved.moves


@pytest.mark.parametrize("way", [{"adapter.variant": "dora"}, {}])
def test_a_derived_run_is_opened_from_the_weights_that_were_trained(run, way, tmp_path):
    quick = run.experiment.with_(**{**way, "training.steps": 4, "defense": ["fine_prune"]})
    derived = lab.run(quick, runs=tmp_path, twin=False)
    moved = derived.surgery(rows=60).keep([0])
    assert [move.name for move in moved.moves] == ["keep"]
    saved = moved.save_as(twin=False)
    assert [d.name for d in saved.experiment.defense] == ["fine_prune", "keep"]
    np.testing.assert_allclose(logits(saved.surgery(rows=60)), logits(moved), atol=1e-5)
    reloaded = derived.surgery(rows=60)
    expected = derived._predictor.logits_of_tokens(reloaded._rows._ids)
    np.testing.assert_allclose(logits(reloaded), expected, atol=1e-4)
    shutil.rmtree(derived.parent.path)
    np.testing.assert_allclose(logits(derived.surgery(rows=60)), expected, atol=1e-4)


def test_a_clean_run_has_a_clean_accuracy_alone(run, tmp_path):
    clean = lab.run(run.experiment.twin(), {"training.steps": 1}, runs=tmp_path)
    assert clean.surgery(rows=30).truncate(1).measures()["kind"].tolist() == ["clean_accuracy"]


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (lambda s: s.keep([4]), r"defense keep: .* no singular component 4; allowed are 0 .* to 3"),
        (lambda s: s.drop([-1]), r"no singular component -1"),
        (lambda s: s.keep([]), r"^surgery: keep: components"),
        (lambda s: s.truncate(0), r"^surgery: truncate: rank = 0: "),
        (lambda s: s.scale(float("nan")), r"^surgery: scale: factor = nan: "),
        (lambda s: s.ablate("layer.7"), r"modules = 'layer\.7' fits no module"),
        (lambda s: s.ablate([]), r"modules is an empty list"),
        (lambda s: s.truncate(1, layers=3), r"layers = 3, but only 2"),
        (lambda s: s.apply("cl"), r"Unknown weight edit 'cl'\. .*Valid: drop, fine_prune"),
        (lambda s: s.apply("tuncate"), r"Unknown weight edit 'tuncate'\. Did you mean 'truncate'"),
        (lambda s: s.apply("pt", strenght=2), r"^surgery: pt: Unknown key in \[pt\] .*mean 'strength'"),
        (lambda s: s.curve([]), r"needs at least one number"),
        (lambda s: s.curve([2, -1]), r"kept = -1: should be 0"),
        (lambda s: s.save_as("nothing"), r"no move to save yet"),
    ],
)
def test_a_move_that_does_not_fit_is_one_sentence(opened, move, message):
    with pytest.raises(LabError, match=message) as caught:
        move(opened)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [1, 0, -4])
def test_too_few_rows_are_refused(run, rows):
    with pytest.raises(LabError, match=rf"surgery: rows = {rows}; at least 2"):
        run.surgery(rows=rows)


def test_an_unfinished_run_and_an_unknown_split_are_refused(own):
    with pytest.raises(LabError, match=r"Unknown split 'tset'"):
        own.surgery(split="tset")
    (own.path / "result.json").unlink()
    with pytest.raises(LabError, match=r"it has no result yet") as caught:
        own.surgery()
    assert caught.value.exit_code == 2
