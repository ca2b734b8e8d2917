"""How many workers a machine has room for: by its cores, its memory, and its cards."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.experiment import Experiment
from lab.train.models import MODELS
from lab.work_queue import thread_share

_GIB = 2.0**30
#: Memory of a worker on the CPU before any model, and for each byte of a model's weights, in bytes: base,
#: copy, gradients or activations, and the merged model that probes. Measured: 1.3 to 1.7 GB for MiniLM.
_WORKER, _PER_WEIGHT = 1.0 * _GIB, 8.0
#: The same on a card: the context and cuBLAS, then weights, activations, optimizer.
_CARD_WORKER = 0.8 * _GIB
#: Bytes of the weights of bundled models, float32; of others, by their files or guessed.
_WEIGHTS = {"minilm": 90e6, "smollm2": 540e6, "tiny": 1e6, "tiny-chat": 1e6}
_UNKNOWN = 500e6
#: Share of the memory that is left to others.
_SPARE = 0.2


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        index: Its number.
        free: Free memory in bytes.
    """

    index: int
    free: float


@dataclass(frozen=True)
class Team:
    """The workers that a sweep will have.

    Attributes:
        count: How many.
        environments: What each is told beside the environment.
        why: What bounds their number, for people.
    """

    count: int
    environments: tuple[dict[str, str], ...]
    why: str


def choose_team(
    asked: int | str,
    jobs: int,
    experiments: Sequence[Experiment],
    device: str,
    *,
    cards: Callable[[], Sequence[Card]] | None = None,
) -> Team:
    """Choose how many workers to have, and what each is told of threads and cards.

    One worker per core with one thread each is fastest for models of this size (`lab bench`), as long as
    memory allows.

    Args:
        asked: A number, or "auto".
        jobs: How many jobs there are at most to do; more workers would idle.
        experiments: Of the sweep; the largest model decides.
        device: "auto", "cpu", "cuda" or "mps".
        cards: Tells the cards and their free memory; torch's by default.

    Raises:
        LabError: It is neither a number from 1 up nor "auto".
    """
    wanted = worker_count(asked)
    found = [] if device in ("cpu", "mps") else list((cards or _cards)())
    if found:
        return _on_cards(wanted, jobs, found, need_bytes(experiments, on_card=True))
    cores, need = core_count(), need_bytes(experiments)
    by_memory = max(1, int(available_bytes() * (1 - _SPARE) / need))
    count, why = min((cores, f"{cores} cores"), (by_memory, f"memory, {need / _GIB:.1f} GiB each"))
    if device == "mps" or (device == "auto" and sys.platform == "darwin"):
        count, why = 1, "one card"
    if wanted:
        count, why = wanted, "as asked"
    count = max(1, min(count, jobs))
    return Team(count, (thread_share(count),) * count, why)


def worker_count(asked: int | str) -> int:
    """How many workers are asked for; 0 for "auto".

    Raises:
        LabError: Neither a whole number from 1 up, nor "auto".
    """
    text = str(asked).strip()
    if text == "auto":
        return 0
    if isinstance(asked, bool) or not text.isdecimal() or int(text) < 1:
        raise LabError(f"workers = {asked!r}: give a number from 1 up, or 'auto'.")
    return int(text)


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def available_bytes() -> float:
    """Memory that may still be taken: what is free, within the bounds of a container."""
    import psutil

    free = float(psutil.virtual_memory().available)
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text().strip()
        return min(free, float(most) - float(used)) if most != "max" else free
    except (OSError, ValueError):
        return free


def need_bytes(experiments: Sequence[Experiment], *, on_card: bool = False) -> float:
    """Memory that a worker may take for the largest of some experiments, an estimate on the safe side."""
    weights = max((_weights(e.base.model) for e in experiments), default=_UNKNOWN)
    # Adam keeps two values for every weight that is trained
    is_full = any(e.adapter.kind == "full" for e in experiments)
    return (_CARD_WORKER if on_card else _WORKER) + weights * (_PER_WEIGHT + (4 if is_full else 0))


def _weights(model: str) -> float:
    if model in MODELS:
        return _WEIGHTS.get(model, _UNKNOWN)
    folder = Path(model).expanduser()
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")] if folder.is_dir() else []
    if not sizes:
        from lab.presets import load_experiment, preset_names

        return _weights(load_experiment(model).base.model) if model in preset_names() else _UNKNOWN
    return float(sum(sizes))


def _on_cards(wanted: int, jobs: int, cards: Sequence[Card], need: float) -> Team:
    """Several workers on each card where memory allows, one after the other over the cards."""
    room = [max(1, int(card.free * (1 - _SPARE) / need)) for card in cards]
    # more than a worker per core would starve: each has a Python process that feeds its card
    count = wanted or min(sum(room), max(len(cards), core_count()))
    count = max(1, min(count, jobs))
    places = [
        card.index for depth in range(max(room)) for card, n in zip(cards, room, strict=True) if n > depth
    ]
    share = thread_share(count)
    told = tuple(share | {"CUDA_VISIBLE_DEVICES": str(places[i % len(places)])} for i in range(count))
    why = "as asked" if wanted else f"{len(cards)} cards, {need / _GIB:.1f} GiB each job"
    return Team(count, told, why)


def _cards() -> list[Card]:
    """The CUDA cards that torch sees; none costs nothing but the import."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = [n for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n.strip().isdecimal()]
    count = torch.cuda.device_count()
    indices = [int(n) for n in named] if len(named) == count else list(range(count))
    return [Card(indices[i], float(torch.cuda.mem_get_info(i)[0])) for i in range(count)]
