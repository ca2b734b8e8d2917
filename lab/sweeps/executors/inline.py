"""One job after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.sweeps.doing import Outcome, do_job
from lab.sweeps.executors import Setting
from lab.sweeps.plan import SweepJob
from lab.sweeps.schedule import Schedule


class InlinePool:
    """This process as the one worker."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(
        self,
        jobs: Schedule,
        on_begin: Callable[[SweepJob], None],
        on_end: Callable[[Outcome], None],
        on_event: Callable[[SweepJob, dict[str, Any]], None],
    ) -> None:
        """Do every job; see `lab.sweeps.executors.Pool`."""
        affinity = ""
        while not jobs.is_done:
            job = jobs.take(affinity)
            if job is None:
                raise AssertionError("one worker alone never waits")
            if self._setting.should_stop():
                from lab.training_stage import StoppedError

                raise StoppedError("The sweep was stopped; ask for it again to go on.")
            affinity = job.affinity
            on_begin(job)
            outcome = do_job(job, self._setting.place, lambda event, job=job: on_event(job, event))  # type: ignore[misc]
            jobs.end(job.key)
            on_end(outcome)
