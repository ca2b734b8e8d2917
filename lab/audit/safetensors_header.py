"""The header of a safetensors file, believed only where the file's own size bears it out.

A file from outside may lie: offsets that overlap or leave the file, shapes whose product has thousands of
digits, a header as large as memory. All of that is found from the header alone, before a tensor is read.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.errors import LabError

#: Bytes of one number, by the format's name for its type; nothing else is taken.
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
#: An adapter of 560 modules has a header of 0.2 MB; the format itself allows 100 MB.
LARGEST_HEADER = 16 * 1024 * 1024
MOST_TENSORS = 50_000
_MOST_AXES = 4
_LONGEST_NAME = 512


class UnreadableAdapterError(LabError):
    """Nothing can be said of an adapter: it is damaged, or not of a kind that is opened."""

    exit_code = 3


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor.

    Attributes:
        dtype: One of `DTYPE_BYTES`.
        shape: Its axes.
        begin: Its first byte in the file.
        end: The byte after its last one.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def shown(text: str, longest: int = 120) -> str:
    """Text from outside in one line that obeys nothing: escaped where it holds what cannot be printed."""
    return text[:longest] if text.isprintable() else repr(text[:longest])[1 : longest + 1]


def quoted(value: Any, longest: int = 60) -> str:
    """A value of a JSON file for a message: short, escaped, and no more than named where it has parts."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'table'}"
    return f"'{shown(value, longest)}'" if isinstance(value, str) else repr(value)[:longest]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors that a safetensors file holds, by name.

    Args:
        path: A regular file.

    Raises:
        UnreadableAdapterError: It is no safetensors file, is damaged, or its header does not fit its size.
    """
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise UnreadableAdapterError(f"{path.name} is no regular file.")
            start = file.read(8)
            if len(start) < 8:
                raise UnreadableAdapterError(f"{path.name} has {len(start)} bytes: no safetensors file.")
            (length,) = struct.unpack("<Q", start)
            if length > facts.st_size - 8:
                raise UnreadableAdapterError(
                    f"{path.name} is no safetensors file, or is cut off: its header would have "
                    f"{length:,} bytes, the file has {facts.st_size:,}."
                )
            if length > LARGEST_HEADER:
                raise UnreadableAdapterError(
                    f"{path.name}: a header of {length:,} bytes is not read; at most {LARGEST_HEADER:,} are."
                )
            text = file.read(length)
    except OSError as error:
        raise UnreadableAdapterError(f"{path.name} cannot be read ({error.strerror}).") from None
    table = parse_strict_json(text, f"{path.name}: its header")
    tensors = {
        name: _tensor(path.name, name, value) for name, value in table.items() if name != "__metadata__"
    }
    _check_places(path.name, tensors, facts.st_size - 8 - length)
    # the format counts from the end of the header
    return {n: replace(t, begin=t.begin + 8 + length, end=t.end + 8 + length) for n, t in tensors.items()}


def parse_strict_json(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object in which no name occurs twice and every number is finite.

    Args:
        text: The bytes, UTF-8.
        what: What they are, for the message.

    Raises:
        UnreadableAdapterError: They are anything else.
    """
    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)[:120]
        raise UnreadableAdapterError(f"{what} is no valid JSON ({reason}).") from None
    if not isinstance(found, dict):
        raise UnreadableAdapterError(f"{what} is no JSON object.")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _tensor(file: str, name: str, value: Any) -> TensorInfo:
    where = f"{file}: the tensor {quoted(name, 120)}"
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise UnreadableAdapterError(f"{where} has no proper name.")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise UnreadableAdapterError(f"{where} is not described as the format asks.")
    dtype, shape, places = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise UnreadableAdapterError(
            f"{where} has the type {quoted(dtype, 20)}; only {', '.join(DTYPE_BYTES)} are read."
        )
    if not _are_sizes(shape) or len(shape) > _MOST_AXES:
        raise UnreadableAdapterError(f"{where} has no proper shape.")
    if not _are_sizes(places) or len(places) != 2:
        raise UnreadableAdapterError(f"{where} has no proper place.")
    if math.prod(shape) * DTYPE_BYTES[dtype] != places[1] - places[0]:
        raise UnreadableAdapterError(
            f"{where} claims the shape {tuple(shape)}, which does not fit its bytes."
        )
    return TensorInfo(dtype, tuple(shape), places[0], places[1])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**40 for v in values)


def _check_places(file: str, tensors: dict[str, TensorInfo], data: int) -> None:
    if len(tensors) > MOST_TENSORS:
        raise UnreadableAdapterError(
            f"{file} claims {len(tensors):,} tensors; at most {MOST_TENSORS:,} are read."
        )
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != place:
            raise UnreadableAdapterError(
                f"{file}: the bytes of {name[:120]!r} overlap others or leave a gap."
            )
        place = tensor.end
    if place != data:
        raise UnreadableAdapterError(
            f"{file} is damaged or cut off: its tensors need {place:,} bytes, the file has {data:,}."
        )
