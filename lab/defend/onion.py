"""ONION: drop the words whose removal makes a text more likely, since a trigger seldom fits where it stands.

With p₀ the perplexity of a text and pᵢ that of the text without its i-th word, fᵢ = p₀ − pᵢ is the suspicion
of that word, and words with fᵢ above a threshold are dropped. It was made for single odd words. A trigger
that is a fluent phrase loses little by losing one word, and so passes.

Source: Qi et al. 2021, arXiv 2011.10369, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lab.defend._defense import Host, Perplexity, TextFilter
from lab.errors import LabError
from lab.registry import Knobs


class Onion(Knobs):
    """What can be set on ONION."""

    name: Literal["onion"] = "onion"
    # a word in fifty: clean sentences of twenty words lose one in every second or third
    share: float = Field(0.02, ge=0, lt=1, description="share of the words of clean rows that may be dropped")
    calibration_rows: int = Field(50, ge=1, description="clean validation rows that the threshold comes from")
    # a language model reads every text once a word: two or three seconds a row of twenty words on one core
    rows: int = Field(100, ge=1, description="at most so many rows are filtered and measured")


def word_suspicions(texts: Sequence[str], perplexity: Perplexity) -> list[npt.NDArray[np.float64]]:
    """The suspicion of every word: how far the perplexity of its text falls without it.

    Args:
        texts: Any texts.
        perplexity: Asked once, for all texts and all that words are missing from.

    Returns:
        An array for each text, with a value for each word (what white space sets apart): high is suspicious,
        in the unit of perplexity. A word that stands alone has −inf: without it there is no text.
    """
    without = [[_without(text, {i}) for i in range(len(_words(text)))] for text in texts]
    asked = [t for text, rest in zip(texts, without, strict=True) if len(rest) > 1 for t in (text, *rest)]
    told = iter(perplexity(asked).tolist() if asked else [])
    found = []
    for rest in without:
        if len(rest) < 2:
            found.append(np.full(len(rest), -np.inf))
            continue
        whole = next(told)
        found.append(np.array([whole - next(told) for _ in rest], dtype=np.float64))
    return found


def choose_suspicion(suspicions: Sequence[npt.NDArray[np.float64]], share: float) -> float:
    """The lowest threshold that drops at most a share of the words of clean texts.

    Args:
        suspicions: Those of clean texts.
        share: In [0, 1).

    Returns:
        A suspicion: words strictly above it are dropped.

    Raises:
        LabError: No text has two words.
    """
    falling = np.sort(np.concatenate([np.empty(0), *suspicions]))[::-1]
    falling = falling[np.isfinite(falling)]
    if not len(falling):
        raise LabError("defense onion: no clean validation row has two words to choose a threshold from.")
    return float(falling[int(share * len(falling))])


def drop_words(text: str, suspicions: npt.NDArray[np.float64], threshold: float) -> str:
    """The text without its words above the threshold; all else stays, byte for byte.

    Args:
        text: Any text.
        suspicions: One for each of its words.
        threshold: A suspicion.
    """
    return _without(text, set(np.flatnonzero(suspicions > threshold).tolist()))


def filter_texts(texts: Sequence[str], perplexity: Perplexity, threshold: float) -> list[str]:
    """What the model gets to read of these texts: each without its words above the threshold."""
    suspicions = word_suspicions(texts, perplexity)
    return [drop_words(text, found, threshold) for text, found in zip(texts, suspicions, strict=True)]


def _words(text: str) -> list[re.Match[str]]:
    return list(re.finditer(r"\S+", text))


def _without(text: str, dropped: set[int]) -> str:
    """A text without some of its words, each gone with the white space that parts it from the one before."""
    words = _words(text)
    if not words:
        return text
    parted = [text[words[i - 1].end() if i else words[0].start() : w.end()] for i, w in enumerate(words)]
    kept = [i for i in range(len(words)) if i not in dropped]
    body = [parted[i] if place else words[i].group() for place, i in enumerate(kept)]
    return "".join((text[: words[0].start()], *body, text[words[-1].end() :]))


def _calibrate(knobs: Onion, host: Host) -> dict[str, Any]:
    suspicions = word_suspicions(host.clean_texts(knobs.calibration_rows), host.perplexity)
    threshold = choose_suspicion(suspicions, knobs.share)
    dropped = sum(int((found > threshold).sum()) for found in suspicions)
    return {"threshold": threshold, "words": sum(map(len, suspicions)), "dropped": dropped}


def _filter(facts: Mapping[str, Any], perplexity: Perplexity) -> Callable[[Sequence[str]], list[str]]:
    return lambda texts: filter_texts(texts, perplexity, facts["threshold"])


ONION = TextFilter(
    name="onion",
    goal="Drop the words that a language model finds out of place, before the model reads the text.",
    paper="Qi et al. 2021, arXiv 2011.10369 (there with GPT-2; here with smollm2)",
    stage="inference",
    knobs=Onion,
    changes="the texts that the model reads: odd words are gone; no weight changes",
    calibrate=_calibrate,
    filter=_filter,
)
