"""What the terminal shows of a sweep: its plan before it begins, and a line for each cell that ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from lab.console.words import SHORT_NAMES, missing, percent, standard_output

if TYPE_CHECKING:
    from lab.sweeps.preview import SweepPreview

#: Cells that are listed; of a larger grid the first ones stand for the rest.
_LISTED = 200


def print_preview(found: SweepPreview, console: Console | None = None) -> None:
    """Print what a sweep would do: every cell, what would be trained, and how long that takes."""
    console = console or standard_output()
    table = Table(box=None, pad_edge=False)
    columns = list(dict.fromkeys(key for line in found.cells for key in line if key != "reason"))
    for column in columns:
        table.add_column(str(column), overflow="fold")
    for line in found.cells[:_LISTED]:
        table.add_row(*[str(line.get(column, "")) for column in columns])
    console.print(table)
    if len(found.cells) > _LISTED:
        console.print(f"… and {len(found.cells) - _LISTED:,} more", highlight=False)
    for reason in dict.fromkeys(line["reason"] for line in found.cells if line["reason"]):
        console.print(f"would fail: {reason}", highlight=False)
    console.print(
        f"{found.finished} of {len(found.cells)} cells are finished. To do: {_todo(found.train)}.",
        highlight=False,
    )
    if any(found.train.values()):
        console.print(_time_told(found), highlight=False)


def _time_told(found: SweepPreview) -> str:
    """How long a sweep would take, and who says so."""
    if not found.seconds:
        return f"With the executor {found.executor}; {found.basis}."
    middle, low, high = (duration(found.seconds[name]) for name in ("middle", "low", "high"))
    by = "1 worker" if found.workers == 1 else f"{found.workers} workers ({found.why})"
    return f"About {middle} ({low} to {high}) with {by}; {found.basis}."


def sweep_line(event: Mapping[str, Any]) -> str:
    """The line for a job of a sweep that has ended: where the sweep is, and how it went."""
    point = ", ".join(f"{k} = {v}" for k, v in event["point"].items())
    who = f"{point}{', ' if point else ''}seed = {event['seed']}"
    if event["job"] != "cell":
        who = f"{event['job']} {event['run']}"
    measures = event["measures"].items()
    how = ", ".join(f"{SHORT_NAMES.get(kind, kind)} {percent(value)}" for kind, value in measures)
    if event["reason"]:
        how = f"failed: {event['reason']}"
    where = f"{event['done']} of {event['total']} cells{' of the tuning' * (event['stage'] == 'tuning')}"
    return f"{where}: {who}{': ' if how else ''}{how}"


def tuning_line(told: Mapping[str, Any]) -> str:
    """The line for a point that was tuned without some of its candidates."""
    point = ", ".join(f"{k} = {v}" for k, v in told["point"].items())
    return f"{point}{': ' if point else ''}{told['text']}"


def sweep_pace(event: Mapping[str, Any]) -> str:
    """How fast a sweep goes, how long it will still take, and its best cell so far."""
    parts = []
    if not missing(event["per_minute"]):
        parts.append(f"{event['per_minute']:.1f} cells a minute")
    if not missing(event["left"]) and event["left"]:
        parts.append(f"about {duration(event['left'])} left")
    best = event["best"]
    if best:
        point = ", ".join([*(f"{k} = {v}" for k, v in best["point"].items()), f"seed = {best['seed']}"])
        name = SHORT_NAMES.get(best["measure"], best["measure"])
        parts.append(f"best {name} {percent(best['value'])} ({point})")
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _todo(train: Mapping[str, int]) -> str:
    words = {
        "runs": "run",
        "twins": "clean twin",
        "parents": "parent",
        "bases": "base",
        "tunings": "tuning run",
    }
    parts = [f"{n} {words.get(k, k)}{'s' * (n != 1)}" for k, n in train.items() if n]
    return ", ".join(parts) or "nothing"
