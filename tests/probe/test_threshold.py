import numpy as np
import pytest
import torch

import lab
from lab.errors import LabError
from lab.probe.threshold import Margins, measure_margins


@pytest.fixture(scope="module")
def opened(finished):
    return finished.surgery(rows=60)


@pytest.fixture(scope="module")
def asked(opened):
    """The triggered texts of a surgery, their true labels and the target, as the margins take them."""
    theatre = opened._theatre
    triggered = theatre._asked.index[theatre._asked["condition"] == "triggered"]
    labels = theatre.patient.predictor.labels
    truth = [labels.index(label) for label in theatre._asked["label"][triggered]]
    return [theatre._ids[i] for i in triggered], truth, labels.index(theatre._target)


def margins_of(opened, asked, scale=1.0):
    ids, truth, target = asked
    updates = {name: update.rescale(scale) for name, update in opened.weights.updates.items()}
    patient = opened._theatre.patient
    from dataclasses import replace

    model = patient.show(replace(opened.weights, updates=updates)).predictor
    base = {name: patient.base_weight(name) for name in updates}
    found = measure_margins(model.model, updates, base, ids, truth, target, model.tokenizer.pad_token_id)
    logits = model.logits_of_tokens(ids)
    return found, logits[np.arange(len(ids)), truth] - logits[:, target]


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
    patient = opened._theatre.patient
    assert not any(module._forward_hooks for module in patient.model.modules())
    again, others = margins_of(opened, asked)
    np.testing.assert_array_equal(before.margin, again.margin)
    np.testing.assert_array_equal(logits, others)
    assert torch.is_grad_enabled()


def test_critical_scales_by_hand():
    margins = Margins(np.array([-1.0, -2.0, -1.0, 3.0, 3.0]), np.array([0.5, 4.0, -1.0, 1.0, -1.0]), {}, {})
    assert margins.critical_scales().tolist() == [3.0, 1.5, np.inf, -2.0, 1.0]
    assert margins.predicted_flips(1.0) == 0.4
    assert margins.predicted_flips(2.0) == 0.6


def test_the_threshold_shows_prediction_beside_measurement(opened):
    found = opened.threshold(scales=[0.0, 1.0, 2.0])
    assert found.flips["scale"].tolist() == [0.0, 1.0, 2.0]
    assert (found.flips["low"] <= found.flips["measured"]).all()
    assert (found.flips["measured"] <= found.flips["high"]).all()
    at_one = found.flips.iloc[1]
    assert at_one["predicted"] == pytest.approx(at_one["measured"], abs=1 / at_one["n"])
    assert set(found.modules["module"]) == set(opened.weights.updates)
    lab.figures.threshold_curve(found.flips, marks={"trained": 1.0, "s*": found.s_star})


def test_there_is_no_threshold_without_a_backdoor(finished):
    with pytest.raises(LabError, match="no backdoor"):
        finished.twin.surgery(rows=20).threshold()
