"""What the terminal shows: progress while a run works, the report when it is done, tables of many."""

from __future__ import annotations

from lab.console.kernels import print_kernels
from lab.console.lint import print_lint
from lab.console.papers import print_card, print_papers
from lab.console.patching import print_patching
from lab.console.progress import ProgressView
from lab.console.report import print_report
from lab.console.tables import print_cohort, print_runs, print_sweep, print_table

__all__ = [
    "ProgressView",
    "print_card",
    "print_cohort",
    "print_kernels",
    "print_lint",
    "print_papers",
    "print_patching",
    "print_report",
    "print_runs",
    "print_sweep",
    "print_table",
]
