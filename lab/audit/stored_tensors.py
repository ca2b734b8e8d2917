"""Tensors of a safetensors file, read one at a time at the places that its checked header gives.

Read and not mapped: pages of a mapped file count as memory of the process, 1.7 GB for an adapter of a 70B
model, and a file that gets shorter while it is mapped ends the process with a signal instead of an error.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lab.audit.safetensors_header import TensorInfo, UnreadableAdapterError

if TYPE_CHECKING:
    import torch

#: torch's names of the types that `DTYPE_BYTES` lists.
_TORCH = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
#: Bytes that are read at once, a multiple of every type's: as many as stay in a core's cache.
_PIECE = 2**19
#: Just below the 32 MB at which glibc stops keeping; the widest factor of a 70B model at rank 64 has 7 MB.
_KEPT = 31 * 2**20


class StoredTensors:
    """The tensors of one open file; `stored_tensors` opens it."""

    def __init__(self, file: BinaryIO, name: str, places: Mapping[str, TensorInfo]) -> None:
        import torch

        self._file, self._name, self._places = file, name, places
        self._piece = torch.empty(_PIECE, dtype=torch.uint8)
        # what glibc hands out again instead of giving it back to the system, where every page would be zeroed
        # anew, is measured by the largest block that was freed; nothing is written into this one
        torch.empty(_KEPT, dtype=torch.uint8)

    def read(self, name: str) -> torch.Tensor:
        """A tensor in float32, in memory of its own.

        Raises:
            UnreadableAdapterError: It holds NaN or infinity, or the file cannot be read or got shorter.
        """
        return self.read_scaled(name, 1.0)[0]

    def read_scaled(self, name: str, scaling: float) -> tuple[torch.Tensor, float]:
        """A tensor times a number, and its Frobenius norm, infinite beyond float32's square root.

        Raises:
            UnreadableAdapterError: As for `read`; of the tensor without the number.
        """
        import torch

        shape = self._places[name].shape
        found, done, norm = torch.empty(math.prod(shape)), 0, 0.0
        for piece in self._pieces(name):
            part = found[done : done + len(piece)].copy_(piece)
            norm = math.hypot(norm, _finite_norm(part, name))
            part.mul_(scaling)
            done += len(piece)
        return found.reshape(shape), norm * abs(scaling)

    def check(self, name: str) -> None:
        """Look through a tensor that need not be held.

        Raises:
            UnreadableAdapterError: As for `read`.
        """
        for piece in self._pieces(name):
            _finite_norm(piece.float(), name)

    def _pieces(self, name: str) -> Iterator[torch.Tensor]:
        """Its numbers as they are stored, in pieces that are gone when the next one is read."""
        import torch

        place = self._places[name]
        dtype = getattr(torch, _TORCH[place.dtype])
        for begin in range(place.begin, place.end, _PIECE):
            piece = self._piece[: min(_PIECE, place.end - begin)]
            try:
                self._file.seek(begin)
                size = self._file.readinto(memoryview(piece.numpy()))  # type: ignore[attr-defined, arg-type]
            except OSError as error:
                raise UnreadableAdapterError(f"{self._name} cannot be read ({error.strerror}).") from None
            if size < len(piece):
                raise UnreadableAdapterError(
                    f"{self._name} is damaged or cut off: it got shorter while it was read."
                )
            yield piece.view(dtype)


@contextlib.contextmanager
def stored_tensors(path: Path, places: Mapping[str, TensorInfo]) -> Iterator[StoredTensors]:
    """Open a file whose header was checked.

    Args:
        path: The safetensors file.
        places: What `read_header` says of it.

    Raises:
        UnreadableAdapterError: It cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnreadableAdapterError(f"{path.name} cannot be read ({error.strerror}).") from None
    with file:
        yield StoredTensors(file, path.name, places)


def _finite_norm(numbers: torch.Tensor, name: str) -> float:
    import torch

    # the norm of numbers of which one is NaN or infinite is so too, in one pass that needs no memory; that of
    # numbers near float32's end may be infinite as well, and only then they are looked at one by one
    norm = float(torch.linalg.vector_norm(numbers))
    if not (math.isfinite(norm) or numbers.isfinite().all()):
        raise UnreadableAdapterError(
            f"{name[:120]!r} holds NaN or infinity: nothing can be said of this adapter."
        )
    return norm
