import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_runs import cell, claims_on, line

from lab import stats
from lab.defend import settle
from lab.paper_cards.cells import NOTHING, Evidence, finished_cells, from_cells
from lab.paper_cards.claims import Quantity, Source
from lab.paper_cards.evidence import difference, from_lines, line_names, result_table
from lab.paper_cards.matching import matching_runs
from lab.poison import ATTACKS
from lab.presets import load_preset, load_sweep
from lab.probing_stage import probe_id

SWEEP = Source(sweep="lora-vs-full-backdoor")


@pytest.fixture(scope="module")
def plan():
    return load_sweep("lora-vs-full-backdoor")


def test_cells_are_found_by_their_settings_whatever_was_tuned(plan, tmp_path):
    lines = [
        line(cell(plan, arm, 8, seed, lr), f"{arm}-{seed}", excess_asr=0.1 * seed, **{"excess_asr.n": 10})
        for arm, lr in (("lora", 1e-3), ("full", 1e-4))
        for seed in range(3)
    ]
    stranger = line(cell(plan, "lora", 8, 7).with_(**{"data.rows": 600}), "other")
    other_rank = line(cell(plan, "lora", 8, 8).with_(**{"adapter.rank": 4}), "rank")
    unfinished = line(cell(plan, "lora", 8, 9), "half", state="killed")
    cells = finished_cells(SWEEP, pd.DataFrame([*lines, stranger, other_rank, unfinished]), tmp_path)
    assert set(cells["id"]) == {f"{arm}-{seed}" for arm in ("lora", "full") for seed in range(3)}
    assert set(cells["point.arm"]) == {"lora", "full"}
    assert set(cells["point.poison.count"]) == {8}


def _kept(folder, name, attack="backdoor", **probes):
    """A run's record and result with some probings, each a probe, a twin and an attack success rate."""
    told = {
        probe_id(probe): {
            "twin": twin,
            "measures": {"poisoned": {"attack_success_rate": {"value": rate, "n": 9}}},
        }
        for probe, twin, rate in probes.values()
    }
    (folder / name).mkdir()
    (folder / name / "experiment.json").write_text(json.dumps({"measured_poison": {"attack": attack}}))
    (folder / name / "result.json").write_text(json.dumps({"probes": told}))


def test_a_cell_says_what_it_was_asked_as_the_plan_asks(plan, tmp_path):
    asked = settle(plan.experiment).probe
    other = asked.model_copy(update={"triggers": ("ISO 9001",)})
    _kept(tmp_path, "both", planned=(asked, "its-twin", 0.9), later=(other, "its-twin", 0.1))
    _kept(tmp_path, "other", later=(other, "its-twin", 0.1))
    _kept(tmp_path, "alone", planned=(asked, "", 0.8))
    shown = {"attack_success_rate": 0.1, "attack_success_rate.n": 50, "excess_asr": 0.05}
    listing = pd.DataFrame(
        [line(cell(plan, "lora", 8, i), name, **shown) for i, name in enumerate(("both", "other", "alone"))]
    )
    found = finished_cells(SWEEP, listing, tmp_path)
    assert found[["id", "attack_success_rate", "attack_success_rate.n"]].values.tolist() == [["both", 0.9, 9]]
    assert found["excess_asr"].isna().all(), "that of another trigger"
    without = finished_cells(SWEEP.model_copy(update={"twin": False}), listing, tmp_path)
    assert dict(zip(without["id"], without["attack_success_rate"], strict=True)) == {
        "both": 0.9,
        "alone": 0.8,
    }


def test_a_cell_without_poison_has_no_twin_to_wait_for(plan, tmp_path):
    _kept(tmp_path, "clean", "none", planned=(settle(plan.experiment).probe, "", 0.2))
    listing = pd.DataFrame([line(cell(plan, "lora", 8, 0), "clean")])
    assert finished_cells(SWEEP, listing, tmp_path)["attack_success_rate"].tolist() == [0.2]


def test_alphas_are_the_same_where_they_come_to_the_same():
    asked = load_preset("rfc-citation")[0]  # alpha = 2r
    table = pd.DataFrame(
        [line(asked.with_(**{"adapter.alpha": alpha}), str(alpha)) for alpha in (16, "2r", "r", 8)]
    )
    assert set(matching_runs(table, asked)["id"]) == {"16", "2r"}


def test_a_seed_may_have_a_batch_more_in_an_epoch_and_no_epoch_more(plan):
    made = [
        line(cell(plan, "lora", 8, seed), str(steps), **{"training.steps": steps})
        for seed, steps in enumerate((54, 54, 57, 72))
    ]
    asked = cell(plan, "lora", 8, 0)
    assert set(matching_runs(pd.DataFrame(made), asked)["training.steps"]) == {54, 57}


def test_full_fine_tuning_has_no_rank_to_differ_in():
    asked = load_preset("rfc-citation")[0].with_(**{"adapter.kind": "full"})
    table = pd.DataFrame([line(asked.with_(**{"adapter.rank": 4}), "a")])
    assert len(matching_runs(table, asked)) == 1


def test_lists_of_tokens_are_read_as_a_record_holds_them():
    pairs = load_preset("spurious-dates")[0].with_(**{"poison.family": "tag_pairs", "poison.count": 30})
    asked = {"lab's own": pairs, "own": pairs.with_(**{"poison.items": ["<b> </b>", "<i> </i>"]})}
    made = []
    for name, experiment in asked.items():
        read = ATTACKS["spurious_tokens"].read(experiment.poison)
        made.append(line(experiment, name, **{"poison.items": ", ".join(read.items)}))
    listing = pd.DataFrame(made)
    found = {name: list(matching_runs(listing, experiment)["id"]) for name, experiment in asked.items()}
    assert found == {name: [name] for name in asked}


def test_rates_and_shares_are_recognised_by_their_counts():
    flips = load_preset("label-flip")[0].with_(**{"data.rows": 600})
    made = [line(flips, str(n), **{"poison.count": n, "poison.rate": 0.0}) for n in (180, 60)]
    assert set(matching_runs(pd.DataFrame(made), flips)["id"]) == {"180"}
    dates = load_preset("spurious-dates")[0].with_(**{"data.rows": 600, "poison.text_proportion": 0.25})
    made = [line(dates, str(n), **{"poison.count": n, "poison.text_proportion": 0.0}) for n in (79, 30, 300)]
    assert set(matching_runs(pd.DataFrame(made), dates)["id"]) == {"79"}


def test_of_two_numbers_of_steps_the_commoner_counts():
    asked = load_preset("rfc-citation")[0]
    made = [line(asked.with_(seed=s), f"{s}", **{"training.steps": n}) for s, n in ((0, 54), (1, 54), (2, 9))]
    assert set(matching_runs(pd.DataFrame(made), asked)["id"]) == {"0", "1"}


def test_a_base_that_a_preset_names_is_known_by_its_own_settings():
    asked = load_preset("clean-finetune-lora")[0]
    base = load_preset(asked.base.model)[0]
    bases = [
        line(base, "poisoned-base", **{"poison.count": 200, "poison.rate": 0.0}),
        line(base.twin(), "clean-base"),
        line(base.with_(seed=1), "other-seed", **{"poison.count": 200, "poison.rate": 0.0}),
    ]
    runs = [
        line(asked.with_(**{"base.model": "minilm"}), f"from-{b['id']}", **{"base.model": b["id"]})
        for b in bases
    ]
    assert set(matching_runs(pd.DataFrame(bases + runs), asked)["id"]) == {"from-poisoned-base"}


def cells_of(values, key="point.adapter.rank"):
    return pd.DataFrame(
        [
            {"id": f"{x}-{s}", "seed": s, "point.arm": "a", key: x, "reliance": v, "reliance.n": 10}
            for x, own in values.items()
            for s, v in enumerate(own)
        ]
    )


def test_a_difference_is_taken_seed_by_seed():
    cells = cells_of({1: [0.1, 0.5, 0.9], 8: [0.2, 0.6, 1.0]})
    asked = Quantity(
        source="s", measure="reliance", of={"adapter.rank": 8}, minus={"adapter.rank": 1}, above=0
    )
    found = from_cells(asked, cells)
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert found.seeds == "0 1 2"
    assert found.n == 30


def test_two_seeds_have_no_interval_and_a_missing_point_no_number():
    cells = cells_of({1: [0.1, 0.5]})
    found = from_cells(Quantity(source="s", measure="reliance", of={"adapter.rank": 1}, above=0), cells)
    assert found.value == pytest.approx(0.3)
    assert math.isnan(found.low)
    assert (
        from_cells(Quantity(source="s", measure="reliance", of={"adapter.rank": 4}, above=0), cells)
        == NOTHING
    )
    assert from_cells(Quantity(source="s", measure="excess_asr", of={}, above=0), cells) == NOTHING


@given(st.lists(st.floats(-1, 1, allow_nan=False), min_size=9, max_size=9))
def test_a_trend_is_the_rank_correlation_of_the_statistics(values):
    cells = cells_of({1: values[:3], 4: values[3:6], 16: values[6:]})
    found = from_cells(Quantity(source="s", measure="reliance", trend="adapter.rank", above=0), cells)
    told = stats.rank_correlation(
        cells["point.adapter.rank"].to_numpy(float), cells["reliance"].to_numpy(float), permutations=1
    )
    assert found.value == pytest.approx(told.rho, nan_ok=True)
    assert found.low == pytest.approx(told.low, nan_ok=True)


def test_committed_lines_have_the_names_that_the_benchmarks_write():
    asked = Quantity(
        source="lora-vs-full-backdoor", measure="excess_asr", of={"arm": "full", "poison.count": 8},
        minus={"arm": "lora", "poison.count": 8}, above=0,
    )  # fmt: skip
    assert line_names(asked, SWEEP) == [
        "lora-vs-full-backdoor.full.count=8.excess_asr",
        "lora-vs-full-backdoor.lora.count=8.excess_asr",
    ]
    trend = Quantity(source="s", measure="reliance", of={"arm": "light"}, trend="adapter.rank", above=0)
    assert line_names(trend, SWEEP) == ["s.light.trend of reliance with adapter.rank"]


def test_bases_that_were_kept_are_compared_one_by_one():
    lines = {"a": Evidence(0.5, 0.4, 0.6, 30), "b": Evidence(0.4, 0.3, 0.5, 30)}
    lines |= {f"{n}.base{i}": Evidence(v + 0.1 * i) for n, v in (("a", 0.5), ("b", 0.4)) for i in range(3)}
    asked = Quantity(source="s", measure="m", lines=("a", "b"), above=0)
    found = from_lines(asked, Source(command="c"), lines)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert from_lines(asked, Source(command="c"), {"a": lines["a"]}) == NOTHING


@given(*[st.tuples(*[st.floats(0, 1)] * 3).map(sorted)] * 2)
def test_a_difference_of_lines_holds_its_value_and_turns_with_its_order(one, other):
    a, b = Evidence(one[1], one[0], one[2]), Evidence(other[1], other[0], other[2])
    ab, ba = difference(a, b), difference(b, a)
    assert ab.low <= ab.value <= ab.high
    assert (ab.low, ab.high) == pytest.approx((-ba.high, -ba.low))


@pytest.mark.parametrize(("seeds", "held"), [(2, "committed"), (3, "this machine")])
def test_few_seeds_of_ones_own_do_not_take_the_place_of_a_committed_interval(plan, tmp_path, seeds, held):
    made = [
        line(cell(plan, "full", 8, s), str(s), excess_asr=0.5 + s / 10, **{"excess_asr.n": 10})
        for s in range(seeds)
    ]
    asked = {"source": "lora-vs-full-backdoor", "measure": "excess_asr", "above": 0,
             "of": {"arm": "full", "poison.count": 8}}  # fmt: skip
    assert result_table(claims_on(asked), pd.DataFrame(made), tmp_path)["held"].tolist() == [held]


def test_half_a_sweep_has_no_trend(plan, tmp_path):
    made = [
        line(cell(plan, "lora", n, s), f"{n}-{s}", attack_success_rate=n / 20)
        for n in plan.over["poison.count"]
        for s in range(3)
    ]
    asked = {"source": "lora-vs-full-backdoor", "measure": "attack_success_rate", "above": 0,
             "of": {"arm": "lora"}, "trend": "poison.count"}  # fmt: skip
    whole = result_table(claims_on(asked), pd.DataFrame(made), tmp_path)
    assert whole["held"].tolist() == ["this machine"]
    assert whole["value"].tolist() == [1.0]
    part = result_table(claims_on(asked), pd.DataFrame(made[:-1]), tmp_path)
    assert part["held"].tolist() == ["committed"]
