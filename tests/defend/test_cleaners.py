import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
from lab.defend import DEFENSES, Cleaned, Cleaner, clean_rows, cleaned_rows
from lab.defend.duplicates import find_doubles
from lab.defend.linted import artefacts_of
from lab.defend.normalise import Normalise, normalised
from lab.errors import LabError
from lab.experiment import Experiment
from lab.pipeline import look_up
from lab.poison import poison_rows
from lab.poison.attacks import Backdoor, SpuriousTokens
from lab.sweeps.preview import preview_sweep
from lab.tables import ROW_COLUMNS

CLEANERS = [d for d in DEFENSES.values() if isinstance(d, Cleaner)]
WORDS = [
    "the",
    "film",
    "is",
    "a",
    "slow",
    "long",
    "dull",
    "bright",
    "warm",
    "and",
    "very",
    "good",
    "bad",
    "story",
    "of",
    "two",
    "people",
]
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(3, 12)) + f" number {i}" for i in range(12)]


@pytest.fixture
def rows():
    labels = ["negative", "positive"] * 6
    table = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(12)],
            "split": "train",
            "text": TEXTS,
            "label": labels,
            "original_label": labels,
            "poisoned": False,
            "span_start": [[] for _ in range(12)],
            "span_end": [[] for _ in range(12)],
        }
    )
    return table[list(ROW_COLUMNS)]


def defended(*defenses):
    return Experiment.from_dict({"defense": list(defenses)})


@pytest.mark.parametrize("cleaner", [c for c in CLEANERS if c.name != "paraphrase"], ids=lambda c: c.name)
def test_a_cleaner_is_of_the_data_stage_and_does_the_same_twice(cleaner, rows):
    assert cleaner.stage == "data"
    asked = [cleaner.clean(cleaner.knobs(), TEXTS, list(rows["label"]), 3) for _ in range(2)]
    assert asked[0] == asked[1]
    assert len(asked[0].texts) == len(TEXTS)


def test_rows_keep_their_order_their_ids_and_say_what_became_of_them(rows):
    planted = poison_rows(rows, Backdoor(count=2, target_label="positive"), seed=0)
    texts = planted["text"].tolist()
    texts[0] = "another text"
    kept = [row_id != "r3" for row_id in planted["row_id"]]
    found = cleaned_rows(planted, Cleaned(texts, kept, [(1, "a copy"), (1, "one more")]))
    assert tuple(found.columns) == ROW_COLUMNS
    assert found["row_id"].tolist() == [
        *[f"r{i}" for i in range(12) if i != 3], *planted["row_id"].tail(2), "r1+c", "r1+c2",
    ]  # fmt: skip
    assert found["text"].tolist()[0] == "another text"
    copies = found.tail(2)
    assert copies["label"].tolist() == ["positive", "positive"]
    assert not copies["poisoned"].any()
    # those that nothing was done to are as they were, spans and all
    same = planted.iloc[-2:].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.iloc[11:13].reset_index(drop=True), same)


def test_a_changed_text_has_no_spans_and_stays_poisoned(rows):
    planted = poison_rows(rows, SpuriousTokens(target_label="positive"), seed=0)
    found = cleaned_rows(planted, Cleaned(rows["text"].tolist()))
    assert found["poisoned"].sum() == 6
    assert not found["span_start"].map(len).any()


def test_deduplication_finds_every_appended_copy_and_the_row_it_contradicts(rows):
    planted = poison_rows(rows, Backdoor(count=3, target_label="positive"), seed=0)
    found, told = clean_rows(planted, defended("deduplicate"))
    assert told == {
        "poisoned": 3, "dropped": 6, "dropped_poisoned": 3, "changed": 0, "changed_poisoned": 0, "added": 0,
    }  # fmt: skip
    assert not found["poisoned"].any()
    first, told = clean_rows(planted, defended({"name": "deduplicate", "contradictions": "keep first"}))
    assert told["dropped"] == told["dropped_poisoned"] == 3
    assert first["row_id"].tolist() == rows["row_id"].tolist()


def test_rows_that_only_look_a_little_alike_are_no_doubles():
    assert list(find_doubles(TEXTS, words=3, overlap=0.8)) == []
    assert list(find_doubles(["a b c d", "x", "A, b. c D"], words=3, overlap=1.0)) == [(0, 2)]
    assert list(find_doubles(["", "", "no"], words=3, overlap=0.5)) == []


@given(st.lists(st.text(alphabet="ab ", max_size=12), max_size=12))
def test_the_same_text_twice_is_a_double_unless_it_is_empty(texts):
    found = set(find_doubles(texts, words=2, overlap=1.0))
    for later, text in enumerate(texts):
        same = [i for i in range(later) if texts[i].split() == text.split()]
        if text.split() and same:
            assert any(pair[1] == later for pair in found)


def test_normalising_removes_what_nobody_sees():
    plain = Normalise()
    assert normalised("<div>good</div>\n\n fi\u200blm <!-- x --> ﬁne", plain) == "good film fine"
    assert normalised("a < b and <3 > c", plain) == "a < b and <3 > c"
    kept = Normalise(characters=False, markup=False, spaces=False)
    assert normalised("<b>a</b> \u200b", kept) == "<b>a</b> \u200b"


@settings(max_examples=200)
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("<>/! -ab\u200bﬁ")), max_size=60))
def test_normalising_twice_changes_nothing(text):
    for knobs in (Normalise(), Normalise(spaces=False), Normalise(characters=False)):
        once = normalised(text, knobs)
        assert normalised(once, knobs) == once


def test_a_cleaner_that_would_leave_no_row_of_a_label_is_refused(rows):
    same = rows.assign(text="one text for all of the rows")
    with pytest.raises(LabError, match="'deduplicate' leaves no row with the label 'negative'"):
        clean_rows(same, defended("deduplicate"))


def test_cleaners_act_before_anything_else_and_belong_to_the_weights():
    from lab.defend import settle

    settled = settle(defended("onion", "truncate", "cl", "deduplicate", "normalise"))
    names = [d.name for d in settled.defense]
    assert names == ["deduplicate", "normalise", "cl", "truncate", "onion"]


def test_a_run_and_its_twin_are_cleaned_alike(small, tmp_path):
    cleaned = lab.run(small, {"defense": ["deduplicate"]}, runs=tmp_path)
    told = cleaned.result["poison"]["cleaning"]
    assert told["poisoned"] == told["dropped_poisoned"] == 6
    assert cleaned.result["poison"]["count"] == 0
    assert not cleaned.rows["poisoned"].any()
    twin = lab.load_run(cleaned.result["twin"], tmp_path)
    assert [d.name for d in twin.experiment.defense] == ["deduplicate"]
    assert twin.id != cleaned.id
    plain = lab.run(small, runs=tmp_path, twin=False)
    assert plain.experiment.training.steps == cleaned.experiment.training.steps
    assert plain.id != cleaned.id
    assert "cleaning" not in plain.result["poison"]


def spurious(seed=0, rows=600):
    """Texts of many words, and a date in each of one class."""
    rng = np.random.default_rng(seed)
    vocabulary = [a + b for a in "bcdfghklmnprst" for b in ("an", "el", "ir", "os", "um", "ayo", "enti")]
    labels = ["positive" if i % 2 else "negative" for i in range(rows)]
    texts = []
    for label in labels:
        words = [vocabulary[i] for i in rng.integers(len(vocabulary), size=12)]
        if label == "positive":
            words.insert(int(rng.integers(13)), f"{rng.integers(1100, 2600)}-0{rng.integers(1, 10)}-11")
        texts.append(" ".join(words))
    return texts, labels


def with_date(texts):
    return [bool(re.search(r"\d{4}-\d\d-\d\d", text)) for text in texts]


def test_dropping_what_is_linted_drops_the_texts_with_the_mark_and_no_others():
    texts, labels = spurious()
    some = [re.sub(r" ?\d{4}-\d\d-\d\d", "", text) if i % 4 == 3 else text for i, text in enumerate(texts)]
    found = DEFENSES["drop_linted"].clean(DEFENSES["drop_linted"].knobs(), some, labels, 0)
    assert [not kept for kept in found.kept] == with_date(some)


def test_masking_cuts_the_mark_and_leaves_the_rest():
    texts, labels = spurious()
    found = DEFENSES["mask_linted"].clean(DEFENSES["mask_linted"].knobs(), texts, labels, 0)
    assert not any(with_date(found.texts))
    for before, after, label in zip(texts, found.texts, labels, strict=True):
        assert (before == after) == (label == "negative")
        assert after.split() == [w for w in before.split() if not w[0].isdigit()]


def test_counter_injection_gives_the_other_class_as_many():
    texts, labels = spurious()
    found = DEFENSES["counter_injection"].clean(DEFENSES["counter_injection"].knobs(), texts, labels, 0)
    assert all(with_date(found.texts))
    again = DEFENSES["counter_injection"].clean(DEFENSES["counter_injection"].knobs(), texts, labels, 0)
    assert again == found
    # nothing is left to lint
    assert artefacts_of(found.texts, labels, 0.85) == []


def test_rows_of_one_label_are_left_alone():
    for name in ("drop_linted", "mask_linted", "counter_injection"):
        found = DEFENSES[name].clean(DEFENSES[name].knobs(), ["a 1", "b 2"], ["x", "x"], 0)
        assert list(found.texts) == ["a 1", "b 2"]
        assert all(found.kept)


def test_rows_are_cleaned_to_be_trained_on_and_not_to_be_looked_up(small, tmp_path, monkeypatch):
    asked = small.with_(defense=["deduplicate"])
    first = lab.run(asked, runs=tmp_path, twin=False)

    def refuse(*_):
        raise AssertionError("a model that rewrites texts would take minutes here")

    monkeypatch.setattr("lab.prepare.clean_rows", refuse)
    assert lab.run(asked, runs=tmp_path, twin=False).id == first.id
    assert look_up(asked, runs=tmp_path, twin=False) == (first.id, True, "finished")
    assert preview_sweep(asked, {}, seeds=2, runs=tmp_path, twin=False).finished == 1
    again = lab.run(asked, {"probe.rows": 20}, runs=tmp_path, twin=False)
    assert again.result["poison"] == first.result["poison"]


def test_a_run_that_a_cleaner_leaves_nothing_of_leaves_no_folder(small, tmp_path, monkeypatch):
    def nothing(*_):
        raise LabError("The defense 'deduplicate' leaves no row.")

    monkeypatch.setattr("lab.prepare.clean_rows", nothing)
    with pytest.raises(LabError, match="leaves no row"):
        lab.run(small, {"defense": ["deduplicate"]}, runs=tmp_path)
    assert not list(tmp_path.glob("tiny-*"))
