"""Who does a sweep's jobs: this process, worker processes of this machine, or a Ray cluster.

An executor takes jobs from a board and puts outcomes back. It knows nothing of grids, cells or tuning, and
jobs know nothing of it, so results are the same whoever does them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lab.sweeps.executors.inline import InlineExecutor
from lab.sweeps.executors.local import LocalExecutor
from lab.sweeps.executors.ray_cluster import RayExecutor
from lab.sweeps.jobs import JobBoard, Outcome, SweepJob

__all__ = ["EXECUTORS", "Executor", "Place", "Watcher"]


@dataclass(frozen=True)
class Place:
    """Where jobs are done.

    Attributes:
        runs: The runs folder.
        device: "auto", "cpu", "cuda" or "mps".
        workers: How many jobs at once; at least 1.
        address: The Ray cluster's address; "" for none.
    """

    runs: Path
    device: str = "auto"
    workers: int = 1
    address: str = ""


class Watcher(Protocol):
    """Who is told of jobs, by whichever executor."""

    def begins(self, job: SweepJob) -> None:
        """Somebody has taken a job."""

    def ends(self, job: SweepJob, outcome: Outcome) -> None:
        """A job is done; its outcome is on the board."""

    def hears(self, event: dict[str, Any]) -> None:
        """A run told something, as `lab.run` tells it."""


class Executor(Protocol):
    """One way to do jobs.

    Attributes:
        name: What it is called on the command line.
        goal: One line: when to take it.
    """

    name: str
    goal: str

    def check(self, place: Place) -> None:
        """Refuse what cannot be used here, before anything is run.

        Raises:
            LabError: What is missing, in one sentence.
        """

    def work(self, board: JobBoard, place: Place, watcher: Watcher) -> None:
        """Do all jobs of a board.

        Raises:
            KeyboardInterrupt: Asked to stop; whatever was begun can go on.
        """


EXECUTORS: dict[str, Executor] = {e.name: e for e in (InlineExecutor(), LocalExecutor(), RayExecutor())}
