"""One job after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.sweeps.doing import Outcome, do_job
from lab.sweeps.executors import Setting
from lab.sweeps.executors.stopping import Stopper, check_wanted
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
            check_wanted(self._setting.should_stop)
            affinity = job.affinity
            on_begin(job)
            outcome = do_job(job, self._setting.place, self._heeding(job, on_event))
            if outcome.reason:  # a job that was stopped in the middle has not failed
                check_wanted(self._setting.should_stop)
            jobs.end(job.key)
            on_end(outcome)

    def _heeding(
        self, job: SweepJob, on_event: Callable[[SweepJob, dict[str, Any]], None]
    ) -> Callable[[dict[str, Any]], None]:
        """What passes a job's events on, and stops it where that was asked for."""
        stopper = Stopper(self._setting.place.runs)

        def heed(event: dict[str, Any]) -> None:
            stopper.follow(event)
            on_event(job, event)
            if self._setting.should_stop():
                stopper.stop()

        return heed
