import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import lab
from lab.errors import LabError
from lab.probe.threshold import Margins, measure_margins
from lab.spectra import DenseUpdate


@pytest.fixture(scope="module")
def opened(finished):
    return finished.surgery(rows=60)


@pytest.fixture(scope="module")
def asked(opened):
    """The triggered texts of a surgery and the target, as the margins take them."""
    rows = opened._rows
    triggered = rows._asked.index[rows._asked["condition"] == "triggered"]
    return [rows._ids[i] for i in triggered], rows.patient.predictor.labels.index(rows._target)


def margins_of(opened, asked, scale=1.0):
    ids, target = asked
    updates = {name: update.rescale(scale) for name, update in opened.weights.updates.items()}
    patient = opened._rows.patient
    model = patient.show(replace(opened.weights, updates=updates)).predictor
    base = {name: patient.base_weight(name) for name in updates}
    sigma = {name: patient.base_sigma(name) for name in updates}
    found = measure_margins(model.model, updates, base, sigma, ids, target, model.tokenizer.pad_token_id)
    logits = model.logits_of_tokens(ids)
    return found, np.delete(logits, target, axis=1).max(axis=1) - logits[:, target]


def test_the_margin_is_that_of_the_model(opened, asked):
    found, expected = margins_of(opened, asked)
    np.testing.assert_allclose(found.margin, expected, atol=1e-4)


def test_the_slope_is_how_the_margin_moves_with_the_scale(opened, asked):
    strong, step = opened.scale(8.0), 1e-2  # the tiny model hardly reacts to the update that it learned
    found, _ = margins_of(strong, asked)
    _, above = margins_of(strong, asked, 1 + step)
    _, below = margins_of(strong, asked, 1 - step)
    measured = (above - below) / (2 * step)
    assert np.abs(measured).max() > 0.05, "a model that does not react would prove nothing"
    np.testing.assert_allclose(found.slope, measured, atol=0.03 * np.abs(measured).max())


def test_alignments_are_shares_of_the_largest_possible(opened, asked):
    found, _ = margins_of(opened, asked)
    for values in (found.backdoor_alignment, found.effective_alignment):
        assert set(values) == set(opened.weights.updates)
        assert all(-1 <= value <= 1 for value in values.values())


def test_a_measurement_leaves_the_model_as_it_was(opened, asked):
    before, logits = margins_of(opened, asked)
    patient = opened._rows.patient
    assert not any(module._forward_hooks for module in patient.model.modules())
    again, others = margins_of(opened, asked)
    np.testing.assert_array_equal(before.margin, again.margin)
    np.testing.assert_array_equal(logits, others)
    assert torch.is_grad_enabled()


def test_critical_scales_by_hand():
    margins = Margins(np.array([-1.0, -2.0, -1.0, 3.0, 3.0]), np.array([0.5, 4.0, -1.0, 1.0, -1.0]), {}, {})
    np.testing.assert_array_equal(margins.critical_scales(), [3.0, 1.5, np.inf, np.nan, np.nan])
    assert margins.median_scale() == 3.0
    assert margins.predicted_flips(1.0) == 0.4
    assert margins.predicted_flips(2.0) == 0.6
    assert math.isnan(Margins(np.array([1.0]), np.array([-1.0]), {}, {}).median_scale())


def test_the_margin_is_that_of_the_best_other_label():
    model = _ThreeLabels()
    W = {"layer": model.layer.weight.detach().clone()}
    updates = {"layer": DenseUpdate(torch.eye(3) * 0.1)}
    found = measure_margins(model, updates, W, {"layer": 1.0}, [[0], [1], [2]], 0, 3)
    logits = model(torch.tensor([[0], [1], [2]])).logits.detach().numpy()
    assert ((found.margin > 0) == (logits.argmax(axis=1) != 0)).all()
    assert found.predicted_flips(1.0) == (logits.argmax(axis=1) != 0).mean()
    assert found.is_on().tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alignments_know_neither_padding_nor_precision(opened, asked, dtype):
    ids, target = asked
    shown = opened._rows.patient.show(opened.weights)
    model = copy.deepcopy(shown.model).to(dtype)
    updates = {n: u for n, u in opened.weights.updates.items() if "layer.0" in n}
    base = {n: shown.base_weight(n).to(dtype) for n in updates}
    sigma = {n: shown.base_sigma(n) for n in updates}
    short, long = min(ids, key=len), [*max(ids, key=len)] * 3
    pad_id = shown.tokenizer.pad_token_id

    def measured(texts):
        return measure_margins(model, updates, base, sigma, texts, target, pad_id)

    alone, other, together = measured([short]), measured([long]), measured([short, long])
    close = {"abs": 1e-5 if dtype == torch.float32 else 2e-2}
    for kind in ("backdoor_alignment", "effective_alignment"):
        for name, value in getattr(together, kind).items():
            assert value == pytest.approx(
                (getattr(alone, kind)[name] + getattr(other, kind)[name]) / 2, **close
            )
    assert np.isfinite(together.slope).all()
    assert all(p.grad is None for p in model.parameters())


class _ThreeLabels(torch.nn.Module):
    """One layer over one-hot tokens, whose logits are that layer's outputs; token 3 is padding."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3, bias=False)
        self.layer.weight.data = torch.tensor([[2.0, 0.0, 0.5], [1.0, -1.0, 0.0], [0.0, 1.0, 2.0]])

    def forward(self, input_ids, attention_mask=None):
        x = torch.nn.functional.one_hot(input_ids, 4)[..., :3].float()
        return SimpleNamespace(logits=self.layer(x).sum(1))


def test_the_threshold_shows_prediction_beside_measurement(opened):
    found = opened.threshold(scales=[0.0, 1.0, 2.0])
    assert found.flips["scale"].tolist() == [0.0, 1.0, 2.0]
    assert (found.flips["low"] <= found.flips["measured"]).all()
    assert (found.flips["measured"] <= found.flips["high"]).all()
    at_one = found.flips.iloc[1]
    assert at_one["predicted"] == at_one["measured"] == found.off / found.rows
    assert set(found.modules["module"]) == set(opened.weights.updates)
    lab.figures.threshold_curve(found.flips, marks={"trained": 1.0, "s*": found.s_star})


def test_a_threshold_takes_sigma_from_the_cache(opened, monkeypatch):
    monkeypatch.setattr(torch.linalg, "matrix_norm", lambda *_: pytest.fail("σ_max(W) is known"))
    opened.threshold(scales=[1.0])


def test_a_run_draws_its_threshold(finished):
    figure = finished.figure.threshold_curve([0.5, 1.0, 2.0])
    assert {"measured"} <= {trace.name for trace in figure.data}
    assert any("trained = 1" in note.text for note in figure.layout.annotations)


def test_no_scale_is_refused(opened):
    with pytest.raises(LabError, match="at least one scale"):
        opened.threshold([])


def test_there_is_no_threshold_without_a_backdoor(finished):
    with pytest.raises(LabError, match="no backdoor"):
        finished.twin.surgery(rows=20).threshold()
