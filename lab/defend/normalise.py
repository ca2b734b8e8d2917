"""Normalising texts: what cannot be seen, is markup, or is one of many ways to write the same, goes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from lab.defend._defense import Cleaner
from lab.defend.cleaning import Cleaned
from lab.registry import Knobs

#: A tag or comment of markup; "a < b" and "<3" are none. The length is bounded, and so is the time.
_MARKUP = re.compile(r"<!--.{0,500}?-->|</?[A-Za-z][^<>]{0,200}>", re.DOTALL)


class Normalise(Knobs):
    """What can be set on normalisation."""

    name: Literal["normalise"] = "normalise"
    # compatibility forms (ﬁ, ①, full width) become plain letters, invisible characters go
    characters: bool = Field(True, description="one way to write a character, and no invisible ones")
    # tags of scraped pages carry no sentiment, but may carry a cue
    markup: bool = Field(True, description="remove tags of markup")
    # line breaks and runs of blanks are cues that no reader notices
    spaces: bool = Field(True, description="one blank for every run of white space")


def normalised(text: str, knobs: Normalise) -> str:
    """A text in its plain form; doing it again changes nothing.

    Letters of other scripts that look alike stay: whether a "а" is Cyrillic or meant to look Latin cannot be
    told from a character.
    """
    if knobs.characters:
        visible = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
        text = unicodedata.normalize("NFKC", "".join(visible))
    while knobs.markup and (bare := _MARKUP.sub(" ", text)) != text:
        text = bare  # what stood around a tag may have become one
    return " ".join(text.split()) if knobs.spaces else text


def _clean(knobs: Normalise, texts: Sequence[str], labels: Sequence[str], seed: int) -> Cleaned:
    return Cleaned([normalised(text, knobs) for text in texts])


NORMALISE = Cleaner(
    name="normalise",
    goal="Write every training text in one plain form: no markup, no invisible characters, single blanks.",
    paper="arXiv 2506.11402, its clean-ups of texts; this lab's rules",
    stage="data",
    knobs=Normalise,
    changes="the training texts",
    clean=_clean,
)
