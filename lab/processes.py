"""One process or several: who writes, and how the others learn what was decided.

Under `accelerate launch -m lab` or `torchrun -m lab` every process goes the same way through the pipeline.
The main one locks, downloads, probes and writes; the others train along and wait. With one process
everything here does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0 or world_size() == 1


def agree(value: T) -> T:
    """The main process's value, on every process."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _state()
    box: list[Any] = [value]
    broadcast_object_list(box, from_process=0)
    return box[0]


def wait() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        _state().wait_for_everyone()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block before the others: it fetches and fills caches."""
    if world_size() == 1:
        yield
        return
    with _state().main_process_first():
        yield


def _state() -> Any:
    # small models are trained on CPUs in tests, and gloo is what CPUs have
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
