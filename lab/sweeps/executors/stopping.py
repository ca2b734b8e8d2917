"""How a sweep, and a job in the middle, are stopped so that they can go on: the same for every executor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def check_wanted(should_stop: Callable[[], bool]) -> None:
    """End a sweep that somebody wants stopped.

    Raises:
        StoppedError: Somebody does.
    """
    if should_stop():
        from lab.training_stage import StoppedError

        raise StoppedError("The sweep was stopped; ask for it again to go on.")


class Stopper:
    """Follows the events of one job, and stops it where it is.

    Args:
        runs: The runs folder.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._training = ""

    def follow(self, event: dict[str, Any]) -> None:
        """Note whether the job trains, and which run."""
        kind, stage = event["kind"], event.get("stage", "")
        if kind == "status" and stage in ("train", "resume"):
            self._training = str(event.get("run", self._training))
        elif kind == "status" or (kind == "progress" and stage != "train"):
            self._training = ""

    def stop(self) -> None:
        """Ask a training to save a checkpoint and end; cut any other stage off.

        Raises:
            StoppedError: Nothing is being trained.
        """
        if self._training:
            with contextlib.suppress(OSError):  # at the next step again
                (self._runs / self._training / "stop").touch()
            return
        from lab.training_stage import StoppedError

        raise StoppedError("stopped; ask for it again to go on.")
