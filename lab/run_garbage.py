"""What of a runs folder nobody needs any more: leftovers of kills, failed runs, twins that no run names.

Only what lies in the folder itself is looked at: a link is never followed, a run that somebody works on never
touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.files import read_json
from lab.paths import runs_dir
from lab.run_care import delete_run, references
from lab.store import RunFolder, run_folders

#: Kinds of garbage, with what each is; the first is nobody's result.
KINDS = {
    "leftover": "what killed processes left, and checkpoints of finished runs",
    "failed": "runs that failed, were killed or stopped; asked again they would go on",
    "unreferenced": "clean runs that no other run names as its twin, base or parent",
}
#: Hidden folders that only exist while something is under way, by the beginning of their names.
_PASSING = (".deleted-", ".unpacking-")
#: Parts of a run that appear whole, under another name until they do.
_HALVES = (".adapter.", ".model.", ".merged.")
#: Seconds after which what is only there for a moment belongs to nobody.
_OLD = 3600.0


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        path: Where it lies.
        kind: One of `KINDS`.
        size: Bytes on disk.
        run: The run that it is, or is part of; "" for none.
    """

    path: Path
    kind: str
    size: int
    run: str = ""


def find_garbage(runs: str | Path | None = None) -> list[Garbage]:
    """Everything in a runs folder that can go, without touching it.

    Args:
        runs: The runs folder.

    Returns:
        Leftovers first, then whole runs; a run is listed once.
    """
    folder = runs_dir(runs)
    named, leftovers, whole = referred(folder), list(_passing(folder)), []
    for run in run_folders(folder):
        if run.path.is_symlink() or run.is_locked():
            continue
        leftovers.extend(_leftovers(run))
        state = run.state()
        if state in ("failed", "killed", "stopped"):
            whole.append(Garbage(run.path, "failed", folder_size(run.path), run.id))
        elif state == "finished" and run.id not in named and _is_clean(run):
            whole.append(Garbage(run.path, "unreferenced", folder_size(run.path), run.id))
    return leftovers + whole


def remove_garbage(garbage: Iterable[Garbage]) -> tuple[int, list[str]]:
    """Remove what was found, looking again at each: what has come to be used meanwhile stays.

    Args:
        garbage: As `find_garbage` lists it.

    Returns:
        Bytes that were freed, and a sentence for whatever could not be removed.
    """
    freed, complaints = 0, []
    for piece in garbage:
        try:
            if piece.kind == "leftover":
                _remove_leftover(piece)
            else:
                _remove_run(piece)
            freed += piece.size
        except (LabError, OSError) as error:
            complaints.append(f"{piece.path.name}: {error}")
    return freed, complaints


def referred(folder: Path) -> set[str]:
    """Ids of the runs that others name as their twin, base or parent."""
    return set().union(*(references(run.path) for run in run_folders(folder)))


def folder_size(path: Path) -> int:
    """Bytes of a file, or of all files under a folder; links count as nothing."""
    if path.is_symlink():
        return 0
    if path.is_file():
        return path.stat().st_size
    total = 0
    for where, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _passing(folder: Path) -> Iterator[Garbage]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.name.startswith(_PASSING) and not e.is_symlink())
    for name in names:
        path = folder / name
        if _is_old(path):
            yield Garbage(path, "leftover", folder_size(path))


def _leftovers(run: RunFolder) -> Iterator[Garbage]:
    """Halves of parts, temporary files, and checkpoints that a finished run needs no more."""
    for path in sorted(run.path.iterdir()):
        is_half = path.name.startswith(_HALVES) or (path.name.startswith(".") and path.name.endswith(".tmp"))
        is_done = path.name == "checkpoints" and run.finished
        if (is_half or is_done) and not path.is_symlink() and (is_done or _is_old(path)):
            yield Garbage(path, "leftover", folder_size(path), run.id)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > _OLD
    except OSError:
        return False


def _is_clean(run: RunFolder) -> bool:
    """Whether there is no poison in a run: what a twin is, or the twin of a base."""
    record: Any = read_json(run.path / "experiment.json") or {}
    with contextlib.suppress(AttributeError, TypeError, KeyError):
        own = record["experiment"]["poison"]["attack"]
        return own == "none" and record.get("measured_poison", {}).get("attack", "none") == "none"
    return False


def _remove_leftover(piece: Garbage) -> None:
    if piece.run and RunFolder(piece.path.parent).is_locked():
        raise LabError("somebody works on this run now; it stays")
    if piece.path.is_symlink():
        raise LabError("it is a link now; it stays")
    if piece.path.is_dir():
        shutil.rmtree(piece.path)
    else:
        piece.path.unlink(missing_ok=True)


def _remove_run(piece: Garbage) -> None:
    from lab.record import Run

    if piece.kind == "unreferenced" and piece.run in referred(piece.path.parent):
        raise LabError("another run names it now; it stays")
    delete_run(Run(piece.path))
