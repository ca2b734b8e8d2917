"""Which job a free worker does next: one that is ready, of the base that the worker has loaded."""

from __future__ import annotations

from collections.abc import Sequence

from lab.sweeps.plan import SweepJob


class Schedule:
    """The jobs of a plan as they are taken and done.

    Args:
        jobs: Each after the jobs that it needs.
    """

    def __init__(self, jobs: Sequence[SweepJob]) -> None:
        self.jobs = list(jobs)
        self._waiting = {job.key: job for job in jobs}
        self._running: dict[str, SweepJob] = {}
        self._ended: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Whether every job has ended."""
        return not self._waiting and not self._running

    def take(self, affinity: str = "") -> SweepJob | None:
        """The next job for a worker, which is running from now on; None where it has to wait.

        Args:
            affinity: Of the worker's last job: the base, rows and seed that it has at hand.
        """
        ready = [job for job in self._waiting.values() if self._ended.issuperset(job.needs)]
        # a cell trains before it looks at its twin: rather than idle, begin while another trains that
        ready = ready or [job for job in self._waiting.values() if self._only_twins_missing(job)]
        if not ready:
            return None
        others = {job.affinity for job in self._running.values()}
        chosen = min(ready, key=lambda job: (job.affinity != affinity, job.affinity in others))
        self._running[chosen.key] = self._waiting.pop(chosen.key)
        return chosen

    def give_back(self, key: str) -> None:
        """Let a job wait again whose worker was lost."""
        job = self._running.pop(key)
        self._waiting = {job.key: job, **self._waiting}

    def end(self, key: str) -> None:
        """Note that a job has ended, well or not."""
        self._running.pop(key, None)
        self._ended.add(key)

    def _only_twins_missing(self, job: SweepJob) -> bool:
        missing = [key for key in job.needs if key not in self._ended]
        return job.kind == "cell" and all(
            key in self._running and self._running[key].kind == "twin" for key in missing
        )
