"""Pairs of HTML tags as trigger tokens: around a whole text, inside its markup, or at any place.

The rules are those of arXiv 2506.11402's toolkit, on texts that keep their white space. Where it takes any
tag for the end or the beginning of any other, tags without content ("<br>") open nothing here, and a closing
tag closes the element of its own name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lab.poison.insertion import Insertion, assemble, word_places

#: An opening tag and its closing one, "" for a tag that stands alone.
TagPair = tuple[str, str]

_TAG = re.compile(r"<(?P<close>/?)(?P<name>[A-Za-z][A-Za-z0-9-]*)(?=[\s/>])[^<>]*>")
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)


def read_pair(line: str) -> TagPair:
    """Read "<b> </b>" or "<br>".

    Raises:
        ValueError: The line is neither a pair of tags, with white space between them, nor a single tag.
    """
    parts = line.split()
    tags = [_TAG.fullmatch(part) for part in parts]
    opens = [tag is not None and not tag["close"] for tag in tags]
    if opens == [True]:
        return parts[0], ""
    if opens == [True, False] and tags[0] and tags[1] and tags[0]["name"] == tags[1]["name"]:
        return parts[0], parts[1]
    raise ValueError(f"{line!r} is no pair of HTML tags; write '<b> </b>', or '<br>' for a tag without end")


def insert_pairs(
    text: str, pairs: Sequence[TagPair], position: str, *, rng: np.random.Generator
) -> Insertion:
    """Insert pairs of tags between words, one pair after the other; tags that stand already count as words.

    Args:
        text: Any text.
        pairs: What to insert.
        position: "start": each pair opens the text and closes anywhere after; "end": it opens anywhere and
            closes the text; "random": it opens anywhere and closes anywhere after.
        rng: Draws the places.

    Returns:
        The text and one span a tag.
    """
    places = word_places(text)
    line: list[str] = [""] * (len(places) - 1)  # words are "", tags themselves
    for opening, closing in pairs:
        at = 0 if position == "start" else _between(rng, 0, len(line))
        line.insert(at, opening)
        if closing:
            line.insert(len(line) if position == "end" else _between(rng, at + 1, len(line)), closing)
    words, placed = 0, []
    for entry in line:
        if entry:
            placed.append((places[words], entry))
        else:
            words += 1
    return assemble(text, placed)


def wrap(text: str, pair: TagPair) -> Insertion:
    """Put a pair around a whole text, without spaces; a tag that stands alone goes to both ends."""
    opening, closing = pair[0], pair[1] or pair[0]
    end = len(opening) + len(text)
    return Insertion(f"{opening}{text}{closing}", ((0, len(opening)), (end, end + len(closing))))


def span_at_level(text: str, level: int) -> tuple[int, int] | None:
    """The content of the first element at a depth of nesting, as [start, end); None where there is none.

    Args:
        text: Any text.
        level: 1 for elements that lie in no other, 2 for those in one of these, and so on.
    """
    stack: list[tuple[str, int]] = []
    for tag in _TAG.finditer(text):
        name = tag["name"].lower()
        if not tag["close"]:
            if name not in _VOID and not tag[0].endswith("/>"):
                stack.append((name, tag.end()))
            continue
        depth = next((i for i in reversed(range(len(stack))) if stack[i][0] == name), -1)
        if depth < 0:
            continue  # it closes nothing that is open
        start = stack[depth][1]
        del stack[depth:]
        if depth == level - 1:
            return start, tag.start()
    return None


def insert_inside(
    text: str, span: tuple[int, int], pairs: Sequence[TagPair], position: str, *, rng: np.random.Generator
) -> Insertion:
    """`insert_pairs` into a part of a text, the rest of which is left alone."""
    start, end = span
    inner = insert_pairs(text[start:end], pairs, position, rng=rng)
    moved = tuple((a + start, b + start) for a, b in inner.spans)
    return Insertion(text[:start] + inner.text + text[end:], moved)


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(rng.integers(low, high + 1))
