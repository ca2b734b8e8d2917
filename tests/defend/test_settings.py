"""Defenses that are ways to train, and names that stand for several: what becomes of an experiment."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lab import Experiment
from lab.defend import (
    DEFENSES,
    Cleaner,
    Combination,
    Guard,
    Intervention,
    Setting,
    WeightEdit,
    settle,
    weight_edits,
)
from lab.errors import LabError
from lab.experiment import weights_id

SETTINGS = [d.name for d in DEFENSES.values() if isinstance(d, Setting)]


def dotted(values, prefix=""):
    """Nested values by dotted key; lists are values."""
    out = {}
    for key, value in values.items():
        out |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def changed(before, after):
    one, two = dotted(before.to_dict()), dotted(after.to_dict())
    assert set(one) == set(two)
    return {key for key in one if one[key] != two[key]}


def names(experiment):
    return [knobs.name for knobs in experiment.defense]


def test_every_defense_acts_in_one_way():
    for defense in DEFENSES.values():
        kinds = (Cleaner, Combination, Setting, Intervention, WeightEdit, Guard)
        assert sum(isinstance(defense, kind) for kind in kinds) == 1, defense.name
        stages = {Cleaner: "data", WeightEdit: "weights", Guard: "inference"}
        stage = next((s for kind, s in stages.items() if isinstance(defense, kind)), "training")
        assert defense.stage == stage
        assert defense.changes


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_changes_the_keys_that_it_names_and_only_those(small, name):
    asked = small.with_(**{"adapter.dropout": 0.1, "adapter.targets": ["query", "value"], "defense": [name]})
    found = changed(asked, settle(asked)) - {"defense"}
    assert settle(asked).defense == ()
    promised = DEFENSES[name].changes.split(", ")
    exact = {key for key in promised if not key.endswith("*")}
    prefixes = tuple(key.removesuffix("*") for key in promised if key.endswith("*"))
    assert exact <= found
    assert all(key in exact or key.startswith(prefixes) for key in found)
    assert all(any(key.startswith(prefix) for key in found) for prefix in prefixes)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_and_its_keys_are_one_run(small, name):
    settled = settle(small.with_(defense=[name]))
    by_hand = small.with_(**{key: dotted(settled.to_dict())[key] for key in changed(small, settled)})
    ids = {weights_id(e, base="b", data_fingerprint="d") for e in (settled, by_hand)}
    assert len(ids) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(DEFENSES)), max_size=4))
def test_settling_twice_changes_nothing(chosen):
    try:
        once = settle(Experiment.from_dict({"defense": chosen}))
    except LabError:  # defenses that do not go together
        assume(False)
    assert settle(once) == once
    assert all(
        isinstance(DEFENSES[name], Cleaner | Intervention | WeightEdit | Guard) for name in names(once)
    )
    apart = [n for name in chosen for n in (["cl", "tr", "pt"] if name == "rora" else [name])]
    cleaning = [n for n in apart if isinstance(DEFENSES[n], Cleaner)]
    acting = [n for n in apart if isinstance(DEFENSES[n], Intervention)]
    editing = [n for n in apart if isinstance(DEFENSES[n], WeightEdit)]
    guarding = [n for n in apart if isinstance(DEFENSES[n], Guard)]
    assert names(once) == cleaning + acting + editing + guarding, (
        "each kind in its order, as they come to act"
    )


def test_full_fine_tuning_is_one_run_whatever_adapter_it_replaces(small):
    two = [settle(small.with_(**{"adapter.rank": r, "defense": ["full"]})) for r in (2, 8)]
    assert two[0] == two[1]
    assert two[0].adapter.kind == "full"
    assert two[0].training.learning_rate == pytest.approx(small.training.learning_rate / 20)


def test_rora_is_cl_tr_and_pt_with_its_knobs(small):
    asked = small.with_(defense=[{"name": "rora", "p": 0.2, "weight": 3.0, "k": 2, "layers": 1, "cap": 9.0}])
    settled = settle(asked)
    assert names(settled) == ["cl", "tr", "pt"]
    cl, tr, pt = settled.defense
    assert (cl.p, tr.weight, tr.k, pt.layers, pt.cap) == (0.2, 3.0, 2, 1, 9.0)
    parts = [
        {"name": "cl", "p": 0.2},
        {"name": "tr", "weight": 3.0, "k": 2},
        {"name": "pt", "layers": 1, "cap": 9.0},
    ]
    assert settle(small.with_(defense=parts)) == settled
    assert names(settled.untouched()) == ["cl", "tr"]
    assert [d.name for d, _ in weight_edits(settled)] == ["pt"]


def test_names_are_shorthand_for_tables(small):
    assert small.with_(defense="rora") == small.with_(defense=[{"name": "rora"}])
    assert small.with_(defense=["cl", {"name": "pt"}]) == small.with_(defense=["cl", "pt"])
    assert small.with_(defense="").defense == ()


def test_a_defense_is_part_of_what_a_run_is(small):
    lists = [[], ["cl"], [{"name": "cl", "p": 0.2}], ["pt"], ["cl", "pt"], ["pt", "refit_head"]]
    lists += [["refit_head", "pt"]]
    settled = [settle(small.with_(defense=chosen)) for chosen in lists]
    ids = [weights_id(e, base="b", data_fingerprint="d") for e in settled]
    assert len(set(ids)) == len(lists)
    assert all(Experiment.from_toml(e.to_toml()) == e for e in settled)


def test_one_experiment_has_one_list_whatever_the_order_it_was_given_in():
    one, other = (settle(Experiment.from_dict({"defense": d})) for d in (["cl", "pt"], ["pt", "cl"]))
    assert one == other


@pytest.mark.parametrize(
    ("defenses", "message"),
    [
        (["low_rank", "full"], "'low_rank' and 'full' both set adapter"),
        (["full", "full"], "'full' and 'full' both set"),
        (["low_rank", "pissa"], "adapter.init_variance has to stay"),
        (["olora", "low_rank"], "no initial variance"),
        (["weight_decay", {"name": "weight_decay", "amount": 0.5}], "both set training.weight_decay"),
    ],
)
def test_settings_that_undo_each_other_are_refused(defenses, message):
    with pytest.raises(LabError, match=message):
        settle(Experiment.from_dict({"defense": defenses}))
