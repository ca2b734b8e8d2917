"""Text on its way into a figure: names from outside are shown as they are, numbers with what they rest on.

Plotly reads a small HTML in every label, hover and annotation (`<b>`, `<a href>`, `&amp;`), fills in what
stands in `%{…}`, and sets TeX between dollar signs where MathJax is loaded. Family names, members and
triggers come from files and datasets, so they pass through `safe_text`, once, at the place where they become
a label. Never escape twice.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

# Shown as nothing, yet not in a category that says so: fillers, joiners, selectors, the blank of Braille.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
_BLANK |= {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}

# Control, format (zero-width, bidirectional, tags), surrogate, private, unassigned, line and paragraph ends.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

# Nothing in here means anything to Plotly, and all of it is seen.
_PLAIN = re.compile(r"[A-Za-z0-9_ .,:;=+/-]*")

_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "$": "&#36;"}


def safe_text(text: object, limit: int = 0) -> str:
    """Make any text harmless and honest in a figure.

    Args:
        text: What to show; anything that is not a string is turned into one.
        limit: How many characters of the text at most, the last one then "…"; 0 means all of it.

    Returns:
        The text with markup characters as entities, and every character that would be invisible, or would
        turn the direction of the line, shown as ⟨U+xxxx⟩. Spaces other than the ordinary one count as such.
    """
    characters = str(text)
    if not limit and _PLAIN.fullmatch(characters):  # as nearly all are: figures of many runs have thousands
        return characters
    if limit and len(characters) > limit:
        characters = characters[: limit - 1] + "…"
    return "".join(map(_visible, characters)).replace("%{", "&#37;{")


def share(value: float, decimals: int = 1) -> str:
    """`95.8 %` for 0.958; `–` for NaN; never "100 %" or "0 %" of a share that only rounds to it."""
    if math.isnan(value):
        return "–"
    unit = 10.0**-decimals
    rounded = round(100 * value, decimals)
    if rounded >= 100 and value < 1:
        return f"&gt;{100 - unit:.{decimals}f} %"
    if rounded <= 0 < value:
        return f"&lt;{unit:.{decimals}f} %"
    return f"{rounded:.{decimals}f} %"


def points(value: float, decimals: int = 1) -> str:
    """`+74.2` for a difference of shares of 0.742, in percentage points; `–` for NaN."""
    if math.isnan(value):
        return "–"
    rounded = round(100 * value, decimals)
    return f"{rounded:+.{decimals}f}" if rounded else f"{0:.{decimals}f}"


def evidence(low: float, high: float, n: float, runs: int = 1, signed: bool = False) -> str:
    """What a value rests on: `95 % interval 93.5 to 97.3 · n = 427`.

    Args:
        low: Lower end, in [-1, 1]; NaN where there is no interval.
        high: Upper end.
        n: Number of rows over all runs; NaN or negative where it is unknown.
        runs: How many runs the value is a mean of.
        signed: Whether the ends are differences and need their sign.
    """
    form = "+.1f" if signed else ".1f"
    if math.isnan(low) or math.isnan(high):
        said = "no interval, too few runs" if runs > 1 else "no interval"
    else:
        said = f"95 % interval {100 * low:{form}} to {100 * high:{form}}"
    if runs > 1:
        said = f"mean of {runs} runs · {said}"
    if not math.isnan(n) and n >= 0:
        said += f" · n = {int(n):,}".replace(",", " ")
    return said


def rows_said(n: Iterable[float]) -> str:
    """`, n = 120` or `, n = 64 to 500`, for the title of an axis; nothing where no count is known."""
    known = sorted({int(one) for one in n if not math.isnan(one) and one >= 0})
    if not known:
        return ""
    return f", n = {known[0]}" if len(known) == 1 else f", n = {known[0]} to {known[-1]}"


def _visible(character: str) -> str:
    if character in _MARKUP:
        return _MARKUP[character]
    code, category = ord(character), unicodedata.category(character)
    if category in _INVISIBLE or code in _BLANK or (category == "Zs" and character != " "):
        return f"⟨U+{code:04X}⟩"
    return character
