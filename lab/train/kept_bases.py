"""Base models that are kept between the runs of one process, as they were loaded; every run gets a copy.

Only what does many runs keeps them (`keep_bases`): a worker of a sweep. A copy is made before the model is
handed out, so nothing that a run does to its model can reach the next one, and the random generator is set
to where loading left it, so that a run is the same bit for bit as in a fresh process.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.train.models import LoadedBase

#: How many bases are kept: those of two seeds, or of a run and its poisoned base.
_MOST = 2
#: Bytes of weights above which a base is loaded anew: two copies of a large model are one too many.
_LARGEST = 1_000_000_000

_kept: OrderedDict[Hashable, tuple[LoadedBase, Any]] = OrderedDict()
_is_on = False


def keep_bases(on: bool = True) -> None:
    """Keep base models in this process from now on, or forget them and stop that."""
    global _is_on
    _is_on = on
    _kept.clear()


def are_kept() -> bool:
    """Whether this process keeps bases."""
    return _is_on


def kept_base(key: Hashable, load: Callable[[], LoadedBase]) -> LoadedBase:
    """A base as `load` returns it: from what is kept, or loaded now.

    Args:
        key: Everything that the loaded base depends on: files, labels, seed, precision.
        load: Loads it to the CPU; reseeds torch's generator first.
    """
    import torch

    if not _is_on:
        return load()
    if key not in _kept:
        base = load()
        if sum(p.numel() * p.element_size() for p in base.model.parameters()) > _LARGEST:
            return base
        _kept[key] = (base, torch.get_rng_state())
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    base, state = _kept[key]
    torch.set_rng_state(state)
    # the tokenizer is only read
    return replace(base, model=copy.deepcopy(base.model))
