"""Runs on their way between machines: one archive, hash-checked, and opened as something untrusted.

    manifest.json                {"schema": 1, "files": {"<run id>/<path>": [size, sha256], …}}
    <run id>/experiment.json     and the other files of each run

What is not in the manifest, or not as it says, is refused, and nothing has been written then. A run appears
in the runs folder as a whole; one that is there already stays as it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lab.errors import LabError
from lab.files import writing_to

SCHEMA = 1
MANIFEST = "manifest.json"
#: The kinds of files that runs have; weights are safetensors or nothing.
SUFFIXES = (".json", ".jsonl", ".parquet", ".safetensors", ".md", ".txt", ".jinja", ".model")
#: More than that no archive of runs holds: files, bytes of one run's files, and how far bytes may be packed.
MAX_FILES, MAX_BYTES, MAX_RATIO = 100_000, 64 * 2**30, 200
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9_.-]*-[0-9a-f]{10}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


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


def unpack_runs(archive: bytes | Path, runs: Path) -> tuple[list[str], list[str]]:
    """Put the runs of an archive into a runs folder; those that are there stay as they are.

    Args:
        archive: The archive, or where it lies.
        runs: The runs folder.

    Returns:
        Ids of the runs that were put there, and of those that were there already.

    Raises:
        LabError: It is no archive of runs, or holds what no run holds; nothing has been written then.
    """
    source: Any = io.BytesIO(archive) if isinstance(archive, bytes) else archive
    try:
        with zipfile.ZipFile(source) as opened:
            listed = _checked_names(opened)
            return _unpack(opened, listed, runs)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise LabError(f"The archive cannot be read: {error}") from None
    except FileNotFoundError:
        raise LabError(f"There is no archive {archive!s}.") from None


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
            with path.open("rb") as read:
                manifest[name] = (path.stat().st_size, hashlib.file_digest(read, "sha256").hexdigest())
            # weights hardly shrink; the rest does
            how = zipfile.ZIP_STORED if path.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            archive.write(path, name, compress_type=how)
        archive.writestr(MANIFEST, json.dumps({"schema": SCHEMA, "files": manifest}, indent=1))


def _checked_names(archive: zipfile.ZipFile) -> dict[str, tuple[int, str]]:
    """The manifest, if the archive holds exactly its files, under names and in sizes that runs have.

    Raises:
        LabError: Says what is wrong.
    """
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()) or len({name.casefold() for name in entries}) != len(entries):
        raise LabError("The archive holds two files of one name.")
    if MANIFEST not in entries or len(entries) > MAX_FILES or entries[MANIFEST].file_size > 64 * 2**20:
        raise LabError(f"The archive is none of `lab runs export`: it has no usable {MANIFEST}.")
    try:
        manifest = json.loads(archive.read(MANIFEST))
        listed = {str(name): (int(size), str(digest)) for name, (size, digest) in manifest["files"].items()}
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"The archive's {MANIFEST} is broken: {error}.") from None
    if schema != SCHEMA:
        raise LabError(f"The archive has schema {schema!r}; this version reads {SCHEMA}.")
    if set(listed) != set(entries) - {MANIFEST}:
        raise LabError(f"The archive holds other files than its {MANIFEST} lists.")
    for name, (size, _) in listed.items():
        _check_entry(entries[name], size)
    if sum(size for size, _ in listed.values()) > MAX_BYTES:
        raise LabError(f"The archive holds more than {MAX_BYTES // 2**30} GiB.")
    return listed


def _check_entry(entry: zipfile.ZipInfo, size: int) -> None:
    name = entry.filename
    parts = PurePosixPath(name).parts
    is_plain = name == "/".join(parts) and len(parts) > 1 and all(_PART.fullmatch(part) for part in parts)
    if not is_plain or not _RUN_ID.fullmatch(parts[0]) or PurePosixPath(name).suffix not in SUFFIXES:
        raise LabError(f"The archive holds {name[:80]!r}, which is no file of a run.")
    mode = entry.external_attr >> 16
    if entry.is_dir() or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
        raise LabError(f"The archive holds {name[:80]!r}, which is no plain file.")
    if entry.flag_bits & 1:
        raise LabError(f"The archive's {name[:80]!r} is encrypted.")
    if entry.file_size != size or (
        entry.file_size > 2**20 and size > MAX_RATIO * max(1, entry.compress_size)
    ):
        raise LabError(f"The archive's {name[:80]!r} has not the size that it says.")


def _unpack(
    archive: zipfile.ZipFile, listed: dict[str, tuple[int, str]], runs: Path
) -> tuple[list[str], list[str]]:
    ids = sorted({name.partition("/")[0] for name in listed})
    there = [run for run in ids if (runs / run / "result.json").is_file()]
    new = [run for run in ids if run not in there]
    with writing_to(runs):
        runs.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=runs))
        try:
            for name, (size, digest) in listed.items():
                if name.partition("/")[0] in new:
                    _extract(archive, name, size, digest, temporary)
            for run in new:
                _check_run(temporary / run)
            for run in new:
                _move(temporary / run, runs / run)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return new, there


def _extract(archive: zipfile.ZipFile, name: str, size: int, digest: str, folder: Path) -> None:
    """Write one file, counting and hashing what really comes."""
    target = folder.joinpath(*PurePosixPath(name).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    hashed, written = hashlib.sha256(), 0
    with archive.open(name) as read, target.open("wb") as write:
        while chunk := read.read(1 << 20):
            written += len(chunk)
            if written > size:
                break
            hashed.update(chunk)
            write.write(chunk)
    if written != size or hashed.hexdigest() != digest:
        raise LabError(f"The archive's {name!r} is not what its {MANIFEST} says: damaged, or changed.")


def _check_run(folder: Path) -> None:
    """Refuse a folder that calls itself a run and is none, or another one than its name says."""
    try:
        record = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
        weights = str(record["weights_id"])
        is_finished = (folder / "result.json").is_file()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"The archive's {folder.name} has no readable experiment.json: {error}.") from None
    if not is_finished or not folder.name.endswith(f"-{weights[:10]}"):
        raise LabError(f"The archive's {folder.name} is not the finished run that its record speaks of.")


def _move(source: Path, target: Path) -> None:
    """Put a whole run in its place; what an unfinished one left there gives way if nobody holds it."""
    from lab.store import RunFolder

    if target.is_dir():
        left = RunFolder(target)
        if left.finished or left.is_locked():
            return
        shutil.rmtree(target, ignore_errors=True)
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
    from lab.paths import runs_dir
    from lab.store import find_run

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
        beside = [path.with_name(name) for name in references(path) if _RUN_ID.fullmatch(name)]
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
    from lab.paths import runs_dir

    return unpack_runs(Path(archive).expanduser(), runs_dir(runs))
