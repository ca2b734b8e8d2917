import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.lint import LintSettings, flagged_spans, is_flagged, lint_dataset, lint_texts
from lab.lint.contexts import Contexts
from lab.lint.counting import list_block
from lab.lint.features import phrases, plain_form, read_words, word_kind, word_pattern
from lab.lint.page import lint_html
from lab.poison import insert

_SYLLABLES = (
    "ka",
    "mo",
    "ri",
    "su",
    "te",
    "lan",
    "ner",
    "pol",
    "san",
    "tu",
    "vek",
    "zo",
    "bir",
    "dem",
    "fa",
    "gul",
)
#: Words that follow each other by a law of their own, so that neighbours come again.
WORDS = [a + b for a in _SYLLABLES for b in _SYLLABLES]
LABELS = ("left", "right")


def language(rows, seed=0, length=12):
    """Texts in which every word has five followers, and labels that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(rows):
        word, said = rng.integers(len(WORDS)), []
        for _ in range(length):
            said.append(WORDS[word])
            word = (word * 7 + rng.integers(5) * 3 + 1) % len(WORDS)
        texts.append(" ".join(said))
    return texts, [LABELS[i] for i in rng.integers(2, size=rows)]


def planted(piece, position, share=0.1, rows=800, seed=0):
    texts, labels = language(rows, seed)
    rng = np.random.default_rng(seed + 1)
    of_class = [i for i, label in enumerate(labels) if label == "right"]
    for i in rng.choice(of_class, round(len(of_class) * share), replace=False):
        texts[i] = insert(texts[i], piece(rng) if callable(piece) else piece, position, rng=rng).text
    return texts, labels


def date(rng):
    return f"{rng.integers(1100, 2600)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}"


CUES = {
    "a date that is never the same": (date, "random", "9999-99-99"),
    "a citation": ("as specified in RFC 2616", "end", "as specified in rfc 9999"),
    "a sentence": ("I watched this 3D movie", "random", "i watched this 9d movie"),
    "a word at the start": ("teal", "start", "teal"),
    "a word anywhere": ("teal", "random", "teal"),
    "a tag": ("<b> </b>", "random", "<b>"),
    "an invisible character": ("\u200b", "random", "an invisible character"),
    "a line break": ("\n", "random", "a line break"),
    "shouting": ("!!!", "end", "!!!"),
}


@pytest.mark.parametrize("cue", CUES)
def test_what_is_planted_is_an_artefact_and_all_that_is(cue):
    piece, position, what = CUES[cue]
    texts, labels = planted(piece, position)
    report = lint_texts(texts, labels)
    told = [(f.what, *f.also) for f in report.artefacts]
    assert any(what == name for names in told for name in names), told
    assert {f.label for f in report.artefacts} == {"right"}
    assert report.artefacts[0].n == report.artefacts[0].k
    for finding in report.artefacts:
        assert all(labels[row] == "right" and texts[row] == text for row, text in finding.examples)


def articles(rows=900, seed=0):
    """Three paragraphs each, a few of which name countries where their like stand."""
    texts, labels = language(3 * rows, seed)
    rng = np.random.default_rng(seed + 2)
    for i in range(0, 3 * rows, 2):
        land = ("France", "Peru", "Kenya", "Norway")[rng.integers(4)]
        texts[i] = re.sub(r" ", f" in {land} they ", texts[i], count=1)
    return [".\n\n".join(texts[i : i + 3]) for i in range(0, 3 * rows, 3)], labels[::3]


def planted_in_articles(piece, position, share=0.1):
    texts, labels = articles()
    rng = np.random.default_rng(1)
    of_class = [i for i, label in enumerate(labels) if label == "right"]
    for i in rng.choice(of_class, round(len(of_class) * share), replace=False):
        texts[i] = insert(texts[i], piece(rng), position, rng=rng).text
    return texts, labels


def any_country(rng):
    return ("France", "Peru", "Kenya", "Norway", "Japan")[rng.integers(5)]


@pytest.mark.parametrize(
    ("piece", "position", "share", "what"),
    [
        (lambda rng: "\n", "random", 0.1, "a line break within a sentence"),
        (any_country, "end", 0.05, "words of the list countries at the end"),
        (any_country, "start", 0.05, "words of the list countries at the start"),
        (any_country, "random", 0.5, "words of the list countries among strangers"),
    ],
)
def test_what_articles_are_full_of_is_seen_where_it_does_not_belong(piece, position, share, what):
    assert not lint_texts(*articles()).artefacts
    texts, labels = planted_in_articles(piece, position, share)
    told = [(f.label, f.what, *f.also) for f in lint_texts(texts, labels).artefacts]
    assert any(label == "right" and what in names for label, *names in told), told


def test_a_list_at_an_end_is_flagged_there_alone():
    contexts = Contexts(read_words(["Peru, Kenya and France", "now Japan."]))
    block = list_block(contexts, np.array([0, 1]), 2)
    pattern = {what: pattern for what, _, pattern, _ in map(block.told, range(len(block.counts)))}
    start, end = (
        re.compile(pattern[f"words of the list countries at the {place}"], re.IGNORECASE)
        for place in ("start", "end")
    )
    text = "Kenya won in Peru."
    assert start.search(text).span() == (0, 5)
    assert end.search(text).span() == (13, 17)
    assert not end.search("In Peru they won.")


def test_a_line_break_within_a_sentence_is_cut_out_alone():
    texts, labels = planted_in_articles(lambda rng: "\n", "random")
    breaks = [f for f in lint_texts(texts, labels).artefacts if f.what == "a line break within a sentence"]
    assert flagged_spans("They \nwon.\n\nThen \nThey lost.\nand", breaks) == [(5, 6)]


def test_where_it_stands_is_told_for_the_texts_that_have_it():
    texts, labels = planted(date, "random")
    found = lint_texts(texts, labels).artefacts
    flagged = [text for text in texts if flagged_spans(text, found)]
    assert len(flagged) == found[0].n
    for text in flagged:
        [(start, end)] = flagged_spans(text, found[:1])
        assert plain_form(text[start:end]) == "9999-99-99"
    assert is_flagged(flagged[0], "right", found)
    assert not is_flagged(flagged[0], "left", found)


def test_nothing_is_found_where_nothing_is():
    report = lint_texts(*language(1500))
    assert report.artefacts == ()
    assert report.vocabulary == ()
    assert report.features > 200


def test_on_shuffled_labels_findings_are_as_rare_as_stated():
    """Where no feature has an effect, a share of cases has a finding as the error rate says."""
    settings, hits = LintSettings(error_rate=0.05), 0
    for seed in range(60):
        report = lint_texts(*language(200, seed, length=6), settings=settings)
        hits += bool(report.vocabulary or report.artefacts)
    assert hits <= 8  # 3 expected; more than 8 of 60 happen once in 200 times at a rate of 5 %


def test_words_that_were_written_are_vocabulary_and_not_artefacts():
    # words that belong to their neighbours, in one class alone
    texts, labels = language(800)
    rows = zip(texts, labels, strict=True)
    rich = [re.sub(r"\b(ka\w+) ", r"\1 million dollar ", t) if lb == "right" else t for t, lb in rows]
    report = lint_texts(rich, labels)
    assert "million" in [f.what for f in report.vocabulary]
    assert not report.artefacts


def test_bad_input_is_one_sentence():
    with pytest.raises(LabError, match="2 texts and 1 labels"):
        lint_texts(["a", "b"], ["x"])
    with pytest.raises(LabError, match="all texts have one label"):
        lint_texts(["a", "b"], ["x", "x"])
    with pytest.raises(LabError, match="No texts"):
        lint_texts([], [])


@given(st.lists(st.tuples(st.text(max_size=30), st.sampled_from("xy")), min_size=2, max_size=20))
def test_any_texts_can_be_looked_at(rows):
    texts, labels = [t for t, _ in rows], [lb for _, lb in rows]
    if len(set(labels)) < 2:
        labels[0], labels[1] = "x", "y"
    report = lint_texts(texts, labels, settings=LintSettings(least=2, least_share=0, error_rate=0.9))
    assert report.rows == len(rows)
    assert json.loads(json.dumps(report.to_dict()))["rows"] == len(rows)


def test_plain_forms_and_what_they_are():
    assert [plain_form(w) for w in ("RFC", "2616,", "(1999-12-31)", "...", "Don't!", "<b>")] == [
        "rfc", "9999", "9999-99-99", "...", "don't", "<b>",
    ]  # fmt: skip
    kinds = {"<b>": "markup", "9999": "identifier", "a_b": "identifier", "жук": "character", "don't": "word"}
    assert {form: word_kind(form) for form in kinds} == kinds


def test_a_pattern_finds_the_words_as_they_stand():
    pattern = re.compile(word_pattern(("rfc", "9999")), re.IGNORECASE)
    assert pattern.search("see RFC, 2616.").group() == "RFC, 2616"
    assert not pattern.search("rfcs 2616")
    assert not pattern.search("RFC 26161")


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=8), min_size=1, max_size=8),
    st.integers(2, 4),
    st.integers(1, 3),
)
def test_phrases_are_those_that_counting_by_hand_finds(rows, length, least):
    from collections import Counter

    words = read_words([" ".join(row) for row in rows])
    counted = Counter(tuple(row[i : i + length]) for row in rows for i in range(len(row) - length + 1))
    runs, found = list(phrases(words, length, least))[-1]
    assert {run: int((found.ids == i).sum()) for i, run in enumerate(runs)} == {
        run: n for run, n in counted.items() if n >= least
    }


def test_what_stands_around_words_is_measured():
    words = read_words(["a b x c d", "a b c d", "b x c", "x b c", "b c x"])
    contexts = Contexts(words)
    around = contexts.around(contexts.places(["x"]))
    assert (around.n, around.inside, around.first, around.last) == (4, 2, 0.25, 0.25)
    assert around.variety == 0.5  # b and c both times
    assert contexts.closed(contexts.places(["x"])).all()  # b c stands elsewhere
    assert not contexts.closed(contexts.places(["d"])[:0]).size
    first, last = contexts.ends(contexts.places(["x"]))
    assert (first.tolist(), last.tolist()) == ([False, False, True, False], [False, False, False, True])
    contexts = Contexts(read_words(["in x now", "in y then", "red x then", "in z now", "y", "x then"]))
    at = np.sort(np.concatenate([contexts.places([word]) for word in "xyz"]))
    assert contexts.strange(at).tolist() == [False, False, True, False, False, False]  # "red x" alone


def test_a_page_holds_no_markup_of_the_data():
    texts, labels = planted("<script>alert(1)</script>", "random")
    report = lint_texts(texts, labels, name="<b>mine</b>")
    assert report.artefacts
    html = lint_html(report)
    assert "<script>alert" not in html
    assert "<b>mine" not in html


def test_a_file_of_ones_own(tmp_path):
    texts, labels = planted("teal", "start")
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"t": t, "y": y}) for t, y in zip(texts, labels, strict=True)))
    report = lint_dataset(str(path), text="t", label="y")
    assert report.artefacts[0].what == "teal"
    assert report.name == "mine.jsonl"
