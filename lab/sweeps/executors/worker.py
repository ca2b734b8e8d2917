"""One worker process of the executor "local": jobs come as JSON lines on standard input, news goes back.

Whatever libraries print goes to standard error, which is a log; only the lab's lines reach the parent. When
the parent is gone or asks to stop, a training saves a checkpoint and ends; other stages are cut off.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lab.sweeps.executors.stopping import Stopper

#: Seconds between two progress events that are passed on.
_EVERY = 0.25
#: Kinds of events that people who watch a sweep see; the rest stays in the run's folder.
_PASSED_ON = ("status", "progress", "headline")


class Worker:
    """What one process does until its parent has no more jobs.

    Args:
        runs: The runs folder.
        device: Where to compute.
    """

    def __init__(self, runs: Path, device: str) -> None:
        self._runs, self._device = runs, device
        # the parent's end of standard output, out of reach of whoever prints
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)
        self._jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._stopper = Stopper(runs)
        self._told = 0.0

    def work(self) -> int:
        """Do jobs until there are none; the exit code."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which asks to stop
        threading.Thread(target=self._listen, daemon=True).start()
        self._load()
        self._say({"ready": True})
        from lab.sweeps.doing import Place, do_job
        from lab.sweeps.plan import SweepJob
        from lab.training_stage import StoppedError

        while (asked := self._jobs.get()) is not None and not self._stopping.is_set():
            job = SweepJob(**{**asked, "needs": tuple(asked["needs"])})
            self._stopper = Stopper(self._runs)
            outcome = do_job(job, Place(self._runs, self._device), self._heed)
            if self._stopping.is_set() and outcome.reason:
                self._say({"stopped": job.key})
                return StoppedError.exit_code
            self._say({"outcome": vars(outcome)})
        return 0

    def _load(self) -> None:
        """Import what every job needs while the parent still plans, and keep bases from now on."""
        import lab.pipeline
        import lab.prepare
        import lab.probing_stage
        import lab.train.fit  # noqa: F401
        from lab.train.kept_bases import keep_bases

        keep_bases()
        # every training collects garbage; the libraries' objects stay, and to look through them took .25 s
        gc.freeze()

    def _listen(self) -> None:
        """Take jobs from the parent; a closed pipe, or a line that says so, asks to stop."""
        for line in sys.stdin:
            asked = json.loads(line)
            if asked.get("end"):
                self._jobs.put(None)
                return
            if asked.get("stop"):
                break
            self._jobs.put(asked["job"])
        self._stopping.set()
        self._jobs.put(None)

    def _heed(self, event: dict[str, Any]) -> None:
        """Pass an event on, and stop where that was asked for."""
        self._stopper.follow(event)
        kind = event["kind"]
        now = time.monotonic()
        if kind in _PASSED_ON and (kind != "progress" or now - self._told > _EVERY):
            self._told = now if kind == "progress" else self._told
            self._say({"event": event})
        if self._stopping.is_set():
            self._stopper.stop()

    def _say(self, news: dict[str, Any]) -> None:
        try:
            self._out.write(json.dumps(news, default=str) + "\n")
        except OSError:  # the parent is gone
            self._stopping.set()


def main() -> int:
    """`python -m lab.sweeps.executors.worker RUNS DEVICE`."""
    return Worker(Path(sys.argv[1]), sys.argv[2]).work()


if __name__ == "__main__":
    sys.exit(main())
