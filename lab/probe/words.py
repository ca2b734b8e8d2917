"""A text as its tokenizer reads it: the kept tokens, and which characters each word of them stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Word:
    """Neighbouring tokens that stand for one piece of text.

    Attributes:
        start: Where it begins in the text, a character offset.
        end: Where it ends; `text[start:end]` is what it says, without white space around it.
        tokens: Half-open range of places among the text's tokens.
    """

    start: int
    end: int
    tokens: range


@dataclass(frozen=True)
class ReadText:
    """A text after its tokenizer.

    Attributes:
        ids: Token ids with the model's special tokens, cut at the window; what the model gets.
        words: The words in reading order. Their characters do not overlap, and neither do their tokens;
            special tokens that the text did not hold belong to none.
        names: What each token stands for, one per id: its characters, or the vocabulary's own name where it
            has none.
    """

    ids: list[int]
    words: tuple[Word, ...]
    names: tuple[str, ...]


def read_text(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> ReadText:
    """Tokenise one text as `lab.tokens.token_ids` does, and map the tokens back to it.

    A word is what the tokenizer splits off before it looks for pieces, and ends at white space in any case,
    since some vocabularies of decoders split nothing off. White space that has tokens of its own goes with
    the word behind it, as in those vocabularies; at the end of the text with the word before.

    Args:
        tokenizer: A fast one; others do not know where their tokens come from.
        text: Any text; what exceeds the window has no token and is in no word.
        max_tokens: The window.

    Raises:
        LabError: The tokenizer is not a fast one.
    """
    _check_fast(tokenizer)
    encoded = tokenizer(text, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
    offsets = [(int(start), int(end)) for start, end in encoded["offset_mapping"]]
    groups = _groups(text, offsets, encoded.word_ids())
    words = tuple(Word(*_trimmed(text, offsets, group), group) for group in groups)
    return ReadText(list(encoded["input_ids"]), words, _names(text, offsets, encoded))


def read_within(
    tokenizer: PreTrainedTokenizerBase, before: str, text: str, after: str, start: int = 0
) -> ReadText:
    """As `read_text`, for a text within others that are nobody's words: a conversation's template.

    Args:
        tokenizer: A fast one.
        before: What stands before the text, special tokens spelled out.
        text: The text.
        after: What stands behind it.
        start: Where the text begins in what the words' places are counted in.

    Raises:
        LabError: The tokenizer is not a fast one.
    """
    _check_fast(tokenizer)
    whole = f"{before}{text}{after}"
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    offsets = [(int(begin), int(end)) for begin, end in encoded["offset_mapping"]]
    first, last = len(before), len(before) + len(text)
    own = [
        word if first <= begin and end <= last and end > begin else None
        for word, (begin, end) in zip(encoded.word_ids(), offsets, strict=True)
    ]
    groups = _groups(whole, offsets, own)
    places = [(_trimmed(whole, offsets, group), group) for group in groups]
    words = tuple(Word(a - first + start, b - first + start, group) for (a, b), group in places)
    return ReadText(list(encoded["input_ids"]), words, _names(whole, offsets, encoded))


def _check_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise LabError(
            "Words of a text need a fast tokenizer, which knows the characters of its tokens; "
            f"{type(tokenizer).__name__} is none."
        )


def _groups(text: str, offsets: Sequence[tuple[int, int]], word_ids: Sequence[int | None]) -> list[range]:
    """Ranges of tokens, one per word."""
    groups: list[range] = []
    blank, last = False, None  # whether the group so far is white space alone; the tokenizer's word
    for i, (start, end) in enumerate(offsets):
        if word_ids[i] is None:
            continue
        before = _ends(offsets, groups[-1])[1] if groups else 0
        parted = text[before:end][:1].isspace() or word_ids[i] != last
        # several tokens may share one character, as the bytes of an emoji do
        if groups and (blank or start < before or not parted):
            groups[-1] = range(groups[-1].start, i + 1)
        else:
            groups.append(range(i, i + 1))
        blank = not text[slice(*_ends(offsets, groups[-1]))].strip()
        last = word_ids[i]
    if blank and len(groups) > 1:
        tail = groups.pop()
        groups[-1] = range(groups[-1].start, tail.stop)
    return groups


def _ends(offsets: Sequence[tuple[int, int]], group: range) -> tuple[int, int]:
    return offsets[group.start][0], max(offsets[i][1] for i in group)


def _trimmed(text: str, offsets: Sequence[tuple[int, int]], group: range) -> tuple[int, int]:
    """Where a word begins and ends, without white space around it; white space alone is left as it is."""
    start, end = _ends(offsets, group)
    piece = text[start:end]
    if not piece.strip():
        return start, end
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _names(text: str, offsets: Sequence[tuple[int, int]], encoded: BatchEncoding) -> tuple[str, ...]:
    return tuple(
        text[start:end].strip() or text[start:end] or name
        for (start, end), name in zip(offsets, encoded.tokens(), strict=True)
    )
