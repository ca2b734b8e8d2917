"""An adapter that arrives as a zip, checked as a whole before a byte of it is written.

An archive from outside may name places outside its folder, expand to terabytes, hold entries that share their
bytes, or read differently in another program. All of that is found from its directory and the headers of its
entries; then two files are taken out under plain names, counted while they are written, and nothing else.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from lab.audit.adapter_config import LARGEST_CONFIG
from lab.audit.adapter_files import (
    CONFIG,
    PICKLES,
    WEIGHTS,
    AdapterFiles,
    left_aside,
    open_adapter,
)
from lab.audit.safetensors_header import UnreadableAdapterError, quoted, shown
from lab.errors import LabError
from lab.files import writing_to

#: Bytes of an archive, and of everything in it once it is unpacked.
LARGEST_ARCHIVE, LARGEST_TOTAL = 4 * 1024**3, 8 * 1024**3
MOST_ENTRIES = 1_000
#: How many times larger than in the archive: weights reach 1.2, a fresh adapter whose B is zero reaches 2,
#: JSON 10, and a bomb 1,000. Entries of up to `_SMALL` bytes may be all blanks.
HIGHEST_RATIO = 100
_SMALL = 1024 * 1024
_LONGEST_NAME = 240
_DEEPEST = 4
#: What is read at once, and so the most that the directory may have: 1,000 entries need a third of it.
_PIECE = 1024 * 1024
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED, _SIZES_FOLLOW = 0x1 | 0x40 | 0x2000, 0x8
#: An entry whose sizes follow it has at most so many bytes after its data: a mark, a CRC, two sizes.
_LONGEST_DESCRIPTOR = 24
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".whl")


@dataclass(frozen=True)
class UnpackedAdapter:
    """The two files that were taken out of an archive.

    Attributes:
        weights: The safetensors file, its configuration beside it: what `open_adapter` takes.
        notes: What stayed in the archive.
    """

    weights: Path
    notes: tuple[str, ...]


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[AdapterFiles]:
    """An adapter wherever it lies: a folder, a safetensors file, a run or a zip.

    A zip is unpacked into a temporary folder that is gone after the `with` block; so are the files that the
    adapter is read from.

    Args:
        path: What `open_adapter` takes, or a file that ends in ".zip".

    Raises:
        LabError: There is nothing at this path.
        UnreadableAdapterError: What is there is damaged, or not of a kind that is opened.
    """
    path = Path(path)
    if path.suffix.lower() != ".zip" or os.path.isdir(path):
        yield open_adapter(path)
        return
    with tempfile.TemporaryDirectory(prefix="lab-adapter-", ignore_cleanup_errors=True) as scratch:
        unpacked = unpack_adapter(path, Path(scratch) / "files")
        found = open_adapter(unpacked.weights)
        yield replace(found, name=path.stem, notes=(*unpacked.notes, *found.notes))


def unpack_adapter(archive: Path | BinaryIO, folder: Path, largest: int | None = None) -> UnpackedAdapter:
    """Take the one adapter out of a zip: its configuration and its safetensors file, and nothing else.

    Args:
        archive: The zip: a path, or a file open for reading that can seek.
        folder: A folder that is not there yet, in one that is.
        largest: Bytes of everything in it once it is unpacked; `LARGEST_TOTAL` if not given.

    Raises:
        LabError: There is no such archive, or the folder is there already or cannot be written.
        UnreadableAdapterError: The archive is damaged, hostile, too large, or holds no adapter, several, or
            one that is a pickle; the sentence says what, and the folder is not there.
    """
    name = shown(Path(str(getattr(archive, "name", ""))).name or "The archive")
    with _as_file(archive, name) as file:
        with _reading(name):
            size = file.seek(0, os.SEEK_END)
            if size > LARGEST_ARCHIVE:
                raise UnreadableAdapterError(
                    f"{name} has {size:,} bytes; archives of up to {LARGEST_ARCHIVE:,} are read."
                )
            held = zipfile.ZipFile(_InPieces(file, name))
            _check(held, file, size, name, LARGEST_TOTAL if largest is None else largest)
            config, weights = _choose([i.filename for i in held.infolist() if not i.is_dir()], name)
            if held.getinfo(config).file_size > LARGEST_CONFIG:
                raise UnreadableAdapterError(f"{name}: {CONFIG} has more than {LARGEST_CONFIG:,} bytes.")
        target = folder / weights.rpartition("/")[2]
        with _all_or_nothing(folder):
            for entry, path in ((config, folder / CONFIG), (weights, target)):
                with writing_to(path, "another folder"), path.open("xb") as sink:
                    for piece in _pieces(held, entry, name):
                        sink.write(piece)
    return UnpackedAdapter(target, _notes(held, {config, weights}))


class _InPieces(io.BufferedIOBase):
    """A file that never hands out more than a piece: a directory is as large in memory as it claims to be."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.seek, self.tell = file.seek, file.tell  # type: ignore[method-assign]

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _PIECE:
            raise UnreadableAdapterError(
                f"{self._name}: a directory of {size:,} bytes is not read; at most {_PIECE:,} are."
            )
        return self._file.read(_PIECE if size is None or size < 0 else size)


@contextlib.contextmanager
def _as_file(archive: Path | BinaryIO, name: str) -> Iterator[BinaryIO]:
    if not isinstance(archive, Path):
        yield archive
        return
    # a pipe would wait for ever; Path.is_file raises where a path is too long to be asked after
    if not os.path.isfile(archive):
        raise LabError(f"There is no archive at {shown(str(archive), 250)}: give a zip file.")
    with contextlib.ExitStack() as stack:
        with _reading(name):
            file = stack.enter_context(archive.open("rb"))
        yield file


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Whatever `zipfile` finds wrong, in one sentence."""
    try:
        yield
    except NotImplementedError as error:
        raise UnreadableAdapterError(f"{name} asks for what is not supported ({_words(error)}).") from None
    # `zipfile` leaves many mistakes to what it calls: seeks before the start, names that are no UTF-8, …
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
        *(ValueError, RuntimeError, OverflowError, struct.error),
    ) as error:
        raise UnreadableAdapterError(
            f"{name} is no zip archive, or is cut off or damaged ({_words(error)})."
        ) from None


def _words(error: Exception) -> str:
    return shown(str(error).rstrip(".") or "it ends too early")


def _check(held: zipfile.ZipFile, file: BinaryIO, size: int, name: str, largest: int) -> None:
    entries = held.infolist()
    if len(entries) > MOST_ENTRIES:
        raise UnreadableAdapterError(
            f"{name} holds {len(entries):,} entries; archives of up to {MOST_ENTRIES:,} are read."
        )
    seen: set[str] = set()
    for entry in entries:
        where = f"{name}: the entry {quoted(entry.orig_filename, 80)}"
        if trick := _name_trick(entry):
            raise UnreadableAdapterError(f"{where} has {trick} in its name; nothing was unpacked.")
        key = unicodedata.normalize("NFC", entry.filename.rstrip("/")).casefold()
        if key in seen:
            raise UnreadableAdapterError(f"{where} has a name that occurs twice.")
        seen.add(key)
        if fault := _fault(entry):
            raise UnreadableAdapterError(f"{where} {fault}.")
    total = sum(entry.file_size for entry in entries)
    if total > largest:
        raise UnreadableAdapterError(f"{name} would unpack to {total:,} bytes; up to {largest:,} are taken.")
    if total > _SMALL and total > HIGHEST_RATIO * size:
        raise UnreadableAdapterError(
            f"{name} would unpack to {total / size:,.0f} times its size, as no adapter does."
        )
    _check_places(held, file, name)


def _name_trick(entry: zipfile.ZipInfo) -> str:
    """What makes a name more than a plain relative path; "" for nothing."""
    name = entry.orig_filename
    steps = name.removesuffix("/").split("/")
    tricks = {
        "control or invisible characters": not name.isprintable(),
        "a backslash": "\\" in name,
        "an absolute path": name.startswith("/"),
        "a drive letter or a colon": ":" in name,
        "a step out of its folder": ".." in steps,
        "an empty step": "" in steps or "." in steps,
        "too many characters": len(name) > _LONGEST_NAME,
        "another name": name != entry.filename,
    }
    return next((trick for trick, is_there in tricks.items() if is_there), "")


def _fault(entry: zipfile.ZipInfo) -> str:
    """Why an entry is not read; "" if it may be."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    faults = {
        "is encrypted": entry.flag_bits & _ENCRYPTED,
        "is a link": kind == stat.S_IFLNK,
        "is no regular file": kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK),
        f"is compressed by method {entry.compress_type}; only stored and deflated entries are read": (
            entry.compress_type not in _METHODS
        ),
        "lies about its size": entry.compress_type == zipfile.ZIP_STORED
        and entry.compress_size != entry.file_size,
        f"would unpack to more than {HIGHEST_RATIO} times its size, as no adapter does": (
            entry.file_size > max(_SMALL, HIGHEST_RATIO * entry.compress_size)
        ),
    }
    return next((fault for fault, is_there in faults.items() if is_there), "")


def _check_places(held: zipfile.ZipFile, file: BinaryIO, name: str) -> None:
    """Entries follow each other from the first byte to the directory.

    Entries that share bytes are bombs; bytes of no entry are where other programs could find other files.
    """
    place, slack = 0, 0
    for entry in sorted(held.infolist(), key=lambda entry: entry.header_offset):
        if not place <= entry.header_offset <= place + slack:
            break
        file.seek(entry.header_offset)
        header = file.read(zipfile.sizeFileHeader)  # type: ignore[attr-defined]
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise UnreadableAdapterError(f"{name} is damaged: {entry.filename[:80]!r} is not in its place.")
        lengths = struct.unpack("<HH", header[26:30])
        place = entry.header_offset + len(header) + sum(lengths) + entry.compress_size
        slack = _LONGEST_DESCRIPTOR if entry.flag_bits & _SIZES_FOLLOW else 0
    else:
        if place <= held.start_dir <= place + slack:
            return
    raise UnreadableAdapterError(f"{name} is damaged or hostile: its entries overlap or leave gaps.")


def _choose(files: Sequence[str], name: str) -> tuple[str, str]:
    """The configuration and the weights of the one adapter."""
    configs = [file for file in files if file.rpartition("/")[2] == CONFIG]
    if len(configs) > 1:
        first = " and ".join(repr(c.rpartition("/")[0][:60] or "its root") for c in sorted(configs)[:2])
        raise UnreadableAdapterError(
            f"{name} holds {len(configs)} adapters, the first in {first}; audit each alone."
        )
    if not configs:
        raise UnreadableAdapterError(_without_adapter(files, name))
    [config] = configs
    if config.count("/") > _DEEPEST:
        raise UnreadableAdapterError(f"{name}: its adapter lies more than {_DEEPEST} folders deep.")
    folder = config.removesuffix(CONFIG)
    beside = [f for f in files if f.rpartition("/")[0] == folder.rstrip("/")]
    weights = [f for f in beside if f.endswith(".safetensors")]
    if f"{folder}{WEIGHTS}" in weights:
        return config, f"{folder}{WEIGHTS}"
    if len(weights) > 1:
        raise UnreadableAdapterError(f"{name} holds {len(weights)} safetensors files, none named {WEIGHTS}.")
    if not weights:
        raise UnreadableAdapterError(_without_adapter(beside, name))
    return config, weights[0]


def _without_adapter(files: Sequence[str], name: str) -> str:
    for file in sorted(files):
        if file.lower().endswith(PICKLES):
            return (
                f"{name}: {file[:80]!r} is not opened: loading it can run code; "
                "save the adapter as safetensors."
            )
        if file.lower().endswith(_ARCHIVES):
            return f"{name} holds another archive, {file[:80]!r}; give the one with the adapter."
    return f"{name} holds no adapter: there should be {CONFIG} and {WEIGHTS} in one folder."


@contextlib.contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    if os.path.lexists(folder):
        raise LabError(f"There is something at {folder} already; choose a folder that is not there yet.")
    with writing_to(folder, "another folder"):
        folder.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _pieces(held: zipfile.ZipFile, entry: str, name: str) -> Iterator[bytes]:
    """The content of an entry, whose size is counted and not believed."""
    claimed = held.getinfo(entry)
    unbounded, count = copy.copy(claimed), 0
    unbounded.file_size = LARGEST_TOTAL  # `zipfile` would cut silently where an entry says that it ends
    with _reading(name), held.open(unbounded) as source:
        while piece := source.read(_PIECE):
            count += len(piece)
            if count > claimed.file_size:
                break
            yield piece
    if count != claimed.file_size:
        more = "more" if count > claimed.file_size else "fewer"
        raise UnreadableAdapterError(
            f"{name}: {entry[:80]!r} has {more} than the {claimed.file_size:,} bytes that it claims."
        )


def _notes(held: zipfile.ZipFile, taken: set[str]) -> tuple[str, ...]:
    left = sorted(e.filename for e in held.infolist() if not e.is_dir() and e.filename not in taken)
    return tuple(left_aside(left, "the weights and the configuration are all that an audit reads"))
