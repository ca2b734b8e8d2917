import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import comparison
from lab.comparison import Listing
from lab.run_settings import Settings, setting_text, settings_table
from lab.stats import bootstrap_mean

_VALUES = {
    "base.model": st.sampled_from(["minilm", "tiny"]),
    "poison.family": st.sampled_from(["rfc", "iso", math.nan]),
    "poison.attack": st.sampled_from(["backdoor", "none"]),
    "adapter.kind": st.sampled_from(["lora", "full"]),
    "adapter.rank": st.sampled_from([1, 4, 8]),
    "adapter.alpha": st.sampled_from(["2r", 4.0, 16.0]),
    "adapter.targets": st.sampled_from(["all-linear", ["query", "value"]]),
    "defense": st.sampled_from(["", "cl", "rora+cl"]),
    "seed": st.integers(0, 3),
    "attack_success_rate": st.sampled_from([0.0, 0.5, 1.0, math.nan]),
}


@st.composite
def listings(draw, least=1):
    lines = draw(st.lists(st.fixed_dictionaries(_VALUES), min_size=least, max_size=8))
    lead = {"state": "finished", "name": "", "created": 0.0, "twin": ""}
    return pd.DataFrame([{"id": f"run-{i}", **lead, **line} for i, line in enumerate(lines)])


@pytest.fixture
def sweep():
    lines = [
        {
            "id": f"r{rank}-s{seed}", "state": "finished", "name": "sweep", "created": float(seed),
            "twin": "t", "base.model": "minilm", "poison.attack": "backdoor", "poison.family": "rfc",
            "poison.member": "as specified in RFC 2616", "poison.count": 60.0, "adapter.kind": "lora",
            "adapter.rank": rank, "adapter.alpha": "2r", "defense": "", "seed": seed,
            "attack_success_rate": 0.1 * rank + 0.01 * seed, "attack_success_rate.n": 459.0,
            "attack_success_rate.low": 0.0, "attack_success_rate.high": 1.0,
        }
        for rank in (4, 8)
        for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def test_no_runs_have_nothing_in_common_and_nothing_apart():
    empty = pd.DataFrame(columns=["id", "state", "name", "created", "twin"])
    assert Listing(empty).asked.constant == {}
    assert Listing(empty).asked.differing == []
    assert len(Listing(empty).averaged()) == 0
    assert len(Listing(empty).filtered("x", only_poisoned=True, hide_twins=True)) == 0
    assert len(Listing(empty).arms) == 0


def test_what_differs_and_what_does_not(sweep):
    assert Settings(sweep).differing == ["adapter.rank", "seed"]
    same = Settings(sweep).constant
    assert same["alpha/r"] == 2
    assert same["poison.count"] == 60
    assert isinstance(same["poison.count"], int)
    assert "adapter.alpha" not in same
    assert Settings(sweep).numeric == ["adapter.rank", "seed"]


def test_the_same_scaling_said_in_two_ways_is_the_same(sweep):
    said = sweep.assign(**{"adapter.alpha": ["2r", 8.0, "2r", "2r", 16.0, "2r"]})
    assert Settings(said).constant["alpha/r"] == 2


def test_a_setting_that_does_not_apply_is_no_difference(sweep):
    full = sweep.assign(**{"adapter.kind": ["full"] + ["lora"] * 5, "adapter.rank": [99] + [8] * 5})
    assert "adapter.rank" not in Settings(full).differing
    assert Settings(full).constant["adapter.rank"] == 8
    assert "adapter.kind" in Settings(full).differing


@settings(max_examples=40, deadline=None)
@given(listings())
def test_every_setting_differs_or_is_constant_and_order_is_nothing(table):
    asked = settings_table(table)
    told = {key for key in asked if asked[key].notna().any()}
    constant, differing = Settings(table).constant, Settings(table).differing
    assert set(constant) | set(differing) == told
    assert not set(constant) & set(differing)
    turned = table.iloc[::-1]
    assert Settings(turned).constant == constant
    assert Settings(turned).differing == differing
    assert set(Settings(table.iloc[1:]).differing) <= set(differing)


@settings(max_examples=40, deadline=None)
@given(listings(), st.data())
def test_a_part_of_a_listing_answers_as_a_listing_of_that_part(table, data):
    part = table[data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table)))]
    found, alone = Settings(table).of(part), Settings(part)
    assert found.constant == alone.constant
    assert found.differing == alone.differing
    assert found.numeric == alone.numeric
    assert found.texts("poison.family").tolist() == alone.texts("poison.family").tolist()
    pd.testing.assert_frame_equal(found.table, alone.table, check_dtype=False)
    pd.testing.assert_series_equal(Listing(table).of(part).groups, Listing(part).groups)


@settings(max_examples=40, deadline=None)
@given(listings(), st.integers(0, 4), st.integers(0, 4))
def test_a_page_of_the_averages_is_a_part_of_them(table, first, count):
    page = Listing(table).averaged(range(first, first + count))
    every = Listing(table).averaged().iloc[first : first + count]
    assert page.to_csv(index=False) == (every.to_csv(index=False) if len(every) else page.to_csv(index=False))
    assert len(page) == len(every)


@settings(max_examples=40, deadline=None)
@given(listings())
def test_groups_part_the_runs_and_hold_no_seed_twice(table):
    groups = Listing(table).groups
    assert sorted(groups.unique()) == list(range(groups.nunique()))
    asked = settings_table(table).drop(columns="seed").astype(str)
    for number in groups.unique():
        part = table[groups == number]
        assert part["seed"].is_unique
        assert len(asked[groups == number].drop_duplicates()) == 1


@settings(max_examples=40, deadline=None)
@given(listings())
def test_grouping_loses_no_run_and_averages_what_was_measured(table):
    grouped = Listing(table).averaged()
    assert sorted(",".join(grouped["run"]).split(",")) == sorted(table["id"])
    assert grouped["runs"].sum() == len(table)
    values = dict(zip(table["id"], table["attack_success_rate"], strict=True))
    for line in grouped.to_dict("records"):
        known = [values[i] for i in line["run"].split(",") if values[i] == values[i]]
        assert line["attack_success_rate.runs"] == len(known)
        if known:
            assert line["attack_success_rate"] == pytest.approx(sum(known) / len(known))
        else:
            assert math.isnan(line["attack_success_rate"])


def test_seeds_get_a_bootstrap_interval_and_a_single_run_keeps_its_own(sweep):
    grouped = Listing(sweep).averaged()
    assert grouped["seeds"].tolist() == ["0, 1, 2"] * 2
    wanted = bootstrap_mean([0.4, 0.41, 0.42], seed=0, resamples=2000)
    assert grouped.loc[0, "attack_success_rate"] == pytest.approx(wanted.value)
    assert grouped.loc[0, "attack_success_rate.low"] == pytest.approx(wanted.low)
    assert grouped.loc[0, "attack_success_rate.n"] == 3 * 459
    two = Listing(sweep.head(2)).averaged()
    assert math.isnan(two.loc[0, "attack_success_rate.low"])
    one = Listing(sweep.head(1)).averaged()
    assert one.loc[0, "attack_success_rate.high"] == 1.0


def test_runs_that_differ_in_something_unlisted_are_not_averaged(sweep):
    twice = pd.concat([sweep.head(3), sweep.head(1).assign(id="other-knobs")], ignore_index=True)
    assert Listing(twice).groups.nunique() == 4


def test_bases_that_differ_in_their_seed_alone_are_one_base(sweep):
    lines = sweep.head(3)
    tuned = lines.assign(**{"id": [f"f{i}" for i in range(3)], "base.model": lines["id"], "adapter.rank": 2})
    table = pd.concat([lines, tuned], ignore_index=True)
    assert Listing(table).groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert Listing(tuned).groups.nunique() == 3  # without the bases nobody can know
    assert Listing(table.assign(**{"poison.attack": ["backdoor"] * 3 + ["none"] * 3})).poisoned.all()


def test_corrupt_runs_stand_alone(sweep):
    torn = sweep.assign(state="corrupt")
    assert Listing(torn).groups.nunique() == len(sweep)


def test_arms_and_triggers_for_the_frontier(sweep):
    table = sweep.assign(
        **{
            "defense": ["", "", "cl", "rora+cl", "", ""],
            "adapter.kind": ["lora", "full", "lora", "lora", "lora", "lora"],
            "adapter.variant": ["lora", "lora", "lora", "lora", "dora", "lora"],
            "adapter.init": ["kaiming"] * 5 + ["pissa"],
            "base.model": ["minilm", "r4-s0", *["minilm"] * 4],
            "poison.member": ["mn", math.nan, "any", "mn", "mn", "mn"],
            "poison.family": ["rare_words", math.nan, "rfc", "x", "x", "x"],
        }
    )
    arms = Listing(table).arms
    assert arms["arm"].tolist() == ["lora", "full", "cl", "rora+cl", "dora", "pissa"]
    assert arms["trigger"].tolist()[:3] == ["mn", "mn", "rfc"]
    assert arms["run"].tolist() == table["id"].tolist()
    assert math.isnan(arms["adapter.rank"][1])


def test_filters(sweep):
    table = pd.concat(
        [sweep, sweep.head(1).assign(**{"id": "t", "poison.attack": "none", "poison.family": math.nan})],
        ignore_index=True,
    )
    ids = lambda found: found.table["id"].tolist()  # noqa: E731
    assert ids(Listing(table).filtered("RFC R4-")) == ["r4-s0", "r4-s1", "r4-s2"]
    assert ids(Listing(table).filtered("(")) == []
    assert ids(Listing(table).filtered(choices={"adapter.rank": ["8"]})) == ["r8-s0", "r8-s1", "r8-s2"]
    assert ids(Listing(table).filtered(choices={"poison.family": ["none"]})) == ["t"]
    assert "t" not in ids(Listing(table).filtered(only_poisoned=True))
    assert "t" not in ids(Listing(table).filtered(hide_twins=True))
    assert len(Listing(table).filtered(choices={"state": []})) == 7


@settings(max_examples=40, deadline=None)
@given(listings(), st.text(max_size=5), st.booleans(), st.booleans())
def test_a_filter_gives_lines_of_the_table_in_its_order(table, text, poisoned, twins):
    found = Listing(table).filtered(text, only_poisoned=poisoned, hide_twins=twins)
    assert found.table.index.is_monotonic_increasing
    assert set(found.table["id"]) <= set(table["id"])
    again = found.filtered(text, only_poisoned=poisoned, hide_twins=twins)
    assert again.table["id"].tolist() == found.table["id"].tolist()


def test_titles():
    line = {"id": "a-0123456789", "poison.attack": "none", "adapter.kind": "full", "seed": 2}
    assert comparison.run_title(line) == "clean data · full fine-tuning · seed 2"
    line |= {"base.model": "minilm-rare_words-n200-full-s0-c1e634b6c0"}
    assert comparison.run_title(line).endswith("from minilm-rare_words-n200-full-s0 · seed 2")
    assert comparison.run_title({"id": "torn-1", "poison.attack": math.nan, "seed": 0}) == "torn-1"
    many = {"poison.family": "rfc", "adapter.rank": 4, "seeds": "0, 1", "runs": 2}
    assert comparison.run_title(many) == "rfc · rank 4 · seeds 0, 1"
    assert setting_text("adapter.rank", 8) == "rank 8"
    assert setting_text("poison.count", 60) == "60 poison rows"
    assert setting_text("training.learning_rate", 1e-3) == "learning rate 0.001"


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_no_text_reaches_a_spreadsheet_as_a_formula(text):
    written = comparison.safe_csv(pd.DataFrame({"name": [text], "n": [-1.5]})).decode()
    body = written.partition("\n")[2]
    assert not body.lstrip('"').startswith(("=", "+", "-", "@", "\t", "\r"))
    assert body.rstrip().endswith("-1.5")
