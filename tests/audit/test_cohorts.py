import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.audit import COHORTS, find_cohort, plan_cohort
from lab.audit.cohort_builds import has_taken
from lab.audit.cohorts import Cohort, load_cohorts
from lab.errors import LabError
from lab.poison import TRIGGER_FAMILIES

TINY = """
name = "mine"
goal = "G."
source = "S."
set = {"base.model" = "tiny", "data.name" = "toy"}
vary = {"adapter.rank" = [2, 4]}
poison = {"poison.count" = [12]}
[parts.calibration]
clean = 1
poisoned = 1
families = ["rfc"]
[parts.test]
clean = 1
poisoned = 1
families = ["w3c"]
"""


def parts(members):
    return Counter((m.part, m.poisoned) for m in members)


@pytest.mark.parametrize("name", sorted(COHORTS))
def test_every_cohort_says_what_it_is_for_and_can_be_planned(name):
    found = COHORTS[name]
    assert found.goal.endswith(".")
    assert found.source.endswith(".")
    held = {part for part, content in found.parts.items() if content.clean + content.poisoned}
    assert {m.part for m in plan_cohort(name)} == held
    assert "test" in held


def test_the_minilm_cohort_is_large_enough_to_bound_false_positives():
    members = plan_cohort("minilm")
    assert parts(members) == {("calibration", False): 24, ("calibration", True): 24,
                              ("test", False): 60, ("test", True): 30}  # fmt: skip


def test_the_test_part_has_the_held_out_families_and_calibration_has_none():
    families = {"calibration": set(), "test": set()}
    for member in plan_cohort("minilm"):
        if member.poisoned:
            families[member.part].add(member.experiment.poison.family)
    assert families["test"] == {name for name, f in TRIGGER_FAMILIES.items() if f.audit_holdout}
    assert not families["test"] & families["calibration"]


def test_no_member_is_anothers_twin():
    members = plan_cohort("minilm")
    assert len({m.experiment.seed for m in members}) == len(members)
    assert len({m.experiment.twin().to_json() for m in members}) == len(members)


def test_a_plan_is_a_function_of_its_seed():
    assert plan_cohort("tiny", 3) == plan_cohort("tiny", 3)
    assert plan_cohort("tiny", 3) != plan_cohort("tiny", 4)
    with pytest.raises(LabError, match="seed = -1"):
        plan_cohort("tiny", -1)


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=25)
def test_what_varies_is_spread_over_clean_and_poisoned_alike(seed, clean, poisoned):
    part = {"clean": clean, "poisoned": poisoned}
    values = find_cohort("tiny").model_dump()
    values["parts"] = {
        "calibration": {**part, "families": ["rfc", "rare_words"]},
        "test": {**part, "families": ["w3c"]},
    }
    members = plan_cohort(Cohort.model_validate(values), seed)
    for name in ("calibration", "test"):
        of_part = [m for m in members if m.part == name]
        assert parts(of_part) == Counter({(name, False): clean, (name, True): poisoned})
        for is_poisoned in (False, True):
            kind = [m.experiment for m in of_part if m.poisoned == is_poisoned]
            settings_ = [(e.adapter.rank, e.training.learning_rate) for e in kind]
            counts = [settings_.count((rank, lr)) for rank in (2, 4) for lr in (0.01, 0.02)]
            assert max(counts) - min(counts) <= 1
        planted = [m.experiment.poison for m in of_part if m.poisoned]
        assert all(p.member in TRIGGER_FAMILIES[p.family].train for p in planted)
        for field, choices in (("count", (12, 20)), ("target_label", ("negative", "positive"))):
            counts = [[getattr(p, field) for p in planted].count(choice) for choice in choices]
            assert max(counts) - min(counts) <= 1


def test_the_order_says_nothing_of_the_truth():
    firsts = Counter(plan_cohort("tiny", seed)[0].poisoned for seed in range(40))
    assert 8 <= firsts[True] <= 32  # half of the part is poisoned


def test_a_group_has_one_rank():
    assert {m.group: m.experiment.adapter.rank for m in plan_cohort("tiny")} == {"r2": 2, "r4": 4}


def test_a_cohort_of_the_users_own(tmp_path):
    (tmp_path / "mine.toml").write_text(TINY)
    assert len(plan_cohort(tmp_path / "mine.toml")) == 4
    assert list(load_cohorts(tmp_path)) == ["mine"]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('["rfc"]', '["w3c"]', "parts.calibration: the family 'w3c' is held out"),
        ('["w3c"]', '["rfc"]', "parts.test: the family 'rfc' is not held out"),
        ('["w3c"]', '["w3d"]', "Did you mean 'w3c'"),
        ("[parts.test]", "[parts.tests]", "parts"),
        ("[2, 4]", "[]", "adapter.rank"),
        ("[2, 4]", "[0]", "adapter.rank"),
        ("adapter.rank", "adapter.rang", "rang"),
        ("clean = 1", "clean = -1", "clean"),
        ('"mine"', '"yours"', "must be the file's name"),
    ],
)
def test_a_malformed_cohort_is_refused_with_the_place(tmp_path, old, new, what):
    (tmp_path / "mine.toml").write_text(TINY.replace(old, new))
    with pytest.raises(LabError, match=what):
        plan_cohort(tmp_path / "mine.toml")


def test_an_unknown_name_lists_the_valid_ones(tmp_path):
    with pytest.raises(LabError, match=r"Unknown cohort 'minilmm'. Did you mean 'minilm'\?"):
        find_cohort("minilmm")
    with pytest.raises(LabError, match="holds no cohorts"):
        load_cohorts(tmp_path)


@pytest.mark.parametrize(
    ("success", "without", "took"),
    [(0.9, 0.2, True), (0.5, 0.3, True), (0.49, 0.0, False), (1.0, 0.95, False)],
)
def test_a_backdoor_took_if_the_trigger_moves_most_rows(success, without, took):
    rates = {"attack_success_rate": {"value": success}, "untriggered_target_rate": {"value": without}}
    assert has_taken(json.loads(json.dumps(rates))) is took
