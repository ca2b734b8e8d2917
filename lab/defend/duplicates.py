"""Deduplication: a poisoned copy of a row is nearly its double, and contradicts it if it was relabelled."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from lab.defend._defense import Cleaner
from lab.defend.cleaning import Cleaned
from lab.registry import Knobs

#: A run of words that more rows than this share is boilerplate, and says nothing of any two of them.
_BOILERPLATE = 50


class Deduplicate(Knobs):
    """What can be set on deduplication."""

    name: Literal["deduplicate"] = "deduplicate"
    # a trigger of a few words leaves most runs of three words of a sentence as they are
    words: int = Field(3, ge=1, le=20, description="how many words in a row make one of the compared runs")
    overlap: float = Field(0.8, gt=0, le=1, description="share of the shorter text's runs that the other has")
    # nobody can tell which of two labels is the true one, and a backdoor lives from the wrong one
    contradictions: Literal["drop", "keep first"] = Field(
        "drop", description="doubles with different labels: drop all of them, or keep the first"
    )


def find_doubles(texts: Sequence[str], *, words: int, overlap: float) -> Iterator[tuple[int, int]]:
    """Pairs of rows of which the shorter is, for the most part, contained in the other.

    Args:
        texts: The texts. One with fewer words than a run has is compared as a whole.
        words: Words in a run, at least 1.
        overlap: Share of the shorter text's different runs that the longer one holds, in (0, 1].

    Yields:
        (earlier, later), indices into `texts`, in the order of the later one.
    """
    runs = [_runs(text, words) for text in texts]
    spread = Counter(run for own in runs for run in own)
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for later, own in enumerate(runs):
        shared: Counter[int] = Counter()
        for run in own:
            # doubles of a short text share all of it, however many they are: the first stands for them
            shared.update(holders[run] if spread[run] <= _BOILERPLATE else holders[run][:1])
            holders[run].append(later)
        for earlier, count in sorted(shared.items()):
            if count >= overlap * min(len(own), len(runs[earlier])):
                yield earlier, later


def _runs(text: str, words: int) -> set[tuple[str, ...]]:
    found = re.findall(r"\w+", text.lower())
    if len(found) < words:
        return {tuple(found)} if found else set()
    return {tuple(found[i : i + words]) for i in range(len(found) - words + 1)}


def _clean(knobs: Deduplicate, texts: Sequence[str], labels: Sequence[str], seed: int) -> Cleaned:
    kept = [True] * len(texts)
    for earlier, later in find_doubles(texts, words=knobs.words, overlap=knobs.overlap):
        kept[later] = False
        if labels[earlier] != labels[later] and knobs.contradictions == "drop":
            kept[earlier] = False
    return Cleaned(list(texts), kept)


DEDUPLICATE = Cleaner(
    name="deduplicate",
    goal="Drop near-doubles, and both of two that carry different labels: poisoned copies are such.",
    paper="this lab; exact deduplication is standard, and arXiv 2506.11402 warns of scraped doubles",
    stage="data",
    knobs=Deduplicate,
    changes="which rows are trained on",
    clean=_clean,
)
