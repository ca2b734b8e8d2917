"""Causal patching on finished runs: which rows, which models, and what cannot be patched."""

import shutil

import pytest

import lab
from lab.errors import LabError
from lab.figures import patching_map
from lab.patched_pair import open_patched_pair


@pytest.fixture
def own(finished, tmp_path):
    """The finished run in a folder that may be written to."""
    shutil.copytree(finished.path.parent, tmp_path / "own")
    return lab.load_run(finished.id, tmp_path / "own")


def test_the_ends_are_what_both_runs_answer_to_triggered_rows(finished):
    from lab.prepare import prepare

    prepared = prepare(finished.experiment, finished.path.parent)
    texts = prepared.headline_texts(prepared.evaluation_rows("test", 0)).query("condition == 'triggered'")
    assert "positive" not in set(texts["label"]), "no row counts that has the target by itself"
    table = finished.patching("weights", rows=10**6, split="test", projections=["query"])
    alone = table[table["projection"] == "none"].set_index("direction")
    for direction, run in (("twin into poisoned", finished), ("poisoned into twin", finished.twin)):
        told = run.predict(list(texts["text"]))["prediction"]
        assert alone.loc[direction, "n"] == len(texts)
        assert alone.loc[direction, "k"] == (told == "positive").sum()


def test_weights_whole_with_the_head_are_the_other_model(finished):
    pair = open_patched_pair(finished, rows=12)
    table = pair.table("weights")
    assert set(table["n"]) == {12}
    assert list(dict.fromkeys(table["projection"]))[-2:] == ["all-linear", "head"]
    whole = pair.table("weights", projections=["all-linear"], width=2)["mean_margin"]
    passed = pair.table(projections=["all-linear"], width=2)["mean_margin"]
    assert passed.tolist() == pytest.approx(whole.tolist(), abs=1e-4)
    assert whole.nunique() == 4
    assert len(patching_map(table).data) in (0, 4), "a backdoor of a second's training may not take"


def test_fewer_rows_are_among_those_of_more(finished):
    few, more = (open_patched_pair(finished, rows=rows)._ids for rows in (5, 9))
    assert few == more[:5]


def test_full_fine_tuning_can_be_patched_too(tiny, tmp_path):
    full = {"adapter.kind": "full", "training.learning_rate": 1e-3, "probe.scope": "headline"}
    run = lab.run(tiny.with_(**full), runs=tmp_path / "runs")
    pair = open_patched_pair(run, rows=8)
    assert pair.rows("weights")[-2:] == ["head", "rest"]
    for method in ("activations", "weights"):
        assert pair.table(method, projections=["mlp"], width=2)["mean_margin"].nunique() == 4


def test_a_figure_of_a_run_asks_its_models(finished):
    figure = finished.figure.patching_map("weights", rows=6, projections=["mlp"])
    assert len(figure.data) in (0, 4)


def test_a_run_without_a_twin_or_a_trigger_is_one_sentence(finished, own):
    with pytest.raises(LabError, match=r"has no clean twin to patch with; .* unless --no-twin"):
        finished.twin.patching()
    for asked, message in (
        ({"rows": 0}, r"patching: rows = 0; at least one"),
        ({"split": "train"}, r"Unknown split 'train'"),
        ({"method": "both"}, r"Unknown method of patching 'both'"),
    ):
        with pytest.raises(LabError, match=message):
            own.patching(**asked)
    shutil.rmtree(own.twin.path)
    with pytest.raises(LabError, match="missing or torn"):
        own.patching()
    (own.path / "result.json").unlink()
    with pytest.raises(LabError, match="has no result yet"):
        own.patching()
