"""Registries whose entries are files: `data/<folder>/<name>.toml`, one entry each."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from lab.errors import LabError
from lab.paths import data_dir


class _Named(Protocol):
    @property
    def name(self) -> str: ...


EntryType = TypeVar("EntryType")
NamedType = TypeVar("NamedType", bound=_Named)


class FileRegistry(Mapping[str, EntryType]):
    """A registry that is read at first use, so that an import reads no files.

    Args:
        folder: The name of a folder of the lab's data.
        load: Reads such a folder; it should remember what it read.
    """

    def __init__(self, folder: str, load: Callable[[Path], Mapping[str, EntryType]]) -> None:
        self._folder, self._load = folder, load

    def _entries(self) -> Mapping[str, EntryType]:
        return self._load(data_dir() / self._folder)

    def __getitem__(self, name: str) -> EntryType:
        return self._entries()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries())

    def __len__(self) -> int:
        return len(self._entries())


def read_entry(path: Path, parse: Callable[[dict[str, Any]], NamedType]) -> NamedType:
    """Read the entry of one TOML file, which has the file's name.

    Args:
        path: The file.
        parse: Makes the entry of the file's table; may raise pydantic's ValidationError.

    Raises:
        LabError: The file is malformed (the message names file and field), or its entry has another name.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path} is not a readable TOML file: {error}.") from error
    try:
        found = parse(raw)
    except ValidationError as error:
        raise LabError(f"{path}: {_sentence(error)}.") from error
    if found.name != path.stem:
        raise LabError(f"{path}: field 'name': {found.name!r} must be the file's name, {path.stem!r}.")
    return found


def read_entries(
    folder: Path, parse: Callable[[dict[str, Any]], NamedType], what: str
) -> dict[str, NamedType]:
    """Read every entry of a folder, by name.

    Args:
        folder: A folder of `<name>.toml` files.
        parse: Makes an entry of a file's table; may raise pydantic's ValidationError.
        what: What the entries are, in the plural: "cohorts".

    Raises:
        LabError: A file is malformed, or there is none.
    """
    found = {path.stem: read_entry(path, parse) for path in sorted(folder.glob("*.toml"))}
    if not found:
        raise LabError(f"{folder} holds no {what} (files `<name>.toml`).")
    return found


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not first["loc"]:
        field, _, rest = message.partition(": ")
        return f"field {field!r}: {rest}"
    return f"field {'.'.join(str(part) for part in first['loc'])!r}: {message}"
