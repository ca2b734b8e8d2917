"""Defenses that act while a model trains: what they change as long as they are attached, and what stays."""

import pytest
import torch
from safetensors.torch import load_file

import lab
from lab.defend import DEFENSES, Intervention
from lab.defend.rora import dropped_out
from lab.errors import NotTrainableError
from lab.train.merged_forward import merged_forward

INTERVENTIONS = [d for d in DEFENSES.values() if isinstance(d, Intervention)]
#: What may be seen of each while it is attached; everything else is as before.
SEEN = {"cl": {"training forward", "hooks"}, "tr": {"penalty"}, "freeze_a": {"requires_grad"}}


def logits(model, training):
    torch.manual_seed(0)
    ids = torch.arange(5, 29).reshape(3, 8)
    with torch.no_grad():
        return model.train(training)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def hooked(model):
    return {name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks}


def trainable(model):
    return {name: p.requires_grad for name, p in model.named_parameters()}


def look(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return logits(model, False), logits(model, True), hooked(model), trainable(model), state


def differing(before, after):
    """What differs between two looks at one model."""
    found = set()
    if not torch.equal(before[1], after[1]):
        found.add("training forward")
    if before[2] != after[2]:
        found.add("hooks")
    if before[3] != after[3]:
        found.add("requires_grad")
    assert before[4].keys() == after[4].keys()
    if not all(torch.equal(before[4][name], after[4][name]) for name in before[4]):
        found.add("weights")
    if not torch.equal(before[0], after[0]):
        found.add("evaluation forward")
    return found


def test_every_intervention_is_looked_at():
    assert set(SEEN) == {d.name for d in INTERVENTIONS}


@pytest.mark.parametrize("defense", INTERVENTIONS, ids=lambda d: d.name)
@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_it_changes_what_it_says_while_attached_and_leaves_nothing(lora_model, defense, variant):
    _, model, subject = lora_model(variant=variant)
    before = look(model)
    with defense.attach(defense.knobs(), subject) as penalty:
        seen = differing(before, look(model)) | ({"penalty"} if penalty else set())
    assert seen == SEEN[defense.name]
    assert differing(before, look(model)) == set()


@pytest.mark.parametrize("defense", INTERVENTIONS, ids=lambda d: d.name)
def test_nothing_is_left_when_a_training_breaks_off(lora_model, defense):
    _, model, subject = lora_model()
    before = look(model)
    with pytest.raises(KeyboardInterrupt), defense.attach(defense.knobs(), subject):
        raise KeyboardInterrupt
    assert differing(before, look(model)) == set()


def test_cl_hooks_the_frozen_path_of_the_chosen_modules_alone(lora_model):
    _, model, subject = lora_model()
    cl = DEFENSES["cl"]
    for modules, endings in (("query-value", ("query", "value")), (("intermediate.dense",), ("dense",))):
        with cl.attach(cl.knobs(modules=modules), subject):
            hooks = hooked(model)
        assert len(hooks) == 2 * len(endings)
        assert all(name.endswith(tuple(f"{end}.base_layer" for end in endings)) for name in hooks)


def test_cl_drops_a_share_p_of_the_frozen_output_and_keeps_its_mean(lora_model):
    _, _, subject = lora_model()
    layer = next(layer for name, layer in subject.layers.items() if name.endswith("query"))
    x = torch.ones(2000, 32)
    with torch.no_grad():
        frozen = layer.eval().base_layer(x)
        adapter = layer(x) - frozen
        with DEFENSES["cl"].attach(DEFENSES["cl"].knobs(p=0.3), subject):
            dropped = layer.train()(x) - adapter
    kept = dropped.abs() > 1e-5
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.01)
    torch.testing.assert_close(dropped[kept], (frozen / 0.7)[kept], rtol=1e-4, atol=1e-5)


def test_layers_with_cl_do_not_go_around_it_through_merged_weights(lora_model):
    _, model, subject = lora_model()
    with merged_forward(model) as plain:
        assert plain == len(subject.layers)
    with DEFENSES["cl"].attach(DEFENSES["cl"].knobs(), subject):
        without = logits(model, True)
        with merged_forward(model) as left:
            assert left == plain - 4
            torch.testing.assert_close(logits(model, True), without, rtol=1e-4, atol=1e-5)


def test_freeze_a_freezes_a_of_the_chosen_modules_alone(lora_model):
    _, model, subject = lora_model()
    before = trainable(model)
    freeze = DEFENSES["freeze_a"]
    with freeze.attach(freeze.knobs(modules="query-value"), subject):
        frozen = {name for name, wanted in trainable(model).items() if wanted != before[name]}
    assert len(frozen) == 4
    assert all("lora_A" in name and name.split(".lora_A")[0].endswith(("query", "value")) for name in frozen)


def test_what_is_saved_is_a_plain_adapter_with_a_frozen_where_asked(small, trained, lora_model, tmp_path):
    defense = ["cl", {"name": "tr", "k": 2}, {"name": "freeze_a", "modules": "attention"}]
    run, plain = lab.run(small, {"defense": defense}, runs=tmp_path, twin=False), trained("lora")
    one, two = ((r.path / "adapter" / "adapter_config.json").read_bytes() for r in (run, plain))
    assert one == two
    saved, other = (load_file(r.path / "adapter" / "adapter_model.safetensors") for r in (run, plain))
    assert saved.keys() == other.keys()
    _, _, subject = lora_model()
    for name, layer in subject.layers.items():
        A, B = (f"base_model.model.{name}.lora_{factor}.weight" for factor in "AB")
        assert torch.equal(saved[A], layer.lora_A["default"].weight) == ("attention" in name), name
        assert saved[B].abs().max() > 0
        assert not torch.equal(saved[B], other[B]), "the training was another one"


def test_modules_that_fit_nothing_are_told(lora_model):
    _, _, subject = lora_model()
    for defense in INTERVENTIONS:
        for modules in ("quarry", (), ("query", "layer.7")):
            message = rf"defense {defense.name}: modules .*Valid: all-linear"
            with pytest.raises(NotTrainableError, match=message):
                defense.attach(defense.knobs(modules=modules), subject).__enter__()


def test_dropout_keeps_its_share_and_its_mean_and_follows_the_seed():
    ones = torch.ones(400, 500, requires_grad=True)
    torch.manual_seed(3)
    once = dropped_out(ones, 0.3)
    torch.manual_seed(3)
    assert torch.equal(once, dropped_out(ones, 0.3))
    kept = (once != 0).float()
    assert abs(kept.mean().item() - 0.7) < 4 * (0.3 * 0.7 / 200_000) ** 0.5
    assert torch.allclose(once, kept / 0.7)
    once.sum().backward()
    assert torch.allclose(ones.grad, kept / 0.7)
