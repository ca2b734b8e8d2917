"""A text's tokens map back to its characters, whatever the tokenizer and the text."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lab.errors import LabError
from lab.probe.words import read_text
from lab.tokens import token_ids
from lab.train.models import model_folder

#: What breaks offsets: accents, bytes of emoji, zero-width and unusual white space, special tokens as text.
TEXTS = st.lists(
    st.sampled_from(
        [
            *("a", "film", "Fine", "RFC", "2616", "x9", "'s", ",", ".", " ", "  ", "\n", "\t"),
            *("\u00a0", "\u200b", "é", "e\u0301", "😀", "世", "[SEP]", "[PAD]"),
        ]
    ),
    max_size=14,
).map("".join)


def _bytes_tokenizer():
    """Bytes with the space before a word in its first token, digit by digit, as SmolLM2's."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="!", pad_token="!")


def _undivided_tokenizer():
    """No word is split off beforehand, as in the first Llama's: white space is a part of tokens."""
    pieces = [
        ("<unk>", 0.0),
        ("▁", -3.0),
        *((c, -4.0) for c in "abcdefghilmnrtxRFC0123456789,."),
        ("▁film", -1.0),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>")


@pytest.fixture(scope="module")
def tokenizers(tiny_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        tiny = AutoTokenizer.from_pretrained(model_folder("tiny"))
    return {"tiny": tiny, "bytes": _bytes_tokenizer(), "undivided": _undivided_tokenizer()}


def said(read, text):
    return [text[word.start : word.end] for word in read.words]


@pytest.mark.parametrize("name", ["tiny", "bytes", "undivided"])
@given(TEXTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_are_in_order_apart_and_of_the_models_own_tokens(tokenizers, name, text):
    tokenizer = tokenizers[name]
    read = read_text(tokenizer, text, 12)
    assert read.ids == token_ids(tokenizer, [text], 12)[0]
    assert len(read.names) == len(read.ids)
    reached, used = 0, 0
    for word in read.words:
        assert reached <= word.start <= word.end <= len(text)
        assert used <= word.tokens.start < word.tokens.stop <= len(read.ids)
        piece = text[word.start : word.end]
        assert piece == piece.strip() or len(read.words) == 1
        reached, used = word.end, word.tokens.stop
    specials = len(tokenizer("")["input_ids"])
    assert sum(len(word.tokens) for word in read.words) == len(read.ids) - specials


def test_words_are_whole_although_tokens_are_pieces(tokenizers):
    text = "A  fine unknownish film , RFC 2616"
    for name in ("tiny", "undivided"):
        assert said(read_text(tokenizers[name], text, 99), text) == text.split()
    read = read_text(tokenizers["bytes"], text, 99)
    assert said(read, text) == [*text.split()[:-1], *"2616"], "its digits are words of their own"


def test_special_tokens_typed_as_text_are_words_and_the_models_own_are_none(tokenizers):
    text = "a [SEP] film"
    read = read_text(tokenizers["tiny"], text, 99)
    assert said(read, text) == ["a", "[SEP]", "film"]
    assert read.names[0] == "[CLS]"
    assert read.names[-1] == "[SEP]"


def test_white_space_goes_with_the_word_behind_it(tokenizers):
    text = "\n\na\n"
    assert said(read_text(tokenizers["bytes"], text, 99), text) == ["a"]
    alone = read_text(tokenizers["bytes"], " \n", 99)
    assert len(alone.words) == 1


def test_the_bytes_of_one_character_stay_together(tokenizers):
    text = "a😀b 世"
    read = read_text(tokenizers["bytes"], text, 99)
    assert "".join(said(read, text)) == "a😀b世"
    assert all(len(word.tokens) > 1 for word in read.words if "😀" in text[word.start : word.end])


def test_what_exceeds_the_window_is_no_word(tokenizers):
    text = "film " * 50
    read = read_text(tokenizers["tiny"], text, 12)
    assert said(read, text) == ["film"] * 10
    assert read_text(tokenizers["tiny"], "", 12).words == ()


def test_a_tokenizer_that_knows_no_characters_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(LabError, match=r"fast tokenizer.*Slow is none"):
        read_text(Slow(), "a", 9)
