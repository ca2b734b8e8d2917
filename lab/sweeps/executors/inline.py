"""One job after the other, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.sweeps.work import do_job

if TYPE_CHECKING:
    from lab.sweeps.executors import Place, Watcher
    from lab.sweeps.jobs import JobBoard


class InlineExecutor:
    """Does jobs here, with all cores that torch takes."""

    name = "inline"
    goal = (
        "One cell after the other in this process, each with all cores: nothing to start, easy to interrupt."
    )

    def check(self, place: Place) -> None:
        """Everything can be done here."""

    def work(self, board: JobBoard, place: Place, watcher: Watcher) -> None:
        """Do all jobs of a board, in its order."""
        base = ""
        while (job := board.take(base)) is not None:
            watcher.begins(job)
            outcome = do_job(job, place.runs, place.device, watcher.hears)
            base = job.base
            board.put(job, outcome)
            watcher.ends(job, outcome)
