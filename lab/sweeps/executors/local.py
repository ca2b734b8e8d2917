"""Worker processes on this machine: each imports and loads once, and does one job after the other.

They are plain subprocesses that read jobs and write news as JSON lines, not `multiprocessing`: that would
import the caller's main module again, which scripts and notebooks are not made for, and thread counts have
to be in the environment before torch is imported.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.detached import child_environment
from lab.errors import RunFailedError
from lab.files import writing_to
from lab.sweeps.doing import Outcome
from lab.sweeps.executors import Setting
from lab.sweeps.executors.stopping import check_wanted
from lab.sweeps.plan import SweepJob
from lab.sweeps.schedule import Schedule

#: Seconds between two looks whether to stop.
_LOOK = 0.2
#: Seconds that a worker has to save a checkpoint before it is killed; its run can go on all the same.
_GRACE = 30.0
#: A job that kills its worker (out of memory, most of all) is not tried for ever.
_DEATHS = 2
#: Workers that die while they import will go on doing so.
_STARTS = 3


class _Child:
    """One worker process, and the thread that reads its news.

    Args:
        number: Which worker it is, from 0.
        setting: What the executor was told.
        news: Takes (worker, message); None for the end of its output.
    """

    def __init__(self, number: int, setting: Setting, news: queue.SimpleQueue[Any]) -> None:
        self.number = number
        self.job: SweepJob | None = None
        self.affinity = ""
        self.ready = False
        share = setting.environments[number] if setting.environments else {}
        environment = child_environment({**share, "PYTHONUTF8": "1"})
        log = setting.folder / f"worker-{number}.log"
        with writing_to(setting.folder), log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lab.sweeps.executors.worker", str(setting.place.runs),
                 setting.place.device],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=environment,
                **_out_of_reach(),
            )  # fmt: skip
        threading.Thread(target=self._read, args=(news,), daemon=True).start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand a message over; one that is gone tells so by the end of its output."""
        with contextlib.suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def end(self, seconds: float) -> None:
        """Wait for its end, and kill it where it does not come."""
        with contextlib.suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(timeout=max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self, news: queue.SimpleQueue[Any]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                news.put((self, json.loads(line)))
        news.put((self, None))


class LocalPool:
    """Worker processes; see `lab.sweeps.executors.Pool`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._children: list[_Child] = []
        self._deaths: dict[str, int] = {}
        self._failed_starts = 0

    def __enter__(self) -> LocalPool:
        self._start(self._setting.workers)
        return self

    def __exit__(self, *error: object) -> None:
        stopped = error[0] is not None
        for child in self._children:
            child.send({"stop": True} if stopped else {"end": True})
        end = time.monotonic() + _GRACE
        for child in self._children:
            child.end(end - time.monotonic())

    def run(
        self,
        jobs: Schedule,
        on_begin: Callable[[SweepJob], None],
        on_end: Callable[[Outcome], None],
        on_event: Callable[[SweepJob, dict[str, Any]], None],
    ) -> None:
        """Do every job; see `lab.sweeps.executors.Pool`."""

        def end(outcome: Outcome) -> None:
            jobs.end(outcome.key)
            on_end(outcome)

        while not jobs.is_done:
            self._hand_out(jobs, on_begin)
            check_wanted(self._setting.should_stop)
            try:
                child, said = self._news.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if said is None:
                self._bury(child, jobs, end)
            elif "outcome" in said:
                child.job = None
                end(Outcome(**said["outcome"]))
            elif "event" in said and child.job is not None:
                on_event(child.job, {**said["event"], "worker": child.number})
            elif "ready" in said:
                child.ready = True

    def _start(self, count: int) -> None:
        for number in range(len(self._children), count):
            self._children.append(_Child(number, self._setting, self._news))

    def _hand_out(self, jobs: Schedule, on_begin: Callable[[SweepJob], None]) -> None:
        for child in self._children:
            if child.job is None and (job := jobs.take(child.affinity)) is not None:
                child.job, child.affinity = job, job.affinity
                child.send({"job": vars(job)})
                on_begin(job)

    def _bury(self, child: _Child, jobs: Schedule, end: Callable[[Outcome], None]) -> None:
        """Take the job of a worker that died to another one, and start a new worker in its place."""
        code = child.process.wait()
        job, child.job = child.job, None
        place = self._children.index(child)
        log = self._setting.folder / f"worker-{child.number}.log"
        if job is not None:
            deaths = self._deaths[job.key] = self._deaths.get(job.key, 0) + 1
            if child.ready and deaths < _DEATHS:
                jobs.give_back(job.key)
            else:
                why = "perhaps there is too little memory" if child.ready else _last_line(log)
                end(Outcome(job.key, reason=f"Its worker died (exit code {code}): {why}; see {log.name}."))
        self._failed_starts = 0 if child.ready else self._failed_starts + 1
        if self._failed_starts > _STARTS:
            raise RunFailedError(f"Workers cannot start (exit code {code}): {_last_line(log)}.")
        self._children[place] = _Child(child.number, self._setting, self._news)


def _last_line(log: Path) -> str:
    """The last line that a worker wrote before it could begin."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:200] if lines else "it wrote nothing"


def _out_of_reach() -> dict[str, Any]:
    """A Ctrl-C reaches this process alone, which then asks its workers to stop."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
