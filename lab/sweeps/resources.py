"""How many workers a machine has room for: by its cores, its memory, and its cards."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.experiment import Base, Experiment
from lab.paths import expanded
from lab.work_queue import thread_share

_GIB = 2.0**30
#: Memory of a worker on the CPU before any model, and for each byte of a model's weights, in bytes: base,
#: copy, gradients or activations, and the merged model that probes. Measured: 1.3 to 1.7 GB for MiniLM.
_WORKER, _PER_WEIGHT = 1.0 * _GIB, 8.0
#: The same on a card: the context and cuBLAS, then weights, activations, optimizer.
_CARD_WORKER = 0.8 * _GIB
#: Parameters of bundled models, embeddings too; of others, by their files, their name, or guessed.
_PARAMETERS = {"minilm": 22.7e6, "smollm2": 135e6, "tiny": 0.3e6, "tiny-chat": 0.3e6}
_UNKNOWN = 125e6
#: How the id of a run ends, whose digits tell no size.
_HASH = re.compile(r"-[0-9a-f]{10}$")
#: Share of the memory that is left to others.
_SPARE = 0.2


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        index: What `CUDA_VISIBLE_DEVICES` calls it: its number, or a name such as "GPU-8f…".
        free: Free memory in bytes.
    """

    index: str
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
    weights = max((_weight_bytes(base) for base in {e.base for e in experiments}), default=4 * _UNKNOWN)
    # Adam keeps two values for every weight that is trained
    is_full = any(e.adapter.kind == "full" for e in experiments)
    return (_CARD_WORKER if on_card else _WORKER) + weights * (_PER_WEIGHT + (4 if is_full else 0))


def _weight_bytes(base: Base) -> float:
    """Bytes of a base's weights once they are loaded, whatever their files hold them in."""
    each = 0.5 if base.load_in_4bit else 2 if base.dtype == "bfloat16" else 4
    return _parameters(_bottom(base.model)) * each


def _bottom(model: str) -> str:
    """The pretrained model below presets that start from one another."""
    from lab.bases import is_preset
    from lab.presets import load_experiment

    seen: set[str] = set()
    with contextlib.suppress(LabError):  # its job will tell
        while is_preset(model) and model not in seen:
            seen.add(model)
            model = load_experiment(model).base.model
    return model


def _parameters(model: str) -> float:
    """Parameters of a pretrained model, or of a run by its id, which begins with the model's name."""
    from lab.estimates import named_parameters

    if model in _PARAMETERS:
        return _PARAMETERS[model]
    folder = expanded(model)
    if folder.is_dir() and (stored := _stored_parameters(folder)):
        return stored
    run = _HASH.sub("", model)
    below = [count for name, count in _PARAMETERS.items() if run.startswith(f"{name}-")]
    told = named_parameters(run.rpartition("/")[2]) or max(below, default=0.0)
    # a download that was cut off holds a part of the files
    return max(_stored_parameters(_hub_folder(model)), told) or _UNKNOWN


def _stored_parameters(folder: Path | None) -> float:
    """Parameters in the safetensors files of a folder, by their headers; 0 without any."""
    from safetensors import SafetensorError, safe_open

    count = 0.0
    for path in sorted(folder.glob("*.safetensors")) if folder else []:
        try:
            with safe_open(path, framework="np") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, OSError):  # half of it is there; most models are kept in 16 bits
            count += path.stat().st_size / 2
    return count


def _hub_folder(model: str) -> Path | None:
    """Where the hub's cache holds a model; None where it does not. Nobody is asked over a network."""
    if model.count("/") != 1:
        return None
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(model, local_files_only=True))
    except (OSError, ValueError):  # no name of a model, or one that is not there
        return None


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
    told = tuple(share | {"CUDA_VISIBLE_DEVICES": places[i % len(places)]} for i in range(count))
    why = "as asked" if wanted else f"{len(cards)} cards, {need / _GIB:.1f} GiB each job"
    return Team(count, told, why)


def _cards() -> list[Card]:
    """The CUDA cards that torch sees; none costs nothing but the import."""
    import torch

    if not torch.cuda.is_available():
        return []
    names = _card_names(torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    return [Card(name, float(torch.cuda.mem_get_info(i)[0])) for i, name in enumerate(names)]


def _card_names(count: int, visible: str) -> list[str]:
    """What to call the cards that torch counts: where only some are visible, number 0 may be another's."""
    named = [name.strip() for name in visible.split(",") if name.strip()]
    # CUDA stops reading at the first name that no card has
    return named[:count] if len(named) >= count else [str(i) for i in range(count)]
