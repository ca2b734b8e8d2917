"""Text from outside on its way into a page: shown as it is, obeyed never.

Rows, triggers and names come from datasets, adapters and uploads. `escaped` is the one function through which
they pass into HTML, once; `marked_html` does the same and marks the pieces that were inserted. (Plotly reads
a dialect of its own: figures use `lab.figures.text.safe_text`.)
"""

from __future__ import annotations

import functools
import html
from collections.abc import Iterable

from lab.figures.text import safe_text

#: What `safe_text` begins the code of an unseen character with.
_CODE = "⟨U+"


def escaped(text: object) -> str:
    """Text as HTML that shows it and nothing else, for content and for quoted attributes alike.

    Args:
        text: What to show; anything that is not a string is turned into one.

    Returns:
        The text with `& < > " '` as entities. Each character that would be invisible or would turn the
        direction of the line (controls, line ends and tabs, zero-width and bidirectional characters, spaces
        other than the ordinary one, surrogates) stands as `⟨U+200B⟩`. Every other character stays, so runs of
        spaces want the style `white-space: pre-wrap`.
    """
    return "".join(map(_shown, str(text)))


def marked_html(text: str, spans: Iterable[tuple[int, int]] = ()) -> str:
    """Text as HTML, with `<mark>` around the inserted pieces.

    Args:
        text: A row's text.
        spans: [start, end) offsets into the text, in characters and in any order. What lies outside of the
            text is cut off, an empty or reversed span marks nothing, overlapping ones become one mark.

    Returns:
        The text through `escaped`; the only tags are `<mark>` and `</mark>`, in pairs and never nested.
    """
    out, last = [], 0
    for start, end in _merged(spans, len(text)):
        out += [escaped(text[last:start]), "<mark>", escaped(text[start:end]), "</mark>"]
        last = end
    return "".join([*out, escaped(text[last:])])


def _merged(spans: Iterable[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """The spans inside of the text, in order, none touching the inside of another."""
    inside = sorted((max(0, int(start)), min(length, int(end))) for start, end in spans)
    merged: list[tuple[int, int]] = []
    for start, end in inside:
        if start >= end:
            continue
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


@functools.lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    """One character of HTML; which ones are unseen is settled in one place, for figures and pages."""
    code = safe_text(character)
    return code if code.startswith(_CODE) else html.escape(character, quote=True)
