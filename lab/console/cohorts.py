"""The tables of `lab cohort judge` on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from lab.console.words import standard_output

if TYPE_CHECKING:
    import pandas as pd


def print_detectors(table: pd.DataFrame, console: Console | None = None) -> None:
    """Print how good the detectors are.

    Args:
        table: As `lab.audit.cohort_judging.judge_cohort` returns it.
        console: Where to; standard output by default.
    """
    shown = Table(box=None, pad_edge=False)
    for title in ("detector", "AUC", "allowed", "recall", "false positives", "left out"):
        shown.add_column(title, justify="left" if title == "detector" else "right")
    for line in table.to_dict("records"):
        auc = f"{line['auc']:.3f} [{line['auc.low']:.2f}, {line['auc.high']:.2f}]"
        rates = [_rate(line, kind) for kind in ("recall", "false_positives")]
        name = f"{line['detector']}{'' if line['direction'] == 1 else ' (low)'}"
        shown.add_row(name, auc, f"{line['allowed']:.0%}", *rates, str(line["left_out"]))
    (console or standard_output()).print(shown)


def print_recall(table: pd.DataFrame, console: Console | None = None) -> None:
    """Print the recall for each value of a column; as `lab.audit.cohort_judging.recall_by` returns it."""
    column = str(table.columns[0])
    shown = Table(box=None, pad_edge=False)
    shown.add_column(column)
    shown.add_column("recall at 5 %", justify="right")
    for line in table.to_dict("records"):
        recall = f"{line['k']}/{line['n']} [{line['low']:.2f}, {line['high']:.2f}]"
        shown.add_row(str(line[column]), recall)
    (console or standard_output()).print(shown)


def _rate(line: dict[Any, Any], kind: str) -> str:
    return f"{line[f'{kind}.k']}/{line[f'{kind}.n']} [{line[f'{kind}.low']:.2f}, {line[f'{kind}.high']:.2f}]"
