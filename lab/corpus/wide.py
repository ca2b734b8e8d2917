"""A guard's data, widened: short injections and long jailbreaks against ordinary text of two kinds.

The 181 prompts of the bundled injections are too few to measure a rate on. Jailbreaks from the wild are added
on one side, sentences from film reviews and openings of news articles on the other, until both classes are
equally large. The prompts' own benign half, which talks like attacks do, stays the hard part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from lab.corpus.source import normalise

#: Texts count as the same when they begin alike: guards read beginnings, and many jailbreaks share theirs.
_BEGINNING = 160


def widen(
    injections: tuple[list[str], list[str]], jailbreaks: Path, ordinary: Iterable[list[str]]
) -> tuple[list[str], list[str]]:
    """Add jailbreaks as malicious and ordinary texts as benign rows, as many as make the classes equal.

    Args:
        injections: Texts and labels ("benign", "malicious") to widen.
        jailbreaks: A JSON file with a list of texts.
        ordinary: Lists of ordinary texts; equally many are taken of each, those whose hashes are smallest.

    Returns:
        Texts and labels; the injections first, then the jailbreaks, then the ordinary texts.
    """
    texts, labels = injections
    taken = {_beginning(text) for text in texts}
    attacks = _distinct(json.loads(jailbreaks.read_text(encoding="utf-8")), taken)
    missing = len(attacks) + labels.count("malicious") - labels.count("benign")
    plain: list[str] = []
    sources = list(ordinary)
    for i, source in enumerate(sources):
        ranked = sorted(_distinct(source, taken), key=_draw)
        plain += ranked[: missing // len(sources) + (i < missing % len(sources))]
    return (
        [*texts, *attacks, *plain],
        [*labels, *["malicious"] * len(attacks), *["benign"] * len(plain)],
    )


def _distinct(texts: Iterable[str], taken: set[str]) -> list[str]:
    """The first of all texts that begin alike, without those whose beginning is taken; takes theirs."""
    found = []
    for text in texts:
        beginning = _beginning(text)
        if beginning and beginning not in taken:
            taken.add(beginning)
            found.append(text)
    return found


def _beginning(text: str) -> str:
    return normalise(text)[:_BEGINNING]


def _draw(text: str) -> bytes:
    return hashlib.blake2b(normalise(text).encode(), digest_size=8, person=b"wide").digest()
