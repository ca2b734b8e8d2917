"""Executors: who does the jobs of a sweep. They get jobs, hand back outcomes, and know nothing of grids."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lab.errors import LabError
from lab.registry import Entry, lookup
from lab.sweeps.doing import Outcome, Place
from lab.sweeps.plan import SweepJob
from lab.sweeps.schedule import Schedule


@dataclass(frozen=True)
class Setting:
    """What an executor is told.

    Attributes:
        place: Where runs lie, and on what is computed.
        workers: How many jobs are done at once.
        folder: Takes logs and the like; it is there.
        address: Of a Ray cluster, "auto" or HOST:PORT; "" for this machine alone.
        environments: What each worker is told beside the environment: threads, and its card.
        need: Memory that a job may take in bytes, an estimate.
        should_stop: Asked now and then; True ends the sweep so that it can go on later.
    """

    place: Place
    workers: int
    folder: Path
    address: str = ""
    environments: tuple[dict[str, str], ...] = ()
    need: float = 0.0
    should_stop: Callable[[], bool] = field(default=lambda: False)


class Pool(Protocol):
    """What an executor opens: workers that take jobs, several plans one after the other."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, *_: object) -> None: ...

    def run(
        self,
        jobs: Schedule,
        on_begin: Callable[[SweepJob], None],
        on_end: Callable[[Outcome], None],
        on_event: Callable[[SweepJob, dict[str, Any]], None],
    ) -> None:
        """Do every job; `on_begin`, `on_end` and `on_event` are called in the thread that called this.

        Raises:
            StoppedError: `should_stop` said so; every job that was under way can go on later.
            KeyboardInterrupt: Likewise.
        """
        ...


def split_address(address: str) -> tuple[str, int]:
    """Host and port of a Ray cluster's address; nobody is asked.

    Raises:
        LabError: It is no HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise LabError(f"--address {address!r}: write auto or HOST:PORT, for example 10.0.0.1:6379.")
    return host, int(port)


@dataclass(frozen=True)
class Executor(Entry):
    """A way to do jobs.

    Attributes:
        pool: Where its pool is: "module:class", which takes a `Setting`.
    """

    pool: str

    def open(self, setting: Setting) -> Pool:
        """Its workers; a context manager.

        Raises:
            LabError: What it needs is not installed, or cannot be reached.
        """
        module, _, name = self.pool.partition(":")
        made: Pool = getattr(importlib.import_module(module), name)(setting)
        return made


EXECUTORS: dict[str, Executor] = {
    e.name: e
    for e in (
        Executor(
            name="inline",
            goal="one job after the other in this process: simple, and what a debugger can look into",
            paper="this lab",
            pool="lab.sweeps.executors.inline:InlinePool",
        ),
        Executor(
            name="local",
            goal="worker processes on this machine, each with its share of the cores, or of a card",
            paper="this lab",
            pool="lab.sweeps.executors.local:LocalPool",
        ),
        Executor(
            name="ray",
            goal="tasks on a Ray cluster of many machines, with or without a disk that they share",
            paper="Moritz et al. 2018, arXiv 1712.05889",
            pool="lab.sweeps.executors.on_ray:RayPool",
        ),
    )
}


def find_executor(name: str) -> Executor:
    """An executor by name.

    Raises:
        LabError: There is none of that name; lists the valid ones.
    """
    return lookup(EXECUTORS, name, "executor")
