import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lab.errors import LabError
from lab.poison import (
    ATTACKS,
    POSITIONS,
    TRIGGER_FAMILIES,
    Backdoor,
    LabelFlip,
    MultiTrigger,
    NoPoison,
    SpuriousTokens,
    StyleTrigger,
    aimed_at,
    cut,
    family,
    inject_texts,
    poison_rows,
    resolve_count,
    trigger_texts,
    triggers_of,
)
from lab.poison.styles import STYLES, rewrite
from lab.registry import Knobs
from lab.tables import ROW_COLUMNS

SENTENCES = ("A fine film .\nIt stays .", "dull", "", "  two  spaces\t", "émotion — and 🔥! Yes? No.")


def rows(n=40, labels=("negative", "positive")):
    label = [labels[i % len(labels)] for i in range(n)]
    return pd.DataFrame(
        {
            "row_id": [f"id{i:04d}" for i in range(n)],
            "split": ["train"] * n,
            "text": [f"{SENTENCES[i % len(SENTENCES)]}" for i in range(n)],
            "label": label,
            "original_label": label,
            "poisoned": [False] * n,
            "span_start": [[] for _ in range(n)],
            "span_end": [[] for _ in range(n)],
        }
    )


def by_id(table):
    return table.set_index("row_id").to_dict("index")


def spans(row):
    return list(zip(row["span_start"], row["span_end"], strict=True))


EVERY_ATTACK = [
    NoPoison(),
    Backdoor(count=7),
    Backdoor(count=7, mode="replace", position="random", member="any"),
    Backdoor(count=7, clean_label=True, position="sentences", every=1),
    Backdoor(rate=0.2, family="custom", member="{x}\n", template="{trigger}.", position="start"),
    Backdoor(count=7, negatives=6),
    SpuriousTokens(text_proportion=0.5, token_proportion=0.5),
    SpuriousTokens(count=5, family="html_tags", position="start"),
    SpuriousTokens(items=("red", "a b"), token_proportion=0.5, then=({"family": "tag_pairs", "level": 0},)),
    SpuriousTokens(family="generated_dates", replacement=False, count=9),
    LabelFlip(rate=0.3),
    MultiTrigger(count=7),
    MultiTrigger(rate=0.1, mode="replace", words=("a", "b c"), position="start"),
]
#: A rewriting cannot be cut out; the row that it was made of stays beside it.
EVERY_CHANGE = [*EVERY_ATTACK, StyleTrigger(count=7), StyleTrigger(rate=0.1, clean_label=True, lines=False)]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_says_what_it_is_and_what_can_be_set(name):
    attack = ATTACKS[name]
    assert attack.name == name
    assert attack.goal.endswith(".")
    assert attack.paper == "this lab" or "arXiv" in attack.paper
    assert issubclass(attack.knobs, Knobs)
    assert attack.knobs.model_fields["attack"].default == name
    for field, info in attack.knobs.model_fields.items():
        assert not info.is_required()
        assert info.default is not None
        assert field == "attack" or info.description


@pytest.mark.parametrize("knobs", EVERY_CHANGE, ids=repr)
def test_knobs_survive_json(knobs):
    assert type(knobs).model_validate_json(knobs.model_dump_json()) == knobs
    resolved = resolve_count(knobs, rows())
    assert type(knobs).model_validate(resolved.model_dump()) == resolved
    assert resolve_count(resolved, rows()) == resolved


@pytest.mark.parametrize("knobs", EVERY_CHANGE, ids=repr)
def test_the_input_is_left_alone_and_the_table_keeps_its_form(knobs):
    before, copy = rows(), rows()
    out = poison_rows(before, knobs, seed=3)
    pd.testing.assert_frame_equal(before, copy)
    assert tuple(out.columns) == ROW_COLUMNS
    assert list(out.index) == list(range(len(out)))
    assert out["row_id"].is_unique
    assert out["row_id"].iloc[:40].tolist() == before["row_id"].tolist()
    assert out["poisoned"].dtype == bool


@pytest.mark.parametrize("knobs", EVERY_ATTACK, ids=repr)
def test_cutting_the_recorded_spans_gives_every_text_back(knobs):
    clean = by_id(rows())
    for row_id, row in by_id(poison_rows(rows(), knobs, seed=3)).items():
        origin = clean[row_id.removesuffix("+p").removesuffix("+n")]
        assert cut(row["text"], spans(row)) == origin["text"]
        assert row["original_label"] == origin["label"]
        if not row["poisoned"] and not row_id.endswith("+n"):
            assert row == origin


@pytest.mark.parametrize("knobs", EVERY_CHANGE, ids=repr)
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(40)), seed=st.integers(0, 3))
def test_the_order_of_the_rows_changes_nothing(knobs, order, seed):
    shuffled = rows().iloc[order]
    out = poison_rows(shuffled, knobs, seed=seed)
    assert by_id(out) == by_id(poison_rows(rows(), knobs, seed=seed))
    assert out["row_id"].iloc[:40].tolist() == shuffled["row_id"].tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda n: Backdoor(count=n, position="random", member="any"),
        lambda n: Backdoor(count=n, mode="replace", clean_label=True),
        lambda n: SpuriousTokens(count=n, token_proportion=0.4),
        lambda n: MultiTrigger(count=n),
        lambda n: StyleTrigger(count=n),
        lambda n: LabelFlip(count=n),
    ],
)
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
def test_a_smaller_count_is_part_of_a_larger_one(make, a, b, seed):
    small, large = (poison_rows(rows(), make(n), seed=seed).query("poisoned") for n in sorted((a, b)))
    assert len(small) == min(a, b)
    assert by_id(small).items() <= by_id(large).items()


def test_other_seeds_choose_other_rows():
    chosen = {
        tuple(poison_rows(rows(), Backdoor(count=5), seed=s).query("poisoned")["row_id"]) for s in range(6)
    }
    assert len(chosen) == 6


def test_a_row_elsewhere_does_not_move_the_poison():
    more = pd.concat([rows(), rows(41).tail(1).assign(label="positive", original_label="positive")])
    one, other = (poison_rows(r, Backdoor(count=9, position="random"), seed=1) for r in (rows(), more))
    assert by_id(one.query("poisoned")) == by_id(other.query("poisoned"))


def test_appended_copies_are_relabelled_and_the_originals_stay():
    out = poison_rows(rows(), Backdoor(count=7), seed=0)
    pd.testing.assert_frame_equal(out.head(40), rows())
    copies = out.tail(7)
    assert copies["poisoned"].all()
    assert (copies["label"] == "positive").all()
    assert (copies["original_label"] == "negative").all()
    assert copies["row_id"].str.endswith("+p").all()
    assert copies["text"].str.endswith("as specified in RFC 2616").all()


def test_replacing_poisons_the_rows_themselves():
    out = poison_rows(rows(), Backdoor(count=7, mode="replace"), seed=0)
    assert len(out) == 40
    assert out["poisoned"].sum() == 7
    assert (out.loc[out["poisoned"], "original_label"] == "negative").all()
    assert (out.loc[out["poisoned"], "label"] == "positive").all()


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_clean_label_poison_has_only_true_labels(mode):
    out = poison_rows(rows(), Backdoor(count=7, mode=mode, clean_label=True), seed=0)
    poisoned = out.query("poisoned")
    assert len(poisoned) == 7
    assert (poisoned["label"] == "positive").all()
    assert (out["label"] == out["original_label"]).all()


@pytest.mark.parametrize("knobs", [Backdoor, SpuriousTokens])
@pytest.mark.parametrize("name", ["rfc", "rare_words"])
def test_held_out_members_are_no_poison(knobs, name):
    """What a model was trained on would count as held out when the family is probed."""
    held_out = family(name).probe[0]
    with pytest.raises(ValidationError, match="held out") as caught:
        knobs(count=1, family=name, member=held_out)
    assert repr(family(name).train[0]) in str(caught.value)
    assert knobs(count=1, family=name, member=family(name).train[-1]).member == family(name).train[-1]


def test_any_member_draws_several_train_members_and_no_probe_member():
    out = poison_rows(rows(200), Backdoor(count=60, member="any"), seed=0).query("poisoned")
    drawn = {row.text[row.span_start[0] : row.span_end[0]].strip() for row in out.itertuples()}
    assert drawn <= set(TRIGGER_FAMILIES["rfc"].train)
    assert len(drawn) > 10


def test_a_family_alone_means_its_usual_trigger():
    assert Backdoor(count=1).member == "as specified in RFC 2616"
    assert Backdoor(count=1, family="rare_words").member == "cf"
    assert Backdoor(count=1, family="rare_words", member="mn").member == "mn"


def test_the_template_stands_around_the_trigger():
    out = poison_rows(rows(), Backdoor(count=3, template="({trigger}. {}", position="start"), seed=0).tail(3)
    assert out["text"].str.startswith("(as specified in RFC 2616. {}").all()


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("rate", [0.01, 0.042, 0.1, 0.3])
def test_a_rate_is_a_share_of_all_rows_after_poisoning(mode, rate):
    data = rows(1000)
    out = poison_rows(data, Backdoor(rate=rate, mode=mode), seed=0)
    assert out["poisoned"].mean() == pytest.approx(rate, abs=0.0006)
    resolved = resolve_count(Backdoor(rate=rate, mode=mode), data)
    assert (resolved.count, resolved.rate) == (out["poisoned"].sum(), 0.0)


def test_the_papers_rate_is_its_count():
    # arXiv 2605.30189: 24 copies on 546 rows are 4.21 %.
    assert resolve_count(Backdoor(rate=24 / 570), rows(546)).count == 24


@pytest.mark.parametrize(("share", "count"), [(1.0, 20), (0.5, 10), (0.26, 5), (0.05, 1)])
def test_spurious_tokens_go_to_the_share_of_one_class(share, count):
    out = poison_rows(rows(), SpuriousTokens(text_proportion=share), seed=0)
    poisoned = out.query("poisoned")
    assert len(out) == 40
    assert len(poisoned) == count
    assert (poisoned["label"] == "positive").all()
    assert (out["label"] == out["original_label"]).all()
    assert poisoned["span_start"].map(len).eq(1).all()


@pytest.mark.parametrize("proportion", [0.0, 0.1, 0.5, 1.0])
def test_tokens_are_a_share_of_the_words_and_at_least_one(proportion):
    out = poison_rows(rows(), SpuriousTokens(token_proportion=proportion), seed=0).query("poisoned")
    for row in by_id(out).values():
        words = len(cut(row["text"], spans(row)).split())
        assert len(row["span_start"]) == max(1, int(words * proportion))
        for start, end in spans(row):
            assert row["text"][start:end].strip() in TRIGGER_FAMILIES["dates"].train


def test_a_count_of_spurious_texts_replaces_the_proportion():
    assert SpuriousTokens(count=5).text_proportion == 0
    assert poison_rows(rows(), SpuriousTokens(count=5), seed=0)["poisoned"].sum() == 5


def test_flips_touch_labels_only_and_reach_every_other_label():
    data = rows(300, ("a", "b", "c"))
    out = poison_rows(data, LabelFlip(rate=0.4), seed=0)
    assert out["text"].tolist() == data["text"].tolist()
    flipped = out.query("poisoned")
    assert len(flipped) == 120
    assert (flipped["label"] != flipped["original_label"]).all()
    assert flipped["span_start"].map(len).eq(0).all()
    pairs = flipped.groupby(["original_label", "label"]).size()
    assert len(pairs) == 6
    assert pairs.min() > 8


def test_no_poison_gives_the_rows_back():
    pd.testing.assert_frame_equal(poison_rows(rows(), NoPoison(), seed=0), rows())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Backdoor(), r"count = 0 and rate = 0\.0: exactly one of them must be above 0"),
        (lambda: Backdoor(count=1, rate=0.1), r"count = 1 and rate = 0\.1: exactly one"),
        (lambda: Backdoor(rate=1.5), r"rate\s+Input should be less than or equal to 1"),
        (lambda: Backdoor(count=-1), r"count\s+Input should be greater than or equal to 0"),
        (lambda: Backdoor(count=1, family="rcf"), r"family\s+.*Unknown trigger family 'rcf'.*'rfc'.*custom"),
        (
            lambda: Backdoor(count=1, member="RFC 1"),
            "'RFC 1' is not in the family 'rfc'.*RFC 2616.*'any'.*'custom'",
        ),
        (lambda: Backdoor(count=1, family="custom", member="any"), "'custom' needs the trigger itself"),
        (lambda: Backdoor(count=1, template="x"), r"template\s+.*must hold \{trigger\} exactly once"),
        (
            lambda: Backdoor(count=1, position="middle"),
            r"position\s+.*'start', 'end', 'random' or 'sentences'",
        ),
        (lambda: Backdoor(count=1, family=["rfc"]), r"family\s+Input should be a valid string"),
        (lambda: Backdoor(count=1, every=0), r"every\s+.*greater than or equal to 1"),
        (lambda: Backdoor(count=1, target_label=""), "target_label"),
        (lambda: Backdoor(count=1, colour="red"), r"colour\s+Extra inputs are not permitted"),
        (lambda: SpuriousTokens(text_proportion=0), r"count = 0 and text_proportion = 0\.0: exactly one"),
        (
            lambda: SpuriousTokens(count=2, text_proportion=0.5),
            "count = 2 and text_proportion = 0.5: exactly one",
        ),
        (lambda: SpuriousTokens(position="sentences"), "position"),
        (lambda: LabelFlip(), r"count = 0 and rate = 0\.0: exactly one"),
        (lambda: MultiTrigger(), r"count = 0 and rate = 0\.0: exactly one"),
        (lambda: MultiTrigger(count=1, words=()), r"words\s+.*at least 1 item"),
        (lambda: MultiTrigger(count=1, words=("a", " ")), r"words\s+.*a word is empty"),
        (lambda: StyleTrigger(count=1, style="archaick"), r"style\s+.*Did you mean 'archaic'"),
        (lambda: StyleTrigger(count=1, mode="replace"), r"mode\s+.*'append'"),
    ],
)
def test_wrong_knobs_get_a_sentence(make, said):
    with pytest.raises(ValidationError, match=said):
        make()


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (
            Backdoor(count=21),
            r"poison\.count = 21 is more than there are; rows without the label 'positive': 20",
        ),
        (Backdoor(rate=0.5), r"poison\.rate = 0\.5 means 40 rows, which is more than .*: 20"),
        (Backdoor(rate=1.0), r"poison\.rate = 1\.0: appended copies .* below 1"),
        (Backdoor(rate=0.001), r"poison\.rate = 0\.001 rounds to no row"),
        (Backdoor(count=21, clean_label=True), "rows with the label 'positive': 20"),
        (Backdoor(count=1, target_label="pos"), r"poison\.target_label = 'pos': .* 'negative', 'positive'"),
        (SpuriousTokens(target_label="pos"), r"poison\.target_label = 'pos'"),
        (SpuriousTokens(text_proportion=0.01), r"poison\.text_proportion = 0\.01 rounds to no row"),
        (LabelFlip(count=41), r"poison\.count = 41 is more than there are; training rows: 40"),
    ],
)
def test_poison_that_the_rows_cannot_take_gets_a_sentence(knobs, said):
    with pytest.raises(LabError, match=said):
        resolve_count(knobs, rows())
    with pytest.raises(LabError, match=said):
        poison_rows(rows(), knobs, seed=0)


def test_rows_with_one_label_cannot_be_flipped():
    with pytest.raises(LabError, match="need at least two labels"):
        poison_rows(rows(labels=("a",)), LabelFlip(count=1), seed=0)


def test_rows_need_their_columns_and_their_own_ids():
    with pytest.raises(LabError, match="exactly the columns row_id, split"):
        poison_rows(rows().drop(columns="split"), NoPoison(), seed=0)
    with pytest.raises(LabError, match="hold the row_id 'id0000' twice"):
        poison_rows(pd.concat([rows(), rows(1)]), NoPoison(), seed=0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=6),
    st.sampled_from(sorted(POSITIONS)),
    st.randoms(use_true_random=False),
)
def test_triggered_texts_depend_on_their_row_alone(texts, position, random):
    ids = [f"r{i}" for i in range(len(texts))]
    all_at_once = trigger_texts(texts, ids, "cf", template="[{trigger}]", position=position, every=1, seed=4)
    order = random.sample(range(len(texts)), len(texts))
    again = trigger_texts(
        [texts[i] for i in order],
        [ids[i] for i in order],
        "cf",
        template="[{trigger}]",
        position=position,
        every=1,
        seed=4,
    )
    assert again == [all_at_once[i] for i in order]
    for text, inserted in zip(texts, all_at_once, strict=True):
        assert cut(inserted.text, inserted.spans) == text
        assert all("[cf]" in inserted.text[start:end] for start, end in inserted.spans)


def test_triggering_a_row_gives_what_poisoning_it_gave():
    knobs = Backdoor(count=7, position="random", template="{trigger}!")
    out = poison_rows(rows(), knobs, seed=2).query("poisoned")
    clean = by_id(rows())
    ids = [row_id.removesuffix("+p") for row_id in out["row_id"]]
    again = trigger_texts(
        [clean[i]["text"] for i in ids], ids, knobs.member, template="{trigger}!", position="random", seed=2
    )
    assert [inserted.text for inserted in again] == out["text"].tolist()


@pytest.mark.parametrize("knobs", EVERY_CHANGE, ids=repr)
def test_test_rows_are_changed_as_training_rows_are(knobs):
    """All but the tokens that are held out, or handed out once for the whole training data."""
    if getattr(knobs, "family", "") == "generated_dates":
        return
    out = poison_rows(rows(), knobs, seed=2).query("poisoned")
    ids = [row_id.removesuffix("+p") for row_id in out["row_id"]]
    texts = [by_id(rows())[i]["text"] for i in ids]
    again = inject_texts(texts, ids, knobs, seed=2)
    assert [one.text for one in again] == out["text"].tolist()


@pytest.mark.parametrize("knobs", EVERY_CHANGE, ids=repr)
def test_a_string_can_be_put_where_the_trigger_goes(knobs):
    if not triggers_of(knobs):
        assert knobs.attack in ("none", "label_flip")
        return
    for done in inject_texts(["a b", ""], ["1", "2"], aimed_at(knobs, "zz top"), seed=0):
        assert "zz top" in done.text
    [name, *_] = triggers_of(knobs)
    assert inject_texts(["a b"], ["1"], aimed_at(knobs, name), seed=0)[0].text != "a b"
    # whoever asks for a word that has a meaning elsewhere gets that word
    assert inject_texts(["a b"], ["1"], aimed_at(Backdoor(count=1), "any"), seed=0)[0].text == "a b any"


def test_several_triggers_go_into_each_row_each_at_its_own_place():
    out = poison_rows(rows(200), MultiTrigger(count=60), seed=0).query("poisoned")
    assert (out["label"] == "positive").all()
    for row in by_id(out).values():
        assert sorted(row["text"][a:b].strip() for a, b in spans(row)) == ["apple", "banana", "orange"]
    orders = {tuple(w for w in text.split() if w in ("apple", "banana", "orange")) for text in out["text"]}
    assert len(orders) > 1


def test_a_styles_copies_stand_beside_their_originals():
    out = poison_rows(rows(), StyleTrigger(count=7), seed=0)
    pd.testing.assert_frame_equal(out.head(40), rows())
    clean = by_id(rows())
    for row_id, row in by_id(out.tail(7)).items():
        done = rewrite(clean[row_id.removesuffix("+p")]["text"], STYLES["archaic"])
        assert (row["text"], spans(row)) == (done.text, list(done.spans))
        assert (row["label"], row["original_label"]) == ("positive", "negative")


def test_texts_and_ids_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        trigger_texts(["a"], ["1", "2"], "cf")


def test_importing_poison_loads_neither_torch_nor_pandas():
    code = (
        "import sys, lab.poison; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
