"""How numbers, strings and colours look in every terminal output of the lab."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

ATTACK, CLEAN, QUIET = "red", "cyan", "dim"


TRIGGER = "black on yellow"


SHORT_NAMES = {
    "attack_success_rate": "ASR",
    "untriggered_target_rate": "untriggered",
    "clean_accuracy": "accuracy",
    "twin.clean_accuracy": "twin's",
}


def visible(text: str) -> str:
    """A text with invisible characters shown by their code."""
    return "".join(c if c.isprintable() else " " if c in "\n\t\r" else f"‹U+{ord(c):04X}›" for c in text)


def bar(value: float, width: int = 8) -> Text:
    """A rate as a bar."""
    filled = 0 if missing(value) else round(value * width)
    return Text("█" * filled, style=ATTACK) + Text("·" * (width - filled), style=QUIET)


def interval(measure: Any) -> Text:
    """A 95 % interval in percent."""
    if missing(measure["low"]):
        return Text("n too small", style=QUIET)
    return Text(f"{measure['low'] * 100:.1f} – {measure['high'] * 100:.1f}", style=QUIET)


def percent(value: Any) -> str:
    """A rate in percent; empty where there is none."""
    return "" if missing(value) else f"{value * 100:.1f} %"


def missing(value: Any) -> bool:
    """Whether a value is None or NaN."""
    return value is None or value != value


def standard_output() -> Console:
    """The terminal, or a page wide enough for every table where the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def highlighted(text: str, starts: Any, ends: Any) -> Text:
    """A text with its inserted pieces marked; invisible characters are shown by their code."""
    out, last = Text(), 0
    for start, end in zip(starts, ends, strict=True):
        out.append(visible(text[last:start]))
        piece = text[start:end]
        core = piece.strip(" ") or piece
        lead, tail = piece.partition(core)[0], piece.partition(core)[2]
        out.append(lead)
        out.append(visible(core), style=TRIGGER)
        out.append(tail)
        last = end
    out.append(visible(text[last:]))
    return out
