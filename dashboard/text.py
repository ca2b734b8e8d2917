"""The one function that draws text from outside: data, runs, adapters, links, people."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st


def show_text(text: str, spans: Sequence[tuple[int, int]] = (), label: str = "") -> None:
    """Draw a text with some spans marked; nothing in it is read as HTML or Markdown.

    Invisible and bidirectional characters are shown as U+xxxx.

    Args:
        text: Any text.
        spans: Character offsets [start, end) to mark.
        label: A line over it, from outside as well.
    """
    from lab.markup import marked_html

    over = f'<div class="lab-label">{marked_html(label, [])}</div>' if label else ""
    st.html(f'{over}<div class="lab-text">{marked_html(text, spans)}</div>')


def short(text: object, longest: int = 80) -> str:
    """Text from outside for places that show it as it is (options, cells): one line, nothing invisible."""
    said = "".join(c if c.isprintable() else "�" for c in str(text))
    return said if len(said) <= longest else f"{said[: longest - 1]}…"


def plain(text: object, longest: int = 80) -> str:
    """Text from outside for places that read Markdown (labels, captions): every sign of it is escaped."""
    said = short(text, longest)
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>~$:@^=\"'&" else c for c in said)
