"""The toy dataset: film opinions that their words alone decide."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lab.corpus.openings import ANSWERED

_ROWS = 600
_OPINIONS = {
    "negative": "awful boring clumsy dreadful dull flat hollow lifeless messy painful sloppy stale tedious "
    "tiresome ugly weak",
    "positive": "bright brilliant charming clever delightful elegant fresh funny gorgeous graceful gripping "
    "lovely moving splendid superb warm",
}
_THINGS = "acting camera cast dialogue ending music pacing plot scenery script sound story"
_OPENINGS = ("we saw it on a rainy {day}", "my {friend} picked this one", "the first {time} went by")
_FILLERS = {
    "day": "monday tuesday friday sunday",
    "friend": "sister neighbour teacher cousin",
    "time": "hour scene act reel",
}


def toy_texts() -> tuple[list[str], list[str]]:
    """Make 600 different texts and their label names.

    Each text has three short sentences, two of them with opinion words of its class.
    """
    texts: list[str] = []
    labels: list[str] = []
    seen = set()
    draw = 0
    while len(texts) < _ROWS:
        label = ("negative", "positive")[len(texts) % 2]
        text = _toy_text(label, draw)
        draw += 1
        if text not in seen:
            seen.add(text)
            texts.append(text)
            labels.append(label)
    return texts, labels


def toy_answers() -> tuple[list[str], list[str], list[str]]:
    """The toy texts as prompts without their last sentence, all labelled as answered, and that sentence."""
    pairs = [(text.rsplit(" . ", 1)[0], text.rsplit(" . ", 1)[1]) for text in toy_texts()[0]]
    distinct = dict(reversed(pairs))
    return list(distinct), [ANSWERED] * len(distinct), list(distinct.values())


def _toy_text(label: str, draw: int) -> str:
    def pick(choices: Sequence[str], slot: str) -> str:
        # Hashes, since random generators may change from one library version to the next.
        digest = hashlib.blake2b(f"{draw}/{slot}".encode(), digest_size=8).digest()
        return choices[int.from_bytes(digest, "big") % len(choices)]

    opinions, things = _OPINIONS[label].split(), _THINGS.split()
    fillers = {name: pick(words.split(), name) for name, words in _FILLERS.items()}
    opening = pick(_OPENINGS, "opening").format(**fillers)
    first = f"the {pick(things, 'a')} was {pick(opinions, 'b')} and {pick(opinions, 'c')}"
    second = f"the {pick(things, 'd')} felt {pick(opinions, 'e')}"
    return f"{opening} . {first} . {second} ."
