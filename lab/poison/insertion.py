"""Putting a trigger into a text so that it can be found again and cut out again.

Text is never split and joined, which would lose its white space and so plant a second cue beside the
trigger. Pieces go in at character offsets; a space that they need to stand apart belongs to the piece, so
cutting the recorded spans gives the original back, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lab.errors import LabError
from lab.registry import lookup

Spans = tuple[tuple[int, int], ...]
#: (text, pieces, every, rng) -> for each of so many pieces, at least one offset into the text.
Position = Callable[[str, int, int, np.random.Generator], list[list[int]]]


@dataclass(frozen=True)
class Insertion:
    """A text with pieces inserted.

    Attributes:
        text: The text with the pieces in it.
        spans: Half-open character ranges [start, end) into `text`, sorted and without overlap, one per piece.
    """

    text: str
    spans: Spans


def insert(text: str, trigger: str, position: str, *, every: int = 2, rng: np.random.Generator) -> Insertion:
    """Insert one trigger at a position, once, or several times if the position is "sentences".

    Args:
        text: Any text: empty, white space only and unicode included.
        trigger: What to insert, at least one character.
        position: A name in `POSITIONS`.
        every: For "sentences": how many sentences stand before each trigger, at least 1.
        rng: Draws the place if the position is "random"; left alone otherwise.

    Returns:
        The new text and the spans of what was inserted, separating spaces included.

    Raises:
        LabError: If the position is unknown, the trigger is empty, or `every` is below 1.
    """
    return insert_pieces(text, [trigger], position, every=every, rng=rng)


def insert_pieces(
    text: str, pieces: Sequence[str], position: str, *, every: int = 2, rng: np.random.Generator
) -> Insertion:
    """Insert several pieces, each with a span of its own: the many spurious tokens of one row.

    Pieces at "start" and "end" stand side by side in the given order. At "random" they are placed one after
    the other, those placed before counting as words, so that every order of words and pieces is as likely;
    those that meet at one place keep the given order.

    Args and errors are those of `insert`.
    """
    place = lookup(POSITIONS, position, "position")
    if every < 1:
        raise LabError(f"every = {every}: a trigger goes in after every n-th sentence, n at least 1.")
    if not all(pieces):
        raise LabError("A trigger is empty; it needs at least one character.")
    offsets = place(text, len(pieces), every, rng)
    placed = [(offset, piece) for piece, places in zip(pieces, offsets, strict=True) for offset in places]
    return assemble(text, sorted(placed, key=lambda pair: pair[0]))


def compose(first: Insertion, second: Insertion) -> Insertion:
    """One insertion after another, as one: what was inserted into the text before the first of them.

    Args:
        first: The earlier one.
        second: The later one, into the text of the first.

    Returns:
        The later text, with the spans of both. A later piece that falls into an earlier one widens it;
        cutting all spans gives the text before both.
    """
    offsets, before = [], 0
    for start, end in second.spans:
        offsets.append((start - before, end - start))  # where it went in, and its length
        before += end - start
    widened = tuple(
        (start + sum(n for at, n in offsets if at <= start), end + sum(n for at, n in offsets if at < end))
        for start, end in first.spans
    )
    apart = (
        span
        for span, (at, _) in zip(second.spans, offsets, strict=True)
        if not any(start < at < end for start, end in first.spans)
    )
    return Insertion(second.text, tuple(sorted((*widened, *apart))))


def cut(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return the text without its spans: what it was before the insertion.

    Raises:
        ValueError: If spans overlap, are not sorted, or lie outside the text.
    """
    kept, end = [], 0
    for start, stop in spans:
        if not end <= start <= stop <= len(text):
            raise ValueError(f"span ({start}, {stop}) overlaps another one or lies outside the text")
        kept.append(text[end:start])
        end = stop
    return "".join((*kept, text[end:]))


def word_places(text: str) -> list[int]:
    """The offsets between words: before each, and at the end; n words leave n + 1 places."""
    return [*(word.start() for word in re.finditer(r"\S+", text)), len(text)]


def assemble(text: str, placed: Sequence[tuple[int, str]]) -> Insertion:
    """Insert (offset, piece) pairs, sorted by offset, each with the separators it needs."""
    out, spans, length, done = [], [], 0, 0
    before = ""  # the last character written
    for i, (offset, piece) in enumerate(placed):
        out.append(text[done:offset])
        length += offset - done
        before = text[offset - 1] if offset > done else before
        # A following piece at the same place brings its own space, as it sees this piece's last character.
        after = text[offset : offset + 1] if i + 1 == len(placed) or placed[i + 1][0] > offset else ""
        spaced = _separator(before, piece) + piece + _separator(piece, after)
        spans.append((length, length + len(spaced)))
        out.append(spaced)
        length += len(spaced)
        before, done = spaced[-1], offset
    return Insertion("".join((*out, text[done:])), tuple(spans))


def _separator(left: str, right: str) -> str:
    return " " if left and right and not left[-1].isspace() and not right[0].isspace() else ""


def _start(text: str, pieces: int, every: int, rng: np.random.Generator) -> list[list[int]]:
    return [[0]] * pieces


def _end(text: str, pieces: int, every: int, rng: np.random.Generator) -> list[list[int]]:
    return [[len(text)]] * pieces


def _random(text: str, pieces: int, every: int, rng: np.random.Generator) -> list[list[int]]:
    """Before any word, or at the end, each place as likely; a piece that is placed makes one place more."""
    places = word_places(text)
    line: list[int | None] = [None] * (len(places) - 1)  # words are None, pieces their numbers
    for piece in range(pieces):
        line.insert(int(rng.integers(len(line) + 1, size=1)[0]), piece)
    words, offsets = 0, [[0]] * pieces
    for entry in line:
        if entry is None:
            words += 1
        else:
            offsets[entry] = [places[words]]
    return offsets


# A run of stops, perhaps spaced (". . ."), closing quotes, then white space or the end. Lookbehind and
# possessive runs keep a long row of dots at linear time. Chinese and Japanese stops need no space.
_SENTENCE_END = re.compile(
    r"""(?:(?<![.!?…])[.!?…]++(?:\s++[.!?…]++)*["'”’)\]]*+(?=\s|\Z)) | [。！？]++""", re.VERBOSE
)


def _sentences(text: str, pieces: int, every: int, rng: np.random.Generator) -> list[list[int]]:
    """After every n-th sentence; after the last one if there are fewer, so that each text gets its trigger.

    A sentence ends at stops before white space, so "Mr. Bean" counts as two: what the trigger's density
    needs, and it works without a language model.
    """
    ends = [stop.end() for stop in _SENTENCE_END.finditer(text)]
    written = len(text.rstrip())
    if not ends or text[ends[-1] : written].strip():
        ends.append(written)
    return [ends[every - 1 :: every] or [ends[-1]]] * pieces


#: Where a trigger can go: a name, as in `poison.position`, to a function that finds the offsets.
POSITIONS: dict[str, Position] = {
    "start": _start,
    "end": _end,
    "random": _random,
    "sentences": _sentences,
}
