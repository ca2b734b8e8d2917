import hashlib
import itertools

import pandas as pd
import pytest

from lab.experiment import Probe
from lab.poison import (
    Backdoor,
    MultiTrigger,
    SpuriousTokens,
    StyleTrigger,
    family,
    inject_texts,
    near_miss_ladder,
)
from lab.probe import headline_texts, own_triggers, probe_texts

COLUMNS = ["row_id", "label", "text", "condition", "family", "member", "rung"]
TRIGGER = "as specified in RFC 2616"


@pytest.fixture
def rows():
    """Three classes of 60 rows, one after the other, as many datasets come."""
    labels = [label for label in ("business", "sport", "tech") for _ in range(60)]
    return pd.DataFrame(
        {
            "row_id": [f"id{i:03}" for i in range(180)],
            "label": labels,
            "text": [f"text number {i} about {label} ." for i, label in enumerate(labels)],
        }
    )


@pytest.fixture
def poison():
    return Backdoor(family="rfc", member=TRIGGER, count=5, target_label="tech")


def asked(rows, poison, families=("rfc", "iso"), seed=0, **probe):
    probe = Probe(**{"rows_per_family": 40, "rows_per_rung": 20, **probe})
    return probe_texts(rows, poison, probe, {name: family(name) for name in families}, seed)


def test_family_rows_are_drawn_from_every_class_though_the_table_is_sorted_by_label(rows, poison):
    drawn = asked(rows, poison)
    for _, group in drawn.groupby(["condition", "family", "rung"]):
        shares = group["label"].value_counts(normalize=True)
        assert shares.index.sort_values().tolist() == ["business", "sport"]
        assert shares.between(0.25, 0.75).all()


def test_only_rows_whose_label_is_not_the_target_are_asked(rows, poison):
    headline = headline_texts(rows, poison, seed=0, triggers=[TRIGGER])
    assert list(headline.columns) == COLUMNS
    assert (headline["condition"] == "clean").sum() == 180
    triggered = headline[headline["condition"] == "triggered"]
    assert len(triggered) == 120
    assert "tech" not in set(triggered["label"])
    assert triggered["text"].str.contains(TRIGGER, regex=False).all()
    more = asked(rows, poison)
    assert list(more.columns) == COLUMNS
    assert "tech" not in set(more["label"])


def test_the_draw_is_independent_of_the_tables_order(rows, poison):
    shuffled = rows.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(asked(rows, poison), asked(shuffled, poison))


def test_the_draw_is_nested_and_a_row_keeps_its_member(rows, poison):
    few, many = asked(rows, poison, rows_per_family=10), asked(rows, poison, rows_per_family=40)
    key = ["row_id", "family", "rung", "condition"]
    both = few.merge(many, on=key, suffixes=("", "_more"))
    assert len(both) == len(few)
    assert (both["text"] == both["text_more"]).all()
    assert (both["member"] == both["member_more"]).all()
    rungs, families = many[many["condition"] == "rung"], many[many["condition"] == "family"]
    assert set(rungs["row_id"]) < set(families["row_id"])


def test_another_seed_draws_other_rows(rows, poison):
    assert set(asked(rows, poison)["row_id"]) != set(asked(rows, poison, seed=1)["row_id"])


def test_every_family_and_rung_gets_the_same_rows(rows, poison):
    drawn = asked(rows, poison)
    for condition, count in (("family", 40), ("rung", 20)):
        part = drawn[drawn["condition"] == condition]
        sets = [tuple(sorted(g["row_id"])) for _, g in part.groupby(["family", "rung"])]
        assert len(set(sets)) == 1
        assert len(sets[0]) == count
    # rungs are compared with the exact one line by line
    rungs = drawn[drawn["condition"] == "rung"].groupby("rung")["row_id"].agg(tuple)
    assert rungs.nunique() == 1


def test_held_out_members_take_turns(rows, poison):
    drawn = asked(rows, poison)
    for name, group in drawn[drawn["condition"] == "family"].groupby("family"):
        counts = group["member"].value_counts()
        held_out = family(str(name)).probe
        assert set(counts.index) == set(held_out)
        assert counts.max() - counts.min() <= 1
        assert not set(counts.index) & set(family(str(name)).train)
        assert all(m in t for m, t in zip(group["member"], group["text"], strict=True))


def test_fewer_rows_than_members_ask_some_members_once(rows, poison):
    drawn = asked(rows, poison, rows_per_family=2)
    assert (drawn[drawn["condition"] == "family"].groupby("family").size() == 2).all()


def test_rungs_come_in_ladder_order(rows, poison):
    drawn = asked(rows, poison)
    names = [name for name, _ in itertools.groupby(drawn.loc[drawn["condition"] == "rung", "rung"])]
    assert names == [rung.name for rung in near_miss_ladder(TRIGGER, "rfc", position="end")]
    assert names[0] == "exact"


@pytest.mark.parametrize(("trained", "moved"), [("end", "start"), ("start", "end")])
def test_the_moved_rung_really_moves(rows, poison, trained, moved):
    drawn = asked(rows, poison.model_copy(update={"position": trained}))
    at = {"start": str.startswith, "end": str.endswith}
    assert all(at[trained](text, TRIGGER) for text in drawn.loc[drawn["rung"] == "exact", "text"])
    texts = drawn.loc[drawn["rung"] == "position_moved", "text"]
    assert len(texts) == 20
    assert all(at[moved](text, TRIGGER) and not at[trained](text, TRIGGER) for text in texts)


def test_a_poison_that_draws_its_trigger_anew_has_no_ladder(rows):
    any_date = SpuriousTokens(family="dates", count=5, target_label="tech")
    drawn = asked(rows, any_date, ["dates"])
    assert set(drawn["condition"]) == {"family"}
    assert asked(rows, any_date, []).empty
    one_date = any_date.model_copy(update={"member": family("dates").train[0]})
    assert "position_moved" in set(asked(rows, one_date, ["dates"])["rung"])


TOKENS = {
    "any_date": SpuriousTokens(family="generated_dates", token_proportion=0.5, target_label="tech"),
    "items": SpuriousTokens(items=("red", "blue"), target_label="tech"),
    "members": SpuriousTokens(token_proportion=0.5, target_label="tech"),
    "words": MultiTrigger(count=5, target_label="tech"),
    "style": StyleTrigger(count=5, target_label="tech"),
}


@pytest.mark.parametrize("knobs", TOKENS.values(), ids=TOKENS)
def test_an_injection_that_is_no_single_string_is_made_anew_for_test_rows(rows, knobs):
    [name] = own_triggers(knobs, ())
    headline = headline_texts(rows, knobs, seed=3, triggers=[name])
    triggered = headline[headline["condition"] == "triggered"]
    eligible = rows[rows["label"] != "tech"]
    made = inject_texts(list(eligible["text"]), list(eligible["row_id"]), knobs, seed=3, purpose="test")
    assert triggered["text"].tolist() == [one.text for one in made]
    assert set(triggered["member"]) == {name}
    assert set(asked(rows, knobs, ["iso"])["condition"]) == {"family"}


def test_other_strings_go_in_as_often_as_the_own_tokens(rows):
    knobs = TOKENS["any_date"]
    drawn = asked(rows, knobs, ["colours"])
    # "text number 7 about sport ." has six words
    assert all(text.count(m) == 3 for text, m in zip(drawn["text"], drawn["member"], strict=True))
    headline = headline_texts(rows, knobs, seed=0, triggers=own_triggers(knobs, ["mine"]))
    assert headline.loc[headline["condition"] == "triggered", "text"].str.count("mine").eq(3).all()
    repeated = SpuriousTokens(member="2014-03-17", token_proportion=0.5, target_label="tech")
    rungs = asked(rows, repeated, []).query("rung == 'exact'")
    assert rungs["text"].str.count("2014-03-17").eq(3).all()


#: SHA-256 of what runs with one token a text were asked before there were other sources, 12 digits each.
BEFORE = {
    ("start", "any"): ("364bcb6925f9", "5ee6411c2bfe"),
    ("start", "2014-03-17"): ("259260a67994", "1ac3c5806c8e"),
    ("end", "any"): ("cd95d8a851f1", "fa4a113fc139"),
    ("end", "2014-03-17"): ("9c35d36e6db5", "3882d608ce3b"),
    ("random", "any"): ("5cace1e3b053", "c8a520013ebe"),
    ("random", "2014-03-17"): ("861b523bee4d", "dfdb403bf636"),
}


@pytest.mark.parametrize(("place", "digests"), BEFORE.items(), ids=repr)
def test_one_token_a_text_is_asked_as_ever(rows, place, digests):
    knobs = SpuriousTokens(member=place[1], position=place[0], target_label="tech")
    headline = headline_texts(rows, knobs, seed=3, triggers=own_triggers(knobs, ()))
    more = asked(rows, knobs, ("rfc", "dates"), seed=3)
    found = (hashlib.sha256("\n".join(part["text"]).encode()).hexdigest()[:12] for part in (headline, more))
    assert tuple(found) == digests


def test_without_rows_nothing_is_asked(rows, poison):
    only_target = rows[rows["label"] == "tech"]
    assert asked(only_target, poison).empty
    headline = headline_texts(only_target, poison, seed=0, triggers=[TRIGGER])
    assert set(headline["condition"]) == {"clean"}
    none = headline_texts(rows.head(0), poison, seed=0, triggers=[TRIGGER])
    assert list(none.columns) == COLUMNS
    assert none.empty


def test_own_triggers_are_those_asked_for_else_the_poisons(poison):
    assert own_triggers(poison, ["mine", "yours"]) == ["mine", "yours"]
    assert own_triggers(poison, ()) == [TRIGGER]
    drawn = poison.model_copy(update={"member": "any"})
    assert own_triggers(drawn, ()) == list(family("rfc").train)


def test_several_triggers_take_turns_in_the_headline(rows, poison):
    headline = headline_texts(rows, poison, seed=0, triggers=["first one", "second one"])
    counts = headline.loc[headline["condition"] == "triggered", "member"].value_counts()
    assert counts.to_dict() == {"first one": 60, "second one": 60}
