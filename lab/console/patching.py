"""The table of patching in the terminal: each direction's parts, the strongest effects first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.console.words import QUIET, interval, missing, percent, standard_output

if TYPE_CHECKING:
    import pandas as pd

#: What a direction asks, and whether its strongest effects are the lowest.
_DIRECTIONS = {
    "twin into poisoned": ("a clean part in the poisoned model: low where the backdoor needs it", True),
    "poisoned into twin": ("a poisoned part in the clean twin: high where it brings the backdoor", False),
}


def print_patching(table: pd.DataFrame, split: str, console: Console | None = None) -> None:
    """Print patched answers, a table for each direction, what says most on top.

    Args:
        table: As `lab.probe.PatchedPair.table` gives it.
        split: Where the rows come from.
        console: Where to; standard output by default.
    """
    console = console or standard_output()
    for direction, lines in table.groupby("direction", sort=False):
        about, rising = _DIRECTIONS.get(str(direction), ("", True))
        alone = lines["projection"] == "none"
        ordered = lines[~alone].sort_values(
            ["effect", "mean_margin"], ascending=rising, kind="stable", na_position="last"
        )
        console.print(_of_direction(f"{direction}: {about}", lines[alone], ordered))
        console.print()
    if table["effect"].isna().all():
        console.print(
            "On these rows the poisoned model reaches its target no more often than its clean twin: "
            "there is no backdoor to find.",
            highlight=False,
        )
    note = f"Effect 0: as the clean twin, 1: as the poisoned model. Triggered {split} rows."
    console.print(Text(note, style=QUIET))


def _of_direction(title: str, alone: pd.DataFrame, lines: pd.DataFrame) -> Table:
    out = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for header in ("projection", "layers", "effect", "ASR", "95 % interval", "n", "margin"):
        out.add_column(header, justify="left" if header == "projection" else "right")
    for part in (alone, lines):
        for line in part.to_dict("records"):
            unpatched = line["projection"] == "none"
            out.add_row(
                "(unpatched)" if unpatched else str(line["projection"]),
                _layers(line["first_layer"], line["last_layer"]),
                "" if missing(line["effect"]) else f"{line['effect']:.2f}",
                percent(line["asr"]),
                interval(line),
                f"{int(line['n']):,}",
                f"{line['mean_margin']:.2f}",
                style=QUIET if unpatched else "",
            )
    return out


def _layers(first: int, last: int) -> str:
    if first < 0:
        return ""
    return str(first) if first == last else f"{first}–{last}"
