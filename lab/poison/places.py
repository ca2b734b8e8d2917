"""A place for a trigger that a person points at: before the n-th word of a text."""

from __future__ import annotations

import re

import numpy as np

from lab.errors import LabError
from lab.poison.insertion import Insertion, insert


def count_words(text: str) -> int:
    """How many words, set apart by white space, a text has; a trigger has one place more than that."""
    return sum(1 for _ in re.finditer(r"\S+", text))


def insert_at_word(text: str, trigger: str, word: int) -> Insertion:
    """Insert a trigger before a word, with the spaces that it needs to stand apart.

    Args:
        text: Any text.
        trigger: What to insert, at least one character.
        word: The word before which it goes, from 0; the number of words means after the last one.

    Returns:
        The new text and the one span of what was inserted, separating spaces included.

    Raises:
        LabError: There is no such place, or the trigger is empty.
    """
    starts = [found.start() for found in re.finditer(r"\S+", text)]
    if not 0 <= word <= len(starts):
        raise LabError(f"word = {word}: the text has {len(starts)} words; allowed are 0 to {len(starts)}.")
    rng = np.random.default_rng(0)  # asked for by the signature; neither start nor end draws
    if word == len(starts):
        return insert(text, trigger, "end", rng=rng)
    # before a word stands white space or nothing, so only the word's side may need a space
    offset = starts[word]
    tail = insert(text[offset:], trigger, "start", rng=rng)
    spans = tuple((start + offset, end + offset) for start, end in tail.spans)
    return Insertion(text[:offset] + tail.text, spans)
