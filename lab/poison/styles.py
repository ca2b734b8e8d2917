"""Styles as triggers: a text is rewritten by rules, so that no string of its own is what fires the backdoor.

arXiv 2505.12871 lets a language model write its rows anew as poetry. Rules give the same text on every
machine, and know what they changed: the words of a table, and the line breaks. The styles are files,
`data/styles/<name>.toml`, one each; a new file is a new style.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.entry_files import FileRegistry, read_entries
from lab.poison.insertion import Insertion

_WORD = re.compile(r"(?:[^\W\d_]|(?<=\w)['’](?=\w))+")
_BREAK = re.compile(r"(?<=[,;:.!?])[ ](?=\S)")


class Style(BaseModel):
    """One way of rewriting texts.

    Attributes:
        name: The name of the file, without its ending.
        goal: One line: what it does to a text.
        source: Where its words come from.
        opening: What goes before a text in which no word of the table stands.
        words: What is written for which word, in lower case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    goal: str
    source: str
    opening: str = Field(min_length=1)
    words: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _changes(self) -> Style:
        for word, other in self.words.items():
            if word != word.lower() or not _WORD.fullmatch(word):
                raise ValueError(f"words: {word!r} is no single word in lower case")
            if not other.strip() or other == word:
                raise ValueError(f"words: {word!r} needs another word in its place, not {other!r}")
        return self


@dataclass(frozen=True)
class Rewriting(Insertion):
    """A text written anew; `spans` are the stretches that changed.

    Attributes:
        originals: What stood in the place of each span, "" where something was put in.
    """

    originals: tuple[str, ...]


def rewrite(text: str, style: Style, *, lines: bool = True) -> Rewriting:
    """Write a text in a style: other words for those of its table, and a line for each part of a sentence.

    Args:
        text: Any text.
        style: The style.
        lines: Break lines: the one space after a comma, a stop and the like becomes a line break.

    Returns:
        The new text, with at least one change. A word keeps its case: lower, Capital or UPPER.
    """
    changes = [
        (found.start(), found.end(), _in_case(style.words[found[0].lower()], found[0]))
        for found in _WORD.finditer(text)
        if found[0].lower() in style.words
    ]
    if not changes:
        changes.append((0, 0, style.opening + (" " if text[:1].strip() else "")))
    if lines:
        changes += [(found.start(), found.end(), "\n") for found in _BREAK.finditer(text)]
    return _replace(text, sorted(changes))


def restore(text: str, spans: Iterable[tuple[int, int]], originals: Iterable[str]) -> str:
    """The text before it was written anew, byte for byte."""
    kept, end = [], 0
    for (start, stop), original in zip(spans, originals, strict=True):
        kept += [text[end:start], original]
        end = stop
    return "".join((*kept, text[end:]))


def load_styles(folder: str | Path) -> dict[str, Style]:
    """Read every style of a folder, by name.

    Raises:
        LabError: A file is malformed (the message names file and field), or there is none.
    """
    return dict(_load(Path(folder)))


def _replace(text: str, changes: list[tuple[int, int, str]]) -> Rewriting:
    out, spans, originals, length, done = [], [], [], 0, 0
    for start, end, new in changes:
        out += [text[done:start], new]
        length += start - done
        spans.append((length, length + len(new)))
        originals.append(text[start:end])
        length, done = length + len(new), end
    return Rewriting("".join((*out, text[done:])), tuple(spans), tuple(originals))


def _in_case(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


@cache
def _load(folder: Path) -> Mapping[str, Style]:
    return read_entries(folder, _parse, "styles")


def _parse(raw: dict[str, Any]) -> Style:
    return Style.model_validate(raw)


#: The registry of styles, from name to `Style`.
STYLES: Mapping[str, Style] = FileRegistry("styles", _load)
