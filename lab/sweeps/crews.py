"""How many cells at once: by cores, memory and cards, and never more than there are cells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.experiment import Experiment
from lab.sweeps.jobs import Cell

#: Bytes that a worker takes before it has a model: Python, torch, transformers, rows and tokens.
_AROUND = 0.9e9
#: Bytes per parameter while training: weights, and in full fine-tuning gradients and two moments besides.
_PER_PARAMETER = {"lora": 6.0, "full": 18.0}
#: Bytes of activations; batches are counted in tokens, so that they hardly depend on the rows.
_ACTIVATIONS = 0.4e9
#: Seconds of work below which starting workers costs more than it brings.
_WORTH_WORKERS = 90.0
#: The share of the free memory that workers may take together.
_SHARE = 0.8


def crew_size(executor: str, workers: int, cells: Sequence[Cell], device: str, runs: Path) -> int:
    """How many workers a sweep has.

    Args:
        executor: Its name; "" to be chosen.
        workers: How many are asked for; 0 for the default.
        cells: What is to be done.
        device: Where it is computed.
        runs: The runs folder, whose runs tell how long a cell takes here.

    Raises:
        LabError: Fewer than one worker, or several in this process.
    """
    if workers < 0 or isinstance(workers, bool):
        raise LabError(f"workers = {workers!r}: give a number from 1 up, or 0 for as many as serve here.")
    if executor == "inline" and workers > 1:
        raise LabError(f"workers = {workers}: the executor 'inline' has one; take 'local' for several.")
    if executor == "inline":
        return 1
    if workers:
        return min(workers, len(cells))
    # in a process started by torchrun or accelerate, one run has all devices
    if "LOCAL_RANK" in os.environ or _is_short(cells, runs):
        return 1
    return default_workers(cells, device)


def default_workers(cells: Sequence[Cell], device: str = "auto") -> int:
    """As many workers as are fastest: one per core, or as many per card as fit, within the memory there is.

    Small runs are bound by arithmetic: two of one thread each do more than one of two threads, since no step
    waits for the slower half of a product (`lab bench` measures it).

    Args:
        cells: What is to be done; the largest decides.
        device: Where it is computed.
    """
    need = max(worker_bytes(cell.experiment) for cell in cells)
    if device in ("auto", "cuda") and (free := free_card_bytes()):
        return max(1, min(len(cells), card_workers(free, need)))
    if device not in ("auto", "cpu"):
        return 1
    import psutil

    fitting = int(_SHARE * psutil.virtual_memory().available // need)
    return max(1, min(len(cells), core_count(), fitting))


def _is_short(cells: Sequence[Cell], runs: Path) -> bool:
    """Whether the cells are done here before workers would have imported what they need."""
    from lab.estimates import estimate_seconds

    try:
        seconds = estimate_seconds(cells[0].experiment, runs).seconds
    except LabError:
        return True  # the cell itself will say what is wrong
    return len(cells) == 1 or seconds * len(cells) < _WORTH_WORKERS


def worker_bytes(experiment: Experiment) -> float:
    """Bytes of memory that one worker takes with this experiment, roughly and rather too many."""
    from lab.estimates import parameter_count

    parameters = parameter_count(experiment.base.model)
    return _AROUND + _ACTIVATIONS + parameters * _PER_PARAMETER[experiment.adapter.kind]


def card_workers(free: Sequence[float], need: float) -> int:
    """How many workers fit on cards: on each as often as its free memory holds one, at most once per core.

    Args:
        free: Free bytes of each card.
        need: Bytes of a worker.
    """
    return min(core_count(), sum(int(_SHARE * there // need) for there in free))


def free_card_bytes() -> list[float]:
    """Free bytes of each CUDA card that this process may use; empty without one."""
    import torch

    if not torch.cuda.is_available():
        return []
    found: list[Any] = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    return [float(value) for value in found]


def core_count() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
