"""Kernels of experiments and of finished runs: which weights, which A, which rows."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import lab
from lab.cli import app
from lab.errors import LabError
from lab.kernel_study import STUDY_COLUMNS, probe_batch
from lab.prepare import prepare
from lab.probe import KERNEL_COLUMNS


def values(table, measure, **where):
    rows = table[table["measure"] == measure]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows.sort_values(["layer", "index"])["value"].to_numpy()


def test_a_runs_start_is_what_is_predicted_without_training(finished):
    table = finished.kernels(rows=12)
    assert tuple(table.columns) == (*STUDY_COLUMNS, *KERNEL_COLUMNS)
    predicted = lab.kernel_table(finished.experiment, rows=12, runs=finished.path.parent)
    start = table[table["at"] == "start"].reset_index(drop=True)
    np.testing.assert_array_equal(predicted["value"], start["value"])
    assert set(predicted["run"]) == {""}
    assert set(table["run"]) == {finished.id}
    trained = values(table, "mean_diagonal", at="trained", kernel="lora", layer=-1)
    assert trained != values(start, "mean_diagonal", kernel="lora", layer=-1)


def test_training_starts_from_the_very_a_that_is_predicted_with(finished):
    import torch

    from lab.seeds import stage_seed
    from lab.train.adapters import attach_lora, initial_a, lora_layers
    from lab.train.models import load_base

    e = finished.experiment
    base = load_base(e.base, finished.labels, seed=e.seed, device=torch.device("cpu"))
    layers = dict(lora_layers(attach_lora(base, e.adapter, seed=e.seed)))
    widths = [layer.in_features for layer in layers.values()]
    drawn = initial_a(widths, e.adapter, stage_seed(e.seed, "adapter"))
    for layer, A in zip(layers.values(), drawn, strict=True):
        assert torch.equal(layer.lora_A["default"].weight, A)


def test_predictions_over_ranks_and_variances(tiny):
    cells = [(1, 1 / 3), (8, 1 / 3), (8, 2.0)]
    table = lab.kernel_table(tiny, cells, rows=10, draws=2)
    lora = table[(table["kernel"] == "lora") & (table["layer"] == -1)]
    assert sorted(set(zip(lora["rank"], lora["init_variance"], strict=True))) == sorted(cells)
    assert set(lora["draw"]) == {0, 1}
    first, second = (values(lora, "trace_ratio", draw=d) for d in (0, 1))
    assert (first != second).all()
    expected = values(lora, "expected_trace_ratio", draw=0)
    np.testing.assert_allclose(expected[1] / expected[0], 8)
    np.testing.assert_allclose(expected[2] / expected[1], 6)
    # one random direction says little
    np.testing.assert_allclose((first + second)[1:] / 2, expected[1:], rtol=0.3)
    assert lab.kernel_table(tiny, cells, rows=10, draws=2).equals(table)


def test_variance_scales_the_kernel_and_leaves_its_shape(tiny):
    """So normalised entropies cannot say what variance does; the paper's closed forms rise with it."""
    table = lab.kernel_table(tiny, [(4, 0.1), (4, 1.0)], rows=10)
    lora = table[table["kernel"] == "lora"]
    for measure in ("full_cka", "renyi_entropy_1", "renyi_entropy_2", "poison_cosine"):
        low, high = (values(lora, measure, init_variance=v) for v in (0.1, 1.0))
        np.testing.assert_allclose(low, high, rtol=1e-4)
    low, high = (values(lora, "trace_ratio", init_variance=v) for v in (0.1, 1.0))
    np.testing.assert_allclose(high / low, 10, rtol=1e-4)
    low, high = (values(lora, "paper_entropy_2", init_variance=v) for v in (0.1, 1.0))
    assert high > low


def test_the_rows_are_clean_ones_and_copies_of_those_off_the_target(tiny):
    prepared = prepare(tiny)
    batch = probe_batch(prepared, 10, "validation")
    few = probe_batch(prepared, 4, "validation")
    assert batch.token_ids[:4] == few.token_ids[:4]
    assert len(batch.clean) == 10
    assert len(batch.pairs) == (~batch.is_target[:10]).sum() == len(batch.token_ids) - 10
    for clean, copy in batch.pairs:
        assert len(batch.token_ids[copy]) > len(batch.token_ids[clean])
        assert not batch.is_target[copy]


def test_full_fine_tuning_and_a_clean_run_have_kernels_too(tiny, tmp_path, finished):
    full = {"adapter.kind": "full", "training.learning_rate": 1e-3, "probe.scope": "headline"}
    run = lab.run(tiny.with_(**full), runs=tmp_path / "runs", twin=False)
    table = run.kernels(rows=8, head=True)
    assert set(table["kernel"]) == {"full"}
    assert set(table["at"]) == {"start", "trained"}
    clean = finished.twin.kernels(rows=8)
    assert "poison_kernel" not in set(clean["measure"])


def test_where_a_was_frozen_its_gradient_does_not_count(tiny, tmp_path, monkeypatch):
    asked = tiny.with_(defense=["freeze_a"], **{"probe.scope": "headline"})
    run = lab.run(asked, runs=tmp_path / "runs", twin=False)

    def scale(table, layer=-1):
        return values(table, "mean_diagonal", at="trained", kernel="lora", layer=layer)[0]

    frozen = run.kernels(rows=8)
    monkeypatch.setattr("lab.kernel_study._frozen", lambda *_: set())
    assert scale(frozen) < scale(run.kernels(rows=8))
    assert values(frozen, "shift_largest", at="start").tolist() == pytest.approx(
        values(frozen, "shift_largest", at="trained").tolist()
    )


def test_edits_that_left_no_factors_are_said(finished, tmp_path):
    import shutil

    shutil.copytree(finished.path.parent, tmp_path / "own")
    run = lab.load_run(finished.id, tmp_path / "own")
    (run.path / "adapter").rename(run.path / "model")
    with pytest.raises(LabError, match="left a whole model and no factors"):
        run.kernels(rows=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter.variant": "dora"}, "'dora' trains a magnitude"),
        ({"adapter.init": "pissa"}, "'pissa'.*allowed: kaiming, gaussian"),
    ],
)
def test_what_the_theory_is_not_of_is_refused(tiny, changes, message):
    with pytest.raises(LabError, match=message):
        lab.kernel_table(tiny.with_(**changes), rows=8)


def test_wrong_numbers_are_one_sentence(tiny, finished):
    with pytest.raises(LabError, match="rows = 1"):
        finished.kernels(rows=1)
    with pytest.raises(LabError, match="draws = 0"):
        lab.kernel_table(tiny, draws=0)
    with pytest.raises(LabError, match="split"):
        finished.kernels(split="train")
    with pytest.raises(LabError, match=r"adapter.rank = 99: .* 32 wide"):
        lab.kernel_table(tiny, [(99, 1.0)], rows=8)


def test_the_command_prints_the_table(finished):
    asked = ["kernels", finished.id, "--rows", "8", "--runs", str(finished.path.parent)]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "trace_ratio" in shown.stdout
    assert "lora, trained" in shown.stdout
    told = CliRunner().invoke(app, [*asked, "--json"])
    lines = json.loads(told.stdout)
    assert {line["at"] for line in lines} == {"start", "trained"}


@pytest.mark.recipe
def test_on_minilm_the_trace_of_loras_kernel_is_as_expected():
    """64 rows of a real model: E[s²AᵀA] = s² r σ_a² I, within what one draw of A scatters."""
    cells = [(4, 1 / 3), (64, 1 / 3), (64, 2.0)]
    table = lab.kernel_table("rfc-citation", cells)
    whole = table[(table["kernel"] == "lora") & (table["layer"] == -1)]
    assert set(whole.loc[whole["measure"] == "trace_ratio", "n"]) == {64}
    ratio, expected = (
        whole[whole["measure"] == measure].set_index(["rank", "init_variance"])["value"]
        for measure in ("trace_ratio", "expected_trace_ratio")
    )
    # texts share much of their inputs, so that four random directions scatter by a sixth
    off = (ratio / expected - 1).abs()
    assert off[4, 1 / 3] < 0.5
    assert off[64].max() < 0.15
    cka = whole[whole["measure"] == "full_cka"].set_index(["rank", "init_variance"])["value"]
    assert cka[4, 1 / 3] < cka[64, 1 / 3] <= 1
