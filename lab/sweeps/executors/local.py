"""Worker processes on this machine, each with a fair share of its cores, or with a card of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from lab.paths import cache_dir, import_path
from lab.sweeps.jobs import JobBoard, Outcome, SweepJob, failed
from lab.work_queue import thread_share

if TYPE_CHECKING:
    from lab.sweeps.executors import Place, Watcher

#: A job that kills its worker (out of memory, most of all) is not tried for ever.
_TRIES = 2
#: Seconds that a worker has to stop what it does, before it is ended; a checkpoint may have to be written.
_GRACE = 20.0


class LocalExecutor:
    """Does jobs in processes that keep models and tokenised rows loaded from one job to the next."""

    name = "local"
    goal = "Several cells at once on this machine, in processes that share its cores."

    def check(self, place: Place) -> None:
        """Everything can be done here."""

    def work(self, board: JobBoard, place: Place, watcher: Watcher) -> None:
        """Do all jobs of a board; a worker that dies is replaced, and its job tried once more."""
        messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        crew = _Crew(board, place, watcher, messages)
        try:
            crew.employ()
            while not board.is_done:
                worker, message = messages.get()
                crew.hear(worker, message)
                crew.employ()
        except BaseException:
            crew.stop(gently=True)
            raise
        crew.stop(gently=False)


class _Worker:
    """One process, and the job it has."""

    def __init__(
        self, place: Place, environment: Mapping[str, str], messages: queue.Queue[Any], number: int
    ) -> None:
        self.number = number
        self.job: SweepJob | None = None
        self.base = ""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in `end`
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "lab.sweeps.executors.serving"),
                *(str(place.runs), place.device),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(environment),
            text=True,
            encoding="utf-8",
            # Ctrl-C in a terminal reaches a whole group of processes: who hears of it is decided here
            **_apart(),
        )
        threading.Thread(target=self._read, args=(messages, self.process.stdout), daemon=True).start()

    def give(self, job: SweepJob) -> None:
        """Hand it a job; one whose process is gone is noticed by whoever reads."""
        self.job = job
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(asdict(job)) + "\n")
            self.process.stdin.flush()

    def last_words(self) -> str:
        """The last line that it wrote to standard error."""
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read()[-4000:].splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def interrupt(self) -> None:
        """Ask it to stop what it does so that it can go on: the end of its input tells it so."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def end(self, grace: float) -> None:
        """Let it end by itself, and make it end when it does not."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._errors.close()

    def _read(self, messages: queue.Queue[Any], lines: IO[str]) -> None:
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                messages.put((self, json.loads(line)))
        messages.put((self, None))


class _Crew:
    """The workers of one sweep."""

    def __init__(self, board: JobBoard, place: Place, watcher: Watcher, messages: queue.Queue[Any]) -> None:
        self._board, self._place, self._watcher, self._messages = board, place, watcher, messages
        self._workers: list[_Worker] = []
        self._tries: dict[str, int] = {}

    def employ(self) -> None:
        """Give every idle worker a job, and start workers while there are jobs for them."""
        for worker in self._workers:
            if worker.job is None and (job := self._board.take(worker.base)) is not None:
                self._give(worker, job)
        while len(self._workers) < self._place.workers and (job := self._board.take()) is not None:
            taken = {worker.number for worker in self._workers}
            number = next(n for n in range(self._place.workers) if n not in taken)
            worker = _Worker(self._place, worker_environment(self._place, number), self._messages, number)
            self._workers.append(worker)
            self._give(worker, job)

    def hear(self, worker: _Worker, message: dict[str, Any] | None) -> None:
        """Take in what a worker says; None is its end."""
        if message is None:
            self._lost(worker)
        elif message["kind"] == "event":
            self._watcher.hears(message["event"])
        elif message["kind"] == "outcome" and worker.job is not None:
            self._done(worker, Outcome(message["line"], message["seconds"]))

    def stop(self, *, gently: bool) -> None:
        """End all workers; gently lets each first stop what it does, so that it can go on another time."""
        for worker in self._workers:
            if gently and worker.job is not None:
                worker.interrupt()
        for worker in self._workers:
            worker.end(_GRACE)

    def _give(self, worker: _Worker, job: SweepJob) -> None:
        self._watcher.begins(job)
        worker.give(job)

    def _done(self, worker: _Worker, outcome: Outcome) -> None:
        job, worker.job = worker.job, None
        assert job is not None
        worker.base = job.base
        self._board.put(job, outcome)
        self._watcher.ends(job, outcome)

    def _lost(self, worker: _Worker) -> None:
        """A worker is gone; its job is tried again, or has failed."""
        self._workers.remove(worker)
        code, words = worker.process.wait(), worker.last_words()
        worker.end(0)
        job = worker.job
        if job is None:
            return
        self._tries[job.key] = self._tries.get(job.key, 0) + 1
        if self._tries[job.key] < _TRIES:
            self._board.put_back(job)
            return
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        outcome = failed(f"Its worker died {_TRIES} times ({how}){f': {words}' if words else ''}.")
        self._board.put(job, outcome)
        self._watcher.ends(job, outcome)


def worker_environment(place: Place, number: int) -> dict[str, str]:
    """What a worker is told before it imports torch: its share of the cores, and its card if there are some.

    Args:
        place: Where jobs are done.
        number: The worker's number, from 0.
    """
    environment = thread_share(place.workers)
    if place.device in ("auto", "cuda") and (cards := visible_cards()):
        environment["CUDA_VISIBLE_DEVICES"] = cards[number % len(cards)]
    return environment


def visible_cards(environment: Mapping[str, str] | None = None) -> Sequence[str]:
    """The CUDA cards that this process may use, as `CUDA_VISIBLE_DEVICES` names them; none without CUDA."""
    environment = os.environ if environment is None else environment
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [card.strip() for card in named.split(",") if card.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    inherited |= {**more, "PYTHONUNBUFFERED": "1", "PYTHONPATH": import_path()}
    if os.environ.get("LAB_ASSETS"):
        inherited["LAB_ASSETS"] = str(cache_dir())
    return inherited


def _apart() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
