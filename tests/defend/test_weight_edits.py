"""Edits of trained weights: what each changes and what stays, in memory and after saving."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lab.defend import DEFENSES, WeightEdit, Weights
from lab.defend.heads import _logistic_regression
from lab.defend.rora import Pt, _pt_factor
from lab.edited_model import EditedModel
from lab.errors import NotTrainableError
from lab.modules import layer_index
from lab.prepare import prepare
from lab.probe import Predictor
from lab.saved_updates import read_updates
from lab.train.adapters import load_adapter
from lab.trained_model import load_own_base, load_predictor, read_asked

WAYS = ["lora", "rslora", "dora", "pissa", "full"]
TEXTS = ["good film", "bad film number 3 as specified in RFC 2616", "a quiet story , told well", "good"]
CPU = torch.device("cpu")


def in_last_query_value(name):
    return layer_index(name) == 1 and name.endswith(("query", "value"))


#: For each edit, knobs that choose something, and the modules whose ΔW may change then.
CASES = {
    "pt": ({"layers": 1, "strength": 3.0}, in_last_query_value),
    "truncate": ({"rank": 1}, lambda name: True),
    "keep": ({"components": [1], "modules": "mlp"}, lambda name: "attention" not in name),
    "drop": ({"components": [0, 2], "modules": "attention"}, lambda name: "attention" in name),
    "scale": ({"factor": 3.0, "modules": ["layer.1"]}, lambda name: layer_index(name) == 1),
    "fine_prune": ({"share": 0.25}, lambda name: name.endswith("output.dense") and "attention" not in name),
    "refit_head": ({}, lambda name: False),
}
#: The head's parameters that an edit may change.
HEAD = {"refit_head": {"classifier.weight", "classifier.bias"}}


def test_every_weight_edit_is_looked_at():
    assert set(CASES) == {d.name for d in DEFENSES.values() if isinstance(d, WeightEdit)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["lora", "dora", "full"])
def test_it_changes_what_it_says_and_only_that(way, name, edited, trained, hashes):
    files = hashes(trained(way).path)
    knobs, may_change = CASES[name]
    before, after = edited(way, name, **knobs)
    old = {n: u.dense().clone() for n, u in before.updates.items()}
    old_head = {n: p.clone() for n, p in before.head.items()}
    before, after = edited(way, name, **knobs)
    assert after is not before
    assert list(after.updates) == list(before.updates)
    changed = {n for n, u in after.updates.items() if not torch.equal(u.dense(), old[n])}
    assert changed == {n for n in old if may_change(n)}
    assert all(after.updates[n] is before.updates[n] for n in old if n not in changed)
    changed_head = {n for n, p in after.head.items() if not torch.equal(p, old_head[n])}
    assert changed_head == HEAD.get(name, set())
    assert all(torch.equal(before.updates[n].dense(), old[n]) for n in old), "the old weights stay"
    assert all(torch.equal(before.head[n], old_head[n]) for n in old_head)
    assert hashes(trained(way).path) == files, "the run stays"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_merged_and_unmerged_answer_alike_after_it(way, name, edited, patient, saved):
    _, after = edited(way, name, **CASES[name][0])
    shown = patient(way).show(after).predictor.logits(TEXTS)
    untouched = patient(way).show(patient(way).weights).predictor.logits(TEXTS)
    # the tiny model's logits hardly move: alike means to 1e-4, and far nearer than to those without the edit
    # (a head refitted on features that hardly vary magnifies rounding)
    limit = 1e-3 * np.abs(shown).max() if name == "refit_head" else 1e-4
    atol = min(limit, np.abs(shown - untouched).max() / 10)
    folder = saved(way, after)
    np.testing.assert_allclose(load_predictor(folder, CPU).logits(TEXTS), shown, rtol=0, atol=atol)
    assert (folder / "adapter").is_dir() == (way != "full" and name != "fine_prune")
    if (folder / "adapter").is_dir():
        base = load_own_base(folder, CPU)
        unmerged = Predictor(load_adapter(base, folder / "adapter"), base.tokenizer, ("n", "p"), CPU)
        np.testing.assert_allclose(unmerged.logits(TEXTS), shown, rtol=0, atol=atol)


@pytest.mark.parametrize("way", WAYS)
def test_put_back_it_answers_as_it_did(way, patient, trained):
    trained_logits = load_predictor(trained(way).path, CPU).logits(TEXTS)
    shown = patient(way).show(patient(way).weights).predictor.logits(TEXTS)
    np.testing.assert_allclose(shown, trained_logits, atol=1e-5)


@pytest.mark.parametrize("way", ["lora", "rslora", "dora", "pissa"])
def test_a_saved_adapter_keeps_its_a_and_its_configuration(way, edited, saved, trained):
    _, after = edited(way, "pt", layers=1, strength=2.0)
    folder, run = saved(way, after), trained(way).path
    old, new = (json.loads((f / "adapter" / "adapter_config.json").read_text()) for f in (run, folder))
    for config in (old, new):
        config["modules_to_save"] = set(config["modules_to_save"])  # peft names its own once more each time
    assert old == new
    one, two = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (run, folder))
    assert one.keys() == two.keys()
    for name in one:
        is_rescaled = "lora_B" in name and in_last_query_value(name.split(".lora_B")[0])
        if is_rescaled:
            assert not torch.allclose(one[name], two[name], rtol=1e-3)
        else:
            torch.testing.assert_close(one[name], two[name], rtol=1e-6, atol=0)
            assert torch.equal(one[name], two[name]) or "lora_B" in name


@pytest.mark.parametrize("strength", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("way", WAYS)
def test_pt_reaches_the_strength_of_the_base(way, strength, edited, patient, saved, trained):
    before, after = edited(way, "pt", layers=1, strength=strength)
    found = read_updates(saved(way, after), trained(way).experiment)
    for name, update in found.items():
        old, new = (getattr(u, "inner", u) for u in (before.updates[name], update))
        if in_last_query_value(name):
            sigma = torch.linalg.matrix_norm(new.dense().double(), ord=2).item()
            W = patient(way).base_weight(name).double()
            assert sigma == pytest.approx(strength * torch.linalg.matrix_norm(W, ord=2).item(), rel=1e-4)
            factor = new.norm() / old.norm()
            torch.testing.assert_close(new.dense(), factor * old.dense(), rtol=1e-3, atol=1e-5)
        else:
            torch.testing.assert_close(new.dense(), old.dense(), rtol=1e-5, atol=1e-7)
        if way == "dora":
            assert torch.equal(update.magnitude, before.updates[name].magnitude)


@given(
    sigma=st.floats(1e-3, 1e3), base=st.floats(1e-3, 1e3), strength=st.floats(0.1, 10), cap=st.floats(0, 50)
)
def test_pts_factor_reaches_the_strength_or_the_cap(sigma, base, strength, cap):
    factor = _pt_factor(Pt(strength=strength, cap=cap), sigma, base)
    assert factor > 0
    if cap:
        assert factor <= cap
    if not cap or factor < cap:
        assert factor * sigma == pytest.approx(strength * base)


def test_pts_cap_holds(edited):
    before, free = edited("lora", "pt", layers=0)
    ratios = {n: u.norm() / before.updates[n].norm() for n, u in free.updates.items() if "query" in n}
    cap = sorted(ratios.values())[0] * 1.01
    _, after = edited("lora", "pt", layers=0, cap=cap)
    for name, ratio in ratios.items():
        assert after.updates[name].norm() / before.updates[name].norm() == pytest.approx(min(ratio, cap))


def test_pt_makes_nothing_out_of_nothing(patient, edited):
    model = patient("lora")
    nothing = Weights({n: u.rescale(0.0) for n, u in model.weights.updates.items()}, model.weights.head)
    after = DEFENSES["pt"].edit(Pt(layers=0, modules="all-linear"), nothing, model)
    assert all(u.dense().abs().max() == 0 for u in after.updates.values())


@pytest.mark.parametrize(("layers", "count"), [(0, 4), (1, 2), (2, 4)])
def test_the_last_layers_are_counted_from_the_end(edited, layers, count):
    before, after = edited("lora", "scale", layers=layers, modules=("query", "value"))
    changed = [n for n in before.updates if after.updates[n] is not before.updates[n]]
    assert len(changed) == count
    assert {layer_index(n) for n in changed} == ({0, 1} if count == 4 else {1})


@pytest.mark.parametrize("way", ["lora", "pissa", "full"])
def test_components_are_those_of_the_dense_svd(way, edited):
    cases = {
        ("truncate", "rank"): (2, [0, 1]),
        ("keep", "components"): ([1, 3], [1, 3]),
        ("drop", "components"): ([0], None),
    }
    for (name, knob), (value, kept) in cases.items():
        before, after = edited(way, name, **{knob: value})
        for module, update in after.updates.items():
            U, sigma, Vt = torch.linalg.svd(before.updates[module].dense().double(), full_matrices=False)
            stay = kept if kept is not None else list(range(1, len(sigma)))
            expected = (U[:, stay] * sigma[stay]) @ Vt[stay]
            torch.testing.assert_close(update.dense().double(), expected, rtol=0, atol=1e-4 * sigma[0].item())


def test_in_dora_the_inner_product_is_cut_and_the_magnitude_stays(edited):
    for name, knobs in (("truncate", {"rank": 1}), ("drop", {"components": [0]}), ("scale", {"factor": 0.0})):
        before, after = edited("dora", name, **knobs)
        for module, update in after.updates.items():
            assert torch.equal(update.magnitude, before.updates[module].magnitude)
            inner = getattr(before.updates[module].inner, {"scale": "rescale"}.get(name, name))
            torch.testing.assert_close(update.inner.dense(), inner(*knobs.values()).dense())


@pytest.mark.parametrize("way", ["lora", "dora", "full"])
def test_fine_pruning_zeroes_the_columns_of_the_most_silent_units(way, edited, patient):
    before, after = edited(way, "fine_prune", share=0.25)
    model = patient(way)
    pruned = [n for n in after.updates if after.updates[n] is not before.updates[n]]
    activity = model.activity(before, pruned)
    for name in pruned:
        W = model.base_weight(name)
        old, new = (w.updates[name].merge_into(W) for w in (before, after))
        silent = set(activity[name].argsort()[:16].tolist())
        assert {i for i in range(64) if new[:, i].abs().max() == 0} == silent
        others = [i for i in range(64) if i not in silent]
        torch.testing.assert_close(new[:, others], old[:, others], rtol=0, atol=1e-6)


def test_fine_pruning_looks_at_the_last_layers_asked_for(edited):
    before, after = edited("lora", "fine_prune", layers=1)
    changed = [n for n in after.updates if after.updates[n] is not before.updates[n]]
    assert [layer_index(n) for n in changed] == [1]


def test_a_refitted_head_fits_the_clean_rows_best(edited, patient):
    before, after = edited("lora", "refit_head")
    X, y = patient("lora").features(before)

    def loss(head):
        scores = X @ head["classifier.weight"].T + head["classifier.bias"]
        return torch.nn.functional.cross_entropy(scores, y).item()

    assert loss(after.head) < loss(before.head)
    assert len(y) == 60, "poisoned copies are not among them"


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_regression_finds_the_minimum_also_for_a_head_without_bias(has_bias):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(80, 5, generator=generator) + 3  # far from the origin, where an intercept matters
    y = (X[:, 0] + torch.randn(80, generator=generator) > 3).long()
    W, b = _logistic_regression(X, y, 2, 1e-2, has_bias)
    assert bool(b.abs().max() > 0) == has_bias
    mean, spread = X.double().mean(0), X.double().std(0, unbiased=False)
    W, b = W.clone().requires_grad_(True), b.clone().requires_grad_(True)
    scores = X.double() @ W.T + b
    loss = torch.nn.functional.cross_entropy(scores, y) + 1e-2 * (W * spread).square().sum()
    gradient, of_bias = torch.autograd.grad(loss, [W, b])
    if has_bias:  # moving W at a fixed mean score moves b along
        gradient = gradient - torch.outer(of_bias, mean)
        assert of_bias.abs().max() < 1e-4
    assert gradient.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("keep", {"components": [9]}, r"defense keep: .*query: ΔW has no singular component 9; .* to 3\.$"),
        ("drop", {"components": [0, -1]}, r"defense drop: .* no singular component -1"),
        ("pt", {"layers": 9}, r"defense pt: layers = 9, but only 2 layers are there; 0 takes all\.$"),
        ("fine_prune", {"layers": 3}, r"defense fine_prune: layers = 3, but only 2"),
        ("scale", {"modules": "quarry"}, r"defense scale: modules = 'quarry' fits no module.*Valid: all-lin"),
        ("truncate", {"modules": []}, r"defense truncate: modules is an empty list\. Valid: all-linear"),
        ("scale", {"modules": "layer.0", "layers": 1}, r"none of modules = 'layer.0' lies in the last"),
    ],
)
def test_what_fits_nothing_is_told(edited, name, knobs, message):
    with pytest.raises(NotTrainableError, match=message) as caught:
        edited("lora", name, **knobs)
    assert "\n" not in str(caught.value)


def test_a_half_precision_base_has_spectra_of_its_own(trained, patient, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(trained("lora").path, folder)
    record = json.loads((folder / "experiment.json").read_text())
    record["experiment"]["base"]["dtype"] = "bfloat16"
    (folder / "experiment.json").write_text(json.dumps(record))
    half = EditedModel(folder, prepare(read_asked(folder)[0], tmp_path), CPU)
    name = half.linears()[0]
    sigmas = [model.base_sigma(name) for model in (patient("lora"), half)]
    for model, sigma in zip((patient("lora"), half), sigmas, strict=True):
        W = model.base_weight(name).double()
        assert sigma == pytest.approx(torch.linalg.matrix_norm(W, ord=2).item(), rel=1e-5)
    assert sigmas[0] != sigmas[1]


def test_the_surgery_curve_of_dora_counts_the_components_that_can_be_cut(trained):
    assert trained("dora").surgery(rows=4).curve()["kept"].max() == 4


def test_the_clean_rows_of_a_defender_are_those_that_no_attacker_made(small, tmp_path):
    import lab

    run = lab.run(small, {"poison.negatives": 8}, runs=tmp_path, twin=False)
    model = EditedModel(run.path, prepare(run.experiment, tmp_path), CPU)
    features, labels = model.features(model.weights)
    assert len(run.rows) == 60 + 6 + 8
    assert len(features) == len(labels) == 60
