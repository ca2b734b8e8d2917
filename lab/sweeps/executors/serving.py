"""A worker process of the local executor: jobs come in as lines, events and outcomes go out as lines.

Lines instead of pickles, and a program of its own instead of a fork or a spawned copy: it starts the same
from a script without a `__main__` guard, a notebook and a server, and a library that prints breaks
nothing, since whatever is printed goes to standard error.
"""

from __future__ import annotations

import _thread
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from lab.sweeps.jobs import SweepJob
from lab.sweeps.work import do_job

#: Seconds between two lines of how far a stage is; people look no faster, and the reader has several workers.
_QUIET = 0.25


def main() -> None:
    """Do jobs until standard input ends; stop what is being done when it ends in the middle."""
    runs, device = Path(sys.argv[1]), sys.argv[2]
    out = _own_output()
    jobs = _jobs_from(sys.stdin)
    talk = _Talk(out)
    talk.say({"kind": "ready", "pid": os.getpid()})
    while (line := jobs.get()) is not None:
        job = SweepJob(**{**line, "needs": tuple(line["needs"])})
        outcome = do_job(job, runs, device, talk.event)
        talk.say({"kind": "outcome", "line": outcome.line, "seconds": outcome.seconds})


def _own_output() -> IO[str]:
    """Standard output for this protocol alone; prints of others go to standard error from now on."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return kept


def _jobs_from(stream: IO[str]) -> queue.Queue[dict[str, Any] | None]:
    """Lines as they come; None at the end, when the work in hand is interrupted too: nobody waits for it."""
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
    busy = threading.Event()

    def read() -> None:
        for text in stream:
            busy.set()
            lines.put(json.loads(text))
        lines.put(None)
        if busy.is_set():
            _thread.interrupt_main()

    threading.Thread(target=read, daemon=True).start()
    return lines


class _Talk:
    """What goes out: whole lines, progress not too often."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._last = 0.0

    def say(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def event(self, event: dict[str, Any]) -> None:
        if event["kind"] == "progress":
            now = time.monotonic()
            if now - self._last < _QUIET and event["done"] < event["total"]:
                return
            self._last = now
        self.say({"kind": "event", "event": _plain(event)})


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    """An event as JSON can hold it; spectra and the like are in the run's own folder."""
    if event["kind"] in ("status", "progress", "headline"):
        return {key: value for key, value in event.items() if key not in ("sigma", "alignment")}
    return {key: event[key] for key in ("kind", "step", "time", "stage", "run") if key in event}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
