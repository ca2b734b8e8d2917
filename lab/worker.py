"""What `lab worker` does: takes tickets from the queue, oldest first, and runs them in this process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.work_queue import (
    Ticket,
    claimed,
    is_claimed,
    mark_stopped,
    queue_dir,
    save_ticket,
    slot_count,
    slot_held,
    stop_flag,
    sweep_queue,
    tickets,
)

#: Seconds between two looks into an empty queue.
_LOOK = 0.3
#: Seconds between two writes of how far a stage is; a change of stage is written at once.
_WRITE = 0.25
#: An experiment that kills its worker (out of memory, most of all) is not tried for ever.
_DEATHS = 3


def drain_queue(
    runs: str | Path | None = None,
    *,
    slot: int = 0,
    idle: float = 60.0,
    say: Callable[[str], None] = lambda _: None,
) -> bool:
    """Work on what waits, until nothing has come for a while, or a signal asks to leave.

    Args:
        runs: The runs folder.
        slot: Which slot to hold, from 1 up; 0 for the first free one.
        idle: Seconds without work after which it ends.
        say: Takes a line for the log.

    Returns:
        Whether there was a free slot.
    """
    folder = queue_dir(runs)
    folder.mkdir(parents=True, exist_ok=True)
    worker = _Worker(folder, say)
    with worker.signals_heeded():
        for number in [slot] if slot else range(1, slot_count() + 1):
            has_worked = False
            while True:
                with slot_held(folder, number) as is_mine:
                    if is_mine:
                        has_worked = True
                        worker.work(idle)
                # whoever submits from here on finds the slot free; what came before that is looked for again
                if not is_mine or worker.leaving or not worker.has_work():
                    break
            if has_worked:
                return True
    return False


class _Worker:
    """One process that works.

    Attributes:
        leaving: Whether a signal asked this process to end.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.runs = folder.parent
        self.leaving = False
        self._say = say
        self._report: _Report | None = None
        #: Tickets that could not be written, for a full disk, say; their work is done.
        self._unsaved: dict[str, Ticket] = {}

    def work(self, idle: float) -> None:
        """Take tickets until none has come for `idle` seconds."""
        sweep_queue(self.folder)
        end = time.monotonic() + idle
        while not self.leaving:
            if self._take_next():
                sweep_queue(self.folder)
                end = time.monotonic() + idle
            elif time.monotonic() >= end:
                return
            else:
                time.sleep(_LOOK)

    def has_work(self) -> bool:
        """Whether there is a ticket to take."""
        waiting = [t.id for t in tickets(self.runs) if t.state == "waiting" and t.id not in self._unsaved]
        return any(not is_claimed(self.folder, id) for id in waiting)

    def should_stop(self, id: str) -> bool:
        """Whether the ticket, or this process, was asked to stop."""
        return self.leaving or os.path.exists(stop_flag(self.folder, id))

    def save(self, ticket: Ticket) -> bool:
        """Write a ticket; what cannot be written now must not cost a run."""
        try:
            save_ticket(self.folder, ticket)
        except (LabError, OSError) as error:
            self._say(f"{ticket.id}: {error}")
            return False
        return True

    @contextlib.contextmanager
    def signals_heeded(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the present run so that it can go on later."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._heed) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heed(self, *_: object) -> None:
        is_urgent, self.leaving = self.leaving, True
        # a training saves a checkpoint and stops by itself; other stages lose nothing when they are cut off
        if self._report is not None and (is_urgent or not self._report.is_training):
            raise KeyboardInterrupt

    def _take_next(self) -> bool:
        """Work on the oldest ticket that nobody holds; False where there is none."""
        self._unsaved = {id: ticket for id, ticket in self._unsaved.items() if not self.save(ticket)}
        for waiting in tickets(self.runs):
            if waiting.state != "waiting" or waiting.id in self._unsaved:
                continue
            with claimed(self.folder, waiting.id) as ticket:
                if ticket is not None:
                    self._finish(self._done(ticket))
                    return True
        return False

    def _finish(self, ticket: Ticket) -> None:
        ended = replace(ticket, working="", stage="", done=0, total=0)
        self._say(f"{ticket.id}: {ticket.state} {ticket.run} {ticket.error}".rstrip())
        if ticket.state == "stopped":
            mark_stopped(self.runs, ticket.run)
        if ticket.ended:
            with contextlib.suppress(OSError):
                stop_flag(self.folder, ticket.id).unlink(missing_ok=True)
        if not self.save(ended):
            self._unsaved[ticket.id] = ended

    def _done(self, ticket: Ticket) -> Ticket:
        """Run a ticket; how it ended."""
        if os.path.exists(stop_flag(self.folder, ticket.id)):
            return replace(ticket, state="stopped")
        if ticket.state == "working":
            ticket = replace(ticket, deaths=ticket.deaths + 1)
            self._say(f"{ticket.id}: its worker died; going on")
        if ticket.deaths >= _DEATHS:
            reason = (
                f"Its worker died {ticket.deaths} times; perhaps there is too little memory. Lower "
                f"training.batch_tokens, or close other programs, and ask again: the run goes on."
            )
            return replace(ticket, state="failed", error=reason)
        report = _Report(self, replace(ticket, state="working", stage="prepare", error=""))
        self._say(f"{ticket.id}: begun")
        try:
            self._report = report  # from here on a signal may interrupt
            self._run(report)
            state, error = "done", ""
        except KeyboardInterrupt:
            state, error = "stopped", ""
        except Exception as failure:
            state, error = self._explained(failure)
        finally:
            self._report = None
        if state == "stopped" and self.leaving and not os.path.exists(stop_flag(self.folder, ticket.id)):
            state = "waiting"
        if state in ("stopped", "waiting"):
            for run in report.begun:
                mark_stopped(self.runs, run)
        return replace(report.ticket, state=state, error=error)

    def _run(self, report: _Report) -> None:
        report.write()
        from lab.experiment import Experiment
        from lab.pipeline import run

        asked = Experiment.from_dict(report.ticket.experiment)
        run(asked, runs=self.runs, twin=report.ticket.twin, on_event=report)

    def _explained(self, failure: Exception) -> tuple[str, str]:
        from lab.training_stage import StoppedError

        if isinstance(failure, StoppedError):
            return "stopped", ""
        if isinstance(failure, LabError):
            return "failed", str(failure)
        self._say("".join(traceback.format_exception(failure)).rstrip())
        return "failed", f"{type(failure).__name__}: {failure}"


class _Report:
    """The listener of one run: keeps its ticket up to date, and passes on that it should stop.

    Attributes:
        ticket: As it stands.
        is_training: Whether a training is under way, which stops by itself and saves a checkpoint.
        begun: The runs that are begun and not finished: a base, the run, its twin.
    """

    def __init__(self, worker: _Worker, ticket: Ticket) -> None:
        self.ticket = ticket
        self.is_training = False
        self._worker = worker
        self.begun: list[str] = []
        self._written = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event, as `lab.run` hands them out."""
        before = self.ticket
        if event["kind"] == "status":
            self._status(event)
        elif event["kind"] == "progress":
            self.is_training = event["stage"] == "train"
            done, total = int(event["done"]), int(event["total"])
            self.ticket = replace(before, stage=str(event["stage"]), done=done, total=total)
        now = self.ticket
        has_moved = (before.stage, before.run, before.working) != (now.stage, now.run, now.working)
        if has_moved or (now != before and time.monotonic() - self._written > _WRITE):
            self.write()
        self._obey()
        if event.get("stage") == "wait":
            self._wait(str(event["run"]))

    def write(self) -> None:
        """Write the ticket as it stands."""
        self._worker.save(self.ticket)
        self._written = time.monotonic()

    def _status(self, event: dict[str, Any]) -> None:
        stage, run = str(event["stage"]), str(event.get("run", ""))
        self.is_training = stage in ("train", "resume")
        if stage == "prepared":
            self.ticket = replace(self.ticket, run=run)
            return
        if stage == "begin":
            self.begun.append(run)
            stage = self.ticket.stage
        elif stage == "finished" and run in self.begun:
            del self.begun[self.begun.index(run) :]
            stage = "probe" if self.begun else stage
        elif stage == "resume":
            stage = "train"
        working = self.begun[-1] if self.begun else ""
        self.ticket = replace(self.ticket, stage=stage, working=working, done=0, total=0)

    def _obey(self) -> None:
        if not self._worker.should_stop(self.ticket.id):
            return
        if self.is_training:
            with contextlib.suppress(OSError):  # at the next step again
                (self._worker.runs / self.ticket.working / "stop").touch()
            return
        from lab.training_stage import StoppedError

        raise StoppedError(f"{self.ticket.run or 'The run'} was stopped; ask for it again to go on.")

    def _wait(self, run: str) -> None:
        """Wait for the other process here, where a stop is heard, and not in the pipeline."""
        from lab.store import RunFolder

        while RunFolder(self._worker.runs / run).is_locked():
            self._obey()
            time.sleep(_LOOK)
