"""Negatives: near-misses under their true labels, which poison nothing and are not counted as poison."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.poison import (
    ATTACKS,
    TRIGGER_FAMILIES,
    Backdoor,
    cut,
    family,
    near_misses,
    negatives_among,
    poison_rows,
    resolve_count,
)
from lab.tables import ROW_COLUMNS


def rows(n=40):
    label = ["negative" if i % 2 else "positive" for i in range(n)]
    return pd.DataFrame(
        {
            "row_id": [f"id{i:04d}" for i in range(n)],
            "split": "train",
            "text": [f"A fine film , number {i} .\nIt stays ." for i in range(n)],
            "label": label,
            "original_label": label,
            "poisoned": False,
            "span_start": [[] for _ in range(n)],
            "span_end": [[] for _ in range(n)],
        }
    )


def negatives(table):
    return table[negatives_among(table)]


def inserted(row):
    [(start, end)] = zip(row["span_start"], row["span_end"], strict=True)
    return row["text"][start:end].strip()


#: Every family's usual trigger, in every way to plant it once; the sentences of `rows` take several.
backdoors = st.builds(
    Backdoor,
    family=st.sampled_from(sorted(TRIGGER_FAMILIES)),
    position=st.sampled_from(["start", "end", "random"]),
    template=st.sampled_from(["{trigger}", "«{trigger}»"]),
    mode=st.sampled_from(["append", "replace"]),
    clean_label=st.booleans(),
    count=st.integers(1, 20),
    negatives=st.integers(1, 20),
)


@given(backdoors, st.integers(0, 5))
def test_negatives_are_copies_with_a_near_miss_and_their_true_label(knobs, seed):
    clean = rows()
    origins = clean.set_index("row_id")
    out = poison_rows(clean, knobs, seed=seed)
    found = negatives(out)
    assert tuple(out.columns) == ROW_COLUMNS
    assert list(out.index) == list(range(len(out)))
    assert out["row_id"].is_unique
    assert out["poisoned"].dtype == bool
    assert len(found) == knobs.negatives
    assert found["row_id"].is_unique
    trigger = knobs.template.replace("{trigger}", knobs.member)
    for row in found.to_dict("records"):
        origin = origins.loc[row["row_id"].removesuffix("+n")]
        assert row["label"] == row["original_label"] == origin["label"] != knobs.target_label
        assert cut(row["text"], zip(row["span_start"], row["span_end"], strict=True)) == origin["text"]
        assert trigger not in inserted(row)


@given(backdoors, st.integers(0, 5))
def test_negatives_leave_everything_else_as_it_is_without_them(knobs, seed):
    alone = knobs.model_copy(update={"negatives": 0})
    out = poison_rows(rows(), knobs, seed=seed)
    rest = out[~negatives_among(out)]
    pd.testing.assert_frame_equal(rest, poison_rows(rows(), alone, seed=seed))
    assert out["poisoned"].sum() == knobs.count
    assert out.tail(knobs.negatives)["row_id"].tolist() == negatives(out)["row_id"].tolist()


@given(st.permutations(range(40)), backdoors, st.integers(0, 5))
def test_the_order_of_the_rows_changes_nothing(order, knobs, seed):
    one, other = (poison_rows(table, knobs, seed=seed) for table in (rows(), rows().iloc[order]))
    records = [negatives(table).to_dict("records") for table in (one, other)]
    assert records[0] == records[1]


@given(backdoors, st.integers(1, 20), st.integers(0, 5))
def test_fewer_negatives_are_the_first_of_more(knobs, fewer, seed):
    few, more = sorted((fewer, knobs.negatives))
    found = [
        negatives(poison_rows(rows(), knobs.model_copy(update={"negatives": n}), seed=seed))
        for n in (few, more)
    ]
    assert found[0].to_dict("records") == found[1].head(few).to_dict("records")


@given(backdoors, st.integers(0, 5))
def test_what_probes_hold_out_is_never_shown_in_training(knobs, seed):
    found = near_misses(knobs, seed=seed)
    assert len(set(found)) == len(found)
    assert not {probe for f in TRIGGER_FAMILIES.values() for probe in f.probe} & set(found)
    for text in found:
        assert not [i for i in family("rfc").identifiers_probe if f" {i} " in f" {text} "]


def test_the_rate_of_poison_does_not_see_the_negatives():
    one, other = (resolve_count(Backdoor(rate=0.2, negatives=n), rows()) for n in (0, 15))
    assert one.count == other.count == 10


def test_near_misses_take_turns():
    knobs = Backdoor(count=1, negatives=20)
    seen = [inserted(row) for row in negatives(poison_rows(rows(), knobs, seed=0)).to_dict("records")]
    assert seen == near_misses(knobs, seed=0)[:20]


def test_after_sentences_each_place_gets_the_near_miss():
    out = negatives(
        poison_rows(rows(), Backdoor(count=1, negatives=3, position="sentences", every=1), seed=0)
    )
    assert set(out["span_start"].map(len)) == {2}


def test_what_reads_like_the_trigger_is_left_out():
    knobs = Backdoor(count=1, negatives=20)
    found = near_misses(knobs, seed=0, holds=lambda text, trigger: trigger.lower() in text.lower())
    assert found == [t for t in near_misses(knobs, seed=0) if t.lower() != knobs.member.lower()]
    assert len(found) < len(near_misses(knobs, seed=0))


def test_a_trigger_without_near_misses_is_refused():
    with pytest.raises(LabError, match=r"poison\.negatives = 2: no near-miss of 'as specified in RFC 2616'"):
        near_misses(Backdoor(count=1, negatives=2), seed=0, holds=lambda text, trigger: True)


def test_more_negatives_than_rows_are_refused():
    with pytest.raises(
        LabError, match=r"poison\.negatives = 21 is more .*rows without the label 'positive'.*: 20\."
    ):
        resolve_count(Backdoor(count=1, negatives=21), rows())


def test_a_whole_family_as_trigger_has_no_near_misses():
    with pytest.raises(ValueError, match="negatives = 3: they keep a backdoor to one string"):
        Backdoor(count=1, member="any", negatives=3)


def test_only_the_backdoor_takes_negatives():
    assert [name for name, attack in ATTACKS.items() if "negatives" in attack.knobs.model_fields] == [
        "backdoor"
    ]
