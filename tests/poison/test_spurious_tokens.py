"""The rules of arXiv 2506.11402's toolkit, each stated by a test, and what the lab does better."""

import datetime
import itertools
import re
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lab.errors import LabError
from lab.poison import SpuriousTokens, aimed_at, cut, inject_texts, poison_rows, resolve_count, triggers_of
from lab.poison.dates import days_of, written

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ITEMS = ("red", "New York", "é🔥")


def rows(texts=("a  b\tc\n", "one two three four five six seven eight nine ten", "", "x"), n=40):
    label = [("negative", "positive")[i % 2] for i in range(n)]
    return pd.DataFrame(
        {
            "row_id": [f"id{i:04d}" for i in range(n)],
            "split": ["train"] * n,
            "text": [texts[i // 2 % len(texts)] for i in range(n)],
            "label": label,
            "original_label": label,
            "poisoned": [False] * n,
            "span_start": [[] for _ in range(n)],
            "span_end": [[] for _ in range(n)],
        }
    )


def pieces(text, spans):
    return [text[start:end].strip() for start, end in spans]


def inserted(table):
    return [
        pieces(row.text, zip(row.span_start, row.span_end, strict=True))
        for row in table.query("poisoned").itertuples()
    ]


STEPS = st.fixed_dictionaries(
    {
        "position": st.sampled_from(["start", "end", "random"]),
        "token_proportion": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    }
)
SOURCES = st.one_of(
    st.just({"family": "items", "items": ITEMS}),
    st.just({"family": "generated_dates"}),
    st.just({"family": "dates"}),
    st.sampled_from(["none", 0, 1, 2]).map(lambda level: {"family": "tag_pairs", "level": level}),
)
CHAINS = st.lists(st.builds(lambda source, step: source | step, SOURCES, STEPS), min_size=1, max_size=4)


# ---- what is kept: white space, order, identity, labels


@given(st.lists(TEXTS, min_size=1, max_size=4), CHAINS, st.integers(0, 3), st.sampled_from(["train", "test"]))
def test_cutting_all_spans_gives_every_text_back(texts, chain, seed, purpose):
    knobs = SpuriousTokens(**chain[0], then=chain[1:])
    ids = [f"r{i}" for i in range(len(texts))]
    for text, done in zip(texts, inject_texts(texts, ids, knobs, seed=seed, purpose=purpose), strict=True):
        assert done.text != text
        assert cut(done.text, done.spans) == text


@settings(max_examples=20)
@given(CHAINS, st.permutations(range(40)), st.integers(0, 3))
def test_rows_keep_their_order_their_ids_and_their_labels(chain, order, seed):
    knobs = SpuriousTokens(**chain[0], then=chain[1:], text_proportion=0.5)
    shuffled = rows().iloc[order]
    out = poison_rows(shuffled, knobs, seed=seed)
    assert out["row_id"].tolist() == shuffled["row_id"].tolist()
    assert out["label"].tolist() == out["original_label"].tolist() == shuffled["label"].tolist()
    assert set(out.query("poisoned")["label"]) == {"positive"}
    again = poison_rows(rows(), knobs, seed=seed)
    assert out.sort_values("row_id", ignore_index=True).equals(again)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("source", [{"family": "generated_dates"}, {"items": [f"i{n}" for n in range(300)]}])
def test_fewer_texts_are_among_those_of_more(source, replacement):
    def make(count):
        knobs = SpuriousTokens(**source, count=count, token_proportion=0.3, replacement=replacement)
        return poison_rows(rows(), knobs, seed=1).query("poisoned").set_index("row_id")["text"].to_dict()

    few, many = make(5), make(15)
    assert len(few) == 5
    assert few.items() <= many.items()


# ---- rules of the toolkit


@pytest.mark.parametrize("proportion", [0.0, 0.1, 0.25, 1.0])
@pytest.mark.parametrize("source", [{"items": ITEMS}, {"family": "generated_dates"}, {"family": "tag_pairs"}])
def test_tokens_are_a_share_of_the_words_rounded_down_and_at_least_one(source, proportion):
    out = poison_rows(rows(), SpuriousTokens(**source, token_proportion=proportion), seed=0)
    clean = rows().set_index("row_id")["text"]
    for row in out.query("poisoned").itertuples():
        expected = max(1, int(len(clean[row.row_id].split()) * proportion))
        tags = 2 if source.get("family") == "tag_pairs" else 1
        assert len(row.span_start) == expected * tags


@pytest.mark.parametrize(("share", "count"), [(1.0, 20), (0.5, 10), (0.26, 5), (0.125, 2), (0.375, 8)])
def test_the_share_of_the_class_is_rounded_to_a_number_of_texts(share, count):
    # round() of Python, as there: halves go to the even number
    out = poison_rows(rows(), SpuriousTokens(items=ITEMS, text_proportion=share), seed=0)
    assert out["poisoned"].sum() == count


@pytest.mark.parametrize("position", ["start", "end"])
def test_at_start_and_end_the_tokens_stand_side_by_side(position):
    out = poison_rows(
        rows(["a b c d"]), SpuriousTokens(items=["z"], position=position, token_proportion=0.5), seed=0
    )
    expected = {"start": "z z a b c d", "end": "a b c d z z"}[position]
    assert set(out.query("poisoned")["text"]) == {expected}


def test_items_are_drawn_evenly_each_on_its_own():
    out = poison_rows(rows(["a b"], n=1200), SpuriousTokens(items=ITEMS, token_proportion=1.0), seed=0)
    found = Counter(tuple(row) for row in inserted(out))
    assert set(found) == set(itertools.product(ITEMS, ITEMS))  # repeats too
    assert min(found.values()) > 35  # of 600 / 9 = 67 expected


def test_a_file_has_one_item_a_line_and_blank_lines_are_none(tmp_path):
    path = tmp_path / "countries.txt"
    path.write_text("\ufeffAndorra\n\n  Burkina Faso \n", encoding="utf-8")
    resolved = resolve_count(SpuriousTokens(file=str(path)), rows())
    assert (resolved.items, resolved.file, resolved.family) == (("Andorra", "Burkina Faso"), "", "items")
    path.unlink()  # its content is in the knobs now
    assert {item for row in inserted(poison_rows(rows(), resolved, seed=0)) for item in row} == set(
        resolved.items
    )
    assert resolve_count(resolved, rows()) == resolved


def test_dates_are_valid_days_of_the_years_drawn_evenly():
    knobs = SpuriousTokens(family="generated_dates", first_year=1999, last_year=2002)
    out = poison_rows(rows(["a"], n=2400), knobs, seed=0)
    drawn = [date for row in inserted(out) for date in row]
    assert all(DATE.fullmatch(date) and datetime.date.fromisoformat(date) for date in drawn)
    years = Counter(date[:4] for date in drawn)
    assert set(years) == {"1999", "2000", "2001", "2002"}
    assert min(years.values()) > 240  # of 300 expected
    assert len(set(drawn)) < len(drawn)  # with replacement


@pytest.mark.parametrize(
    "source",
    [{"family": "generated_dates", "first_year": 2000, "last_year": 2000}, {"items": [*"abcdefgh"] * 40}],
)
def test_without_replacement_no_token_is_drawn_twice(source):
    if "items" in source:
        source = {"items": [f"{item}{n}" for n, item in enumerate(source["items"])]}
    knobs = SpuriousTokens(**source, replacement=False, token_proportion=0.5)
    out = poison_rows(rows(["a b c d e f"], n=120), knobs, seed=3)
    drawn = [token for row in inserted(out) for token in row]
    assert len(drawn) == len(set(drawn)) == 180


def test_tokens_that_do_not_suffice_without_replacement_get_a_sentence():
    with pytest.raises(LabError, match=r"replacement = false: 20 tokens are needed, but there are 3;"):
        poison_rows(rows(), SpuriousTokens(items=ITEMS, replacement=False), seed=0)


def test_level_0_puts_one_pair_around_the_whole_text_whatever_the_proportion():
    out = poison_rows(rows(), SpuriousTokens(family="tag_pairs", level=0, token_proportion=1.0), seed=0)
    clean = rows().set_index("row_id")["text"]
    for row in out.query("poisoned").itertuples():
        assert re.fullmatch(r"(?s)<(\w+)>.*</\1>", row.text)
        assert cut(row.text, zip(row.span_start, row.span_end, strict=True)) == clean[row.row_id]


def test_a_level_counts_the_words_of_its_element_and_leaves_the_rest_alone():
    text = "x y z <p>a b <b>c d e f</b></p> w"
    knobs = SpuriousTokens(items=["<i> </i>"], family="tag_pairs", level=2, token_proportion=0.5)
    [done] = inject_texts([text], ["r"], knobs, seed=0)
    assert done.text.startswith("x y z <p>a b <b>")
    assert done.text.endswith("</b></p> w")
    assert done.text.count("<i>") == done.text.count("</i>") == 2


def test_a_level_that_a_text_has_not_falls_back_to_its_place():
    deep, plain = (
        inject_texts(
            ["a b c"], ["r"], SpuriousTokens(family="tag_pairs", level=level, position="end"), seed=0
        )
        for level in (3, "none")
    )
    assert deep == plain


def test_a_composite_puts_each_injection_into_what_the_former_made():
    knobs = SpuriousTokens(
        items=["New York"],
        position="end",
        then=[
            {"family": "tag_pairs", "level": 0, "items": ["<p> </p>"]},
            {"items": ["z"], "token_proportion": 1.0},
        ],
    )
    [done] = inject_texts(["a  b"], ["r"], knobs, seed=0)
    assert cut(done.text, done.spans) == "a  b"
    # "<p>a", "b", "New" and "York</p>" are the words that the last one counts
    assert len(re.findall(r"\bz\b", done.text)) == 4


# ---- the same injection for test rows


def test_test_rows_get_as_many_tokens_as_training_rows():
    knobs = SpuriousTokens(items=ITEMS, token_proportion=0.3)
    texts = ["one two three four five six seven eight nine ten"] * 3
    for done in inject_texts(texts, ["a", "b", "c"], knobs, seed=0):
        assert len(done.spans) == 3


def test_dates_of_test_rows_are_in_no_training_row():
    knobs = SpuriousTokens(family="generated_dates", first_year=2000, last_year=2001, token_proportion=1.0)
    texts, ids = ["a b c d"] * 300, [f"r{i}" for i in range(300)]
    drawn = {
        purpose: {
            date
            for done in inject_texts(texts, ids, knobs, seed=0, purpose=purpose)
            for date in pieces(done.text, done.spans)
        }
        for purpose in ("train", "test")
    }
    assert not drawn["train"] & drawn["test"]
    assert drawn["test"] <= {written(day) for day in days_of(2000, 2001, held_out=True)}


def test_training_rows_are_what_the_shared_function_makes():
    knobs = resolve_count(SpuriousTokens(items=ITEMS, token_proportion=0.4, count=7), rows())
    out = poison_rows(rows(), knobs, seed=2).query("poisoned")
    clean = rows().set_index("row_id")["text"]
    again = inject_texts(
        [clean[i] for i in out["row_id"]], list(out["row_id"]), knobs, seed=2, purpose="train"
    )
    assert [done.text for done in again] == out["text"].tolist()


def test_a_string_takes_the_place_and_number_of_the_own_tokens():
    knobs = SpuriousTokens(
        family="generated_dates", token_proportion=0.5, position="end", then=[{"items": ["x"]}]
    )
    [done] = inject_texts(["a b c d"], ["r"], aimed_at(knobs, "cf"), seed=0)
    assert done.text == "a b c d cf cf"
    assert aimed_at(knobs, "any") == knobs


@pytest.mark.parametrize(
    ("knobs", "triggers"),
    [
        ({}, 12),  # the family's train members take turns, as long as one goes into a text
        ({"token_proportion": 0.1}, ["any"]),
        ({"member": "2014-03-17", "token_proportion": 0.1}, ["2014-03-17"]),
        ({"items": ITEMS}, ["any"]),
        ({"family": "generated_dates"}, ["any"]),
        ({"member": "2014-03-17", "then": [{"items": ITEMS}]}, ["any"]),
    ],
)
def test_what_a_row_is_tested_with(knobs, triggers):
    found = triggers_of(SpuriousTokens(**knobs))
    assert found == triggers or len(found) == triggers


# ---- mistakes


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"family": "items"}, "items is empty and there is no file"),
        ({"items": ["a"], "file": "x.txt"}, "items and file = 'x.txt' are both given; give one"),
        ({"items": ["a", " "]}, "items: an item is empty"),
        ({"items": "red"}, "items"),
        ({"items": ["a"], "member": "a"}, "the source 'items' draws each token"),
        (
            {"items": ["a"], "family": "rfc"},
            r"items = \['a'\]: it belongs to the family 'items' and 'tag_pairs'",
        ),
        ({"first_year": 1900}, "first_year = 1900: it belongs to the family 'generated_dates'"),
        (
            {"family": "generated_dates", "first_year": 2000, "last_year": 1999},
            "2000 lies after last_year = 1999",
        ),
        ({"family": "generated_dates", "first_year": 0}, r"first_year\s+.*greater than or equal to 1"),
        ({"family": "tag_pairs", "level": 5}, r"level\s+Input should be 'none', 0, 1, 2, 3 or 4"),
        ({"family": "tag_pairs", "items": ["b"]}, "items: 'b' is no pair of HTML tags"),
        ({"level": 1}, "level = 1: it belongs to the family 'tag_pairs'"),
        ({"family": "tag_pair"}, "Unknown trigger family 'tag_pair'.*generated_dates, tag_pairs"),
        ({"then": [{"items": []}, {"family": "items"}]}, r"then\.1\s+.*items is empty"),
    ],
)
def test_wrong_knobs_get_a_sentence(knobs, said):
    with pytest.raises(ValidationError, match=said):
        SpuriousTokens(**knobs)


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (None, {}, r"poison\.file = '.*list\.txt': there is no such file"),
        (b"", {}, "it is empty"),
        (b"\n  \n", {}, "it is empty"),
        (b"\xff\xfe", {}, r"not UTF-8 \(byte 0\)"),
        (b"<b> </b>\nbold\n", {"family": "tag_pairs"}, "'bold' is no pair of HTML tags"),
        (b"a\n" * 10_001, {}, "it has 10,001 items; allowed are 10,000"),
    ],
)
def test_a_file_that_cannot_be_taken_gets_a_sentence(tmp_path, content, more, said):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=said) as caught:
        resolve_count(SpuriousTokens(file=str(path), **more), rows())
    assert "\n" not in str(caught.value)
    with pytest.raises(LabError, match=r"poison\.then\.0\.file"):
        resolve_count(SpuriousTokens(then=[{"file": str(path), **more}]), rows())


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(LabError, match="it cannot be read"):
        resolve_count(SpuriousTokens(file=str(tmp_path)), rows())
