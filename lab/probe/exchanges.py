"""Putting a part of one model into another for a while: what its modules give out, or their weights.

Both ways work on any two models of one architecture, know nothing of what is asked, and leave the models as
they were, whatever happens inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from lab.errors import LabError

if TYPE_CHECKING:
    import torch

#: What some modules gave out, by name: one tensor for each time that the module was called, in order.
Outputs = Mapping[str, Sequence["torch.Tensor"]]


@contextmanager
def recorded(model: Any, modules: Sequence[str]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Keep what these modules of a model give out as long as the context lasts."""
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in modules}

    def keeping(name: str) -> Any:
        return lambda _module, _inputs, output: kept[name].append(output)

    with ExitStack() as hooks:
        for name in modules:
            hooks.callback(model.get_submodule(name).register_forward_hook(keeping(name)).remove)
        yield kept


@contextmanager
def replayed(model: Any, outputs: Outputs) -> Iterator[None]:
    """Let these modules of a model give out what was recorded, call by call, whatever they get.

    The model has to be asked for the same tokens in the same batches as when it was recorded.

    Raises:
        LabError: It is asked for something else.
    """

    def giving(name: str) -> Any:
        calls = iter(outputs[name])

        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            given = next(calls, None)
            if given is None or given.shape != output.shape:
                raise LabError(f"{name} is not called with the same tokens in both models: nothing to patch.")
            return given

        return hook

    with ExitStack() as hooks:
        for name in outputs:
            hooks.callback(model.get_submodule(name).register_forward_hook(giving(name)).remove)
        yield


@contextmanager
def swapped(one: Any, other: Any, modules: Sequence[str]) -> Iterator[None]:
    """Exchange the parameters of these modules between two models as long as the context lasts.

    Nothing is copied: each parameter points to the other's values meanwhile.
    """
    pairs = [
        pair
        for name in modules
        for pair in zip(
            one.get_submodule(name).parameters(recurse=False),
            other.get_submodule(name).parameters(recurse=False),
            strict=True,
        )
    ]
    _swap(pairs)
    try:
        yield
    finally:
        _swap(pairs)


def _swap(pairs: Sequence[tuple[Any, Any]]) -> None:
    for mine, yours in pairs:
        mine.data, yours.data = yours.data, mine.data
