"""What `lab audit` leaves in an audit's folder while it works, and how it hears that it should stop."""

from __future__ import annotations

import _thread
import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.files import write_json
from lab.signals import interrupted_by
from lab.store import RunFolder

#: Seconds between two looks for the file `stop`, and between two lines of progress.
_LOOK, _WRITE = 0.3, 0.25
_LONGEST_REASON = 600


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Work on an audit that `lab.audit.jobs` has prepared: hold its lock, and write down how it ends.

    Args:
        folder: The audit's folder.

    Yields:
        What takes the audit's events.

    Raises:
        LabError: There is no such folder.
    """
    if not (folder / "request.json").is_file():
        raise LabError(f"--job {folder.name}: there is no audit of this name.")
    if hasattr(os, "nice"):
        # pages, and whatever else a person does meanwhile, come first
        os.nice(10)
    job = RunFolder(folder)
    with job.lock(), _stop_heeded(folder):
        try:
            yield _Log(job)
        except KeyboardInterrupt:
            (folder / "stop").touch()
            raise
        except Exception as error:
            write_json(folder / "failure.json", _explained(error))
            raise
        finally:
            shutil.rmtree(folder / "upload", ignore_errors=True)


class _Log:
    """Takes events, and writes those that a person can follow."""

    def __init__(self, job: RunFolder) -> None:
        self._job, self._written = job, 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        is_status = event["kind"] == "status"
        if is_status or time.monotonic() - self._written > _WRITE:
            self._job.append_event(**event)
            self._written = time.monotonic()


def _explained(error: Exception) -> dict[str, Any]:
    if isinstance(error, LabError):
        return {"reason": str(error)[:_LONGEST_REASON], "exit_code": error.exit_code}
    # what nobody foresaw keeps its traceback, in the log
    return {"reason": f"{type(error).__name__}: {error}"[:_LONGEST_REASON], "exit_code": 1}


@contextlib.contextmanager
def _stop_heeded(folder: Path) -> Iterator[None]:
    """Let a file `stop`, or SIGTERM, end the work as Ctrl-C would: temporary files are removed."""
    # started by a shell's background job, this process would ignore SIGINT
    with interrupted_by(signal.SIGINT, signal.SIGTERM) as is_main:
        ended = threading.Event()
        if is_main:
            threading.Thread(target=_watch, args=(folder / "stop", ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()


def _watch(stop: Path, ended: threading.Event) -> None:
    while not ended.wait(_LOOK):
        if stop.exists():
            _interrupt()
            return


def _interrupt() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # also out of a wait for the network
    else:
        _thread.interrupt_main()
