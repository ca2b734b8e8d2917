"""Runs on their way between machines: one archive, hash-checked, and opened as something untrusted.

    manifest.json                {"schema": 1, "files": {"<run id>/<path>": [size, sha256], …}}
    <run id>/experiment.json     and the other files of each run

What is not in the manifest, or not as it says, is refused, and nothing has been written then. A run appears
in the runs folder as a whole; one that is there already stays as it is, or gets the measures that it lacks
where a sweep's own runs come home (`lab.added_probes`).

Whether a folder is the run that it says it is, `lab.packed_records` judges.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lab.errors import LabError
from lab.files import nearest_folder, writing_to
from lab.packed_records import RUN_ID, check_run
from lab.paths import expanded, runs_dir

SCHEMA = 1
MANIFEST = "manifest.json"
#: The kinds of files that runs have; weights are safetensors or nothing.
SUFFIXES = (".json", ".jsonl", ".parquet", ".safetensors", ".md", ".txt", ".jinja", ".model")
#: More than that no archive of runs holds: files, bytes of one run's files, and how far bytes may be packed.
MAX_FILES, MAX_BYTES, MAX_RATIO = 100_000, 64 * 2**30, 200
#: Bytes of the manifest, which is read as a whole.
MAX_MANIFEST = 64 * 2**20
#: Bytes below which it does not matter how far they are packed.
_HARMLESS = 2**20
#: Bytes that the smallest file takes on most disks.
_BLOCK = 4096
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: What a damaged archive makes zipfile and zlib raise, wherever the damage is.
_UNREADABLE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, OSError,
               RuntimeError, ValueError, OverflowError)  # fmt: skip


def pack_runs(runs: Sequence[Path], target: Path | None = None) -> bytes:
    """Put finished runs into one archive.

    Args:
        runs: Their folders.
        target: A file to write it to, whole or not at all; None to return it.

    Returns:
        The archive's bytes; empty where it was written to `target`.

    Raises:
        LabError: A folder is no finished run, or the file cannot be written.
    """
    files = [(f"{run.name}/{name}", run / name) for run in runs for name in _files_of(run)]
    if target is None:
        buffer = io.BytesIO()
        _write(buffer, files)
        return buffer.getvalue()
    with writing_to(target.parent, choose="another file with --out"):
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as stream:
                _write(stream, files)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return b""


def unpack_runs(archive: bytes | Path, runs: Path, *, add: bool = False) -> tuple[list[str], list[str]]:
    """Put the runs of an archive into a runs folder; those that are there stay as they are.

    Args:
        archive: The archive, or where it lies.
        runs: The runs folder.
        add: Give those that are there the measures that they lack; only for archives of one's own machines.

    Returns:
        Ids of the runs that were put there, and of those that were there already.

    Raises:
        LabError: It is no archive of runs, or holds what no run holds; nothing has been written then.
    """
    if not isinstance(archive, bytes) and not os.path.isfile(archive):
        is_there = os.path.exists(archive)
        raise LabError(f"{archive} is no archive." if is_there else f"There is no archive {archive}.")
    with _readable():
        size = len(archive) if isinstance(archive, bytes) else os.path.getsize(archive)
        opened = zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, bytes) else archive)
    with opened:
        with _readable():
            listed = _checked_names(opened, size)
        return _unpack(opened, listed, runs, add)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turn what libraries say of a damaged archive into one sentence."""
    try:
        yield
    except _UNREADABLE as error:
        words = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        reason = (words or type(error).__name__).rstrip(".")[:200]
        raise LabError(f"The archive cannot be read: {reason}.") from None


def _files_of(run: Path) -> list[str]:
    """The files of a run that travel, as posix paths; locks, queues and checkpoints stay."""
    if not (run / "result.json").is_file():
        raise LabError(f"{run.name} is no finished run; only finished runs travel.")
    found = []
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run)
        if path.is_symlink() or not path.is_file() or any(p.startswith(".") for p in name.parts):
            continue
        if name.parts[0] != "checkpoints" and path.suffix in SUFFIXES:
            found.append(name.as_posix())
    return found


def _write(stream: Any, files: Iterable[tuple[str, Path]]) -> None:
    manifest: dict[str, tuple[int, str]] = {}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files:
            entry = zipfile.ZipInfo.from_file(path, name)
            # weights hardly shrink; the rest does
            entry.compress_type = (
                zipfile.ZIP_STORED if path.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            )
            hashed, size = hashlib.sha256(), 0
            # read once: another job may give the file a new content, and what is listed is what was packed
            with path.open("rb") as read, archive.open(entry, "w") as write:
                while chunk := read.read(1 << 20):
                    hashed.update(chunk)
                    size += write.write(chunk)
            manifest[name] = (size, hashed.hexdigest())
        archive.writestr(MANIFEST, json.dumps({"schema": SCHEMA, "files": manifest}, indent=1))


def _checked_names(archive: zipfile.ZipFile, packed: int) -> dict[str, tuple[int, str]]:
    """The manifest, if the archive holds exactly its files, under names and in sizes that runs have.

    Args:
        archive: The archive.
        packed: Its bytes.

    Raises:
        LabError: Says what is wrong.
    """
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()) or len({name.casefold() for name in entries}) != len(entries):
        raise LabError("The archive holds two files of one name.")
    if MANIFEST not in entries or len(entries) > MAX_FILES or entries[MANIFEST].file_size > MAX_MANIFEST:
        raise LabError(f"The archive is none of `lab runs export`: it has no usable {MANIFEST}.")
    if any(e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for e in entries.values()):
        raise LabError("The archive is none of `lab runs export`: it is packed in another way.")
    listed = _read_manifest(archive)
    if set(listed) != set(entries) - {MANIFEST}:
        raise LabError(f"The archive holds other files than its {MANIFEST} lists.")
    for name, (size, _) in listed.items():
        _check_entry(entries[name], size)
    _check_amount(sum(size for size, _ in listed.values()), packed)
    if both := {str(folder) for name in listed for folder in PurePosixPath(name).parents} & set(listed):
        raise LabError(f"The archive holds {min(both)[:80]!r} as a file and as a folder.")
    return listed


def _read_manifest(archive: zipfile.ZipFile) -> dict[str, tuple[int, str]]:
    try:
        manifest = json.loads(archive.read(MANIFEST))
        listed = {str(name): (size, str(digest)) for name, (size, digest) in manifest["files"].items()}
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LabError(f"The archive's {MANIFEST} is broken: {error}.") from None
    if schema != SCHEMA:
        raise LabError(f"The archive has schema {str(schema)[:40]!r}; this version reads {SCHEMA}.")
    if not all(type(size) is int for size, _ in listed.values()):
        raise LabError(f"The archive's {MANIFEST} is broken: a size is no whole number.")
    return listed


def _check_amount(total: int, packed: int) -> None:
    """Refuse what unpacks to more than runs do, be it in one file or in many small ones."""
    if total > MAX_BYTES:
        raise LabError(f"The archive holds more than {MAX_BYTES // 2**30} GiB.")
    if total > _HARMLESS and total > MAX_RATIO * packed:
        raise LabError(f"The archive unpacks to {total // packed} times its size, which no runs do.")


def _check_entry(entry: zipfile.ZipInfo, size: int) -> None:
    name = entry.filename
    parts = PurePosixPath(name).parts
    is_plain = name == "/".join(parts) and len(parts) > 1 and all(_PART.fullmatch(part) for part in parts)
    if not is_plain or not RUN_ID.fullmatch(parts[0]) or PurePosixPath(name).suffix not in SUFFIXES:
        raise LabError(f"The archive holds {name[:80]!r}, which is no file of a run.")
    mode = entry.external_attr >> 16
    if entry.is_dir() or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
        raise LabError(f"The archive holds {name[:80]!r}, which is no plain file.")
    if entry.flag_bits & 1:
        raise LabError(f"The archive's {name[:80]!r} is encrypted.")
    if entry.file_size != size or (
        entry.file_size > _HARMLESS and size > MAX_RATIO * max(1, entry.compress_size)
    ):
        raise LabError(f"The archive's {name[:80]!r} has not the size that it says.")


def _unpack(
    archive: zipfile.ZipFile, listed: dict[str, tuple[int, str]], runs: Path, add: bool
) -> tuple[list[str], list[str]]:
    ids = sorted({name.partition("/")[0] for name in listed})
    there = [run for run in ids if (runs / run / "result.json").is_file()]
    new = [run for run in ids if run not in there]
    wanted = {n: told for n, told in listed.items() if n.partition("/")[0] in new or (add and _is_table(n))}
    with writing_to(runs):
        _check_room((size for size, _ in wanted.values()), runs)
        is_new = not runs.exists()
        runs.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=runs))
        try:
            for name, (size, digest) in wanted.items():
                _extract(archive, name, size, digest, temporary)
            for run in ids if add else new:
                check_run(temporary / run, runs)
            for run in new:
                _move(temporary / run, runs / run)
            if add:
                _add_to_others(temporary, runs)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if is_new:
                with contextlib.suppress(OSError):  # it holds runs now
                    runs.rmdir()
    return new, there


def _is_table(name: str) -> bool:
    """Whether a run's file tells of it, weights aside: those of a run that is there are there too."""
    return not name.endswith(".safetensors")


def _add_to_others(unpacked: Path, runs: Path) -> None:
    """Give the runs that were there, or came from elsewhere meanwhile, the measures that they lack."""
    from lab.added_probes import add_probes

    for copy in sorted(unpacked.iterdir()):  # what was new has been moved away
        add_probes(copy, runs / copy.name)


def _check_room(sizes: Iterable[int], runs: Path) -> None:
    """Refuse what does not fit on the disk, before half of it has filled that."""
    need = sum(-(-size // _BLOCK) * _BLOCK for size in sizes)
    free = shutil.disk_usage(nearest_folder(runs)).free
    if need > free:
        raise LabError(
            f"The archive's runs need {need / 2**20:,.1f} MiB, and {runs} has {free / 2**20:,.1f} MiB free; "
            "free some space, or choose another folder with --runs."
        )


def _extract(archive: zipfile.ZipFile, name: str, size: int, digest: str, folder: Path) -> None:
    """Write one file, counting and hashing what really comes."""
    target = folder.joinpath(*PurePosixPath(name).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    hashed, written = hashlib.sha256(), 0
    with target.open("wb") as write:
        for chunk in _chunks(archive, name):
            written += len(chunk)
            if written > size:
                break
            hashed.update(chunk)
            write.write(chunk)
    if written != size or hashed.hexdigest() != digest:
        raise LabError(f"The archive's {name!r} is not what its {MANIFEST} says: damaged, or changed.")


def _chunks(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    with _readable(), archive.open(name) as read:
        while chunk := read.read(1 << 20):
            yield chunk


def _move(source: Path, target: Path) -> None:
    """Put a whole run in its place; what an unfinished one left there gives way if nobody holds it."""
    from lab.run_care import discard
    from lab.store import RunFolder

    if target.is_dir():
        left = RunFolder(target)
        if left.finished:
            return
        with contextlib.suppress(LabError):  # somebody works on it, and will finish it
            discard(left)
    try:
        os.replace(source, target)
    except OSError:
        if not target.is_dir():
            raise


def export_runs(names: Sequence[str], target: Path, runs: str | Path | None = None) -> list[str]:
    """Put finished runs into one archive, with the runs that they rest on: twins, bases and parents.

    Args:
        names: Runs, as `lab.load_run` finds them.
        target: The archive, a .zip file; it appears as a whole or not at all.
        runs: The runs folder.

    Returns:
        The ids of all runs in it.

    Raises:
        LabError: A run is not there or not finished, or the file cannot be written.
    """
    from lab.store import find_run

    if target.is_dir():
        raise LabError(f"{target} is a folder; choose a file for the archive with --out.")
    folder = runs_dir(runs)
    found = with_what_they_rest_on([find_run(name, folder).path for name in names])
    pack_runs(found, target)
    return [path.name for path in found]


def with_what_they_rest_on(paths: Iterable[Path]) -> list[Path]:
    """Folders of runs with those of the finished runs that they rest on, and so on; each once, by name.

    Args:
        paths: Folders of finished runs, beside which the others lie.
    """
    from lab.run_care import references
    from lab.store import RunFolder

    found: dict[str, Path] = {}
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path.name in found:
            continue
        found[path.name] = path
        beside = [path.with_name(name) for name in references(path) if RUN_ID.fullmatch(name)]
        todo += [other for other in beside if RunFolder(other).finished]
    return [found[name] for name in sorted(found)]


def import_runs(archive: Path, runs: str | Path | None = None) -> tuple[list[str], list[str]]:
    """Put the runs of an archive into the runs folder; see `unpack_runs`.

    Args:
        archive: What `export_runs` wrote.
        runs: The runs folder.

    Returns:
        Ids of the runs that were put there, and of those that were there already.

    Raises:
        LabError: As `unpack_runs`.
    """
    return unpack_runs(expanded(archive), runs_dir(runs))
