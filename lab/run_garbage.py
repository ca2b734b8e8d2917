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

import filelock

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
#: States of runs that came to nothing.
_FAILED = ("failed", "killed", "stopped")
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

    @property
    def run_folder(self) -> Path:
        """The folder of the run that it is, or is part of; the runs folder where it belongs to none."""
        up = (self.path, *self.path.parents) if self.run else ()
        return next((path for path in up if path.name == self.run), self.path.parent)


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
        if state in _FAILED:
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
    for where, folders, files in os.walk(run.path):  # which follows no links
        is_top = Path(where) == run.path
        whole = [name for name in folders if is_top and (name == "checkpoints" or name.startswith(_HALVES))]
        # what is in them goes with them or, where an unfinished run goes on from it, not at all
        folders[:] = sorted(set(folders) - set(whole))
        torn = [name for name in files if name.startswith(".") and name.endswith(".tmp")]
        for path in (Path(where, name) for name in sorted(whole + torn)):
            can_go = run.finished if path.name == "checkpoints" else _is_old(path)
            if can_go and not path.is_symlink():
                yield Garbage(path, "leftover", folder_size(path), run.id)


def _is_old(path: Path) -> bool:
    """Whether nothing of it was written lately: a folder's own time says nothing of files deep in it."""
    try:
        times = [path.lstat().st_mtime]
        for where, folders, files in os.walk(path):
            times += [os.lstat(os.path.join(where, name)).st_mtime for name in folders + files]
    except OSError:  # gone, or going, in this moment
        return False
    return time.time() - max(times) > _OLD


def _is_clean(run: RunFolder) -> bool:
    """Whether there is no poison in a run: what a twin is, or the twin of a base."""
    record: Any = read_json(run.path / "experiment.json") or {}
    with contextlib.suppress(AttributeError, TypeError, KeyError):
        own = record["experiment"]["poison"]["attack"]
        return own == "none" and record.get("measured_poison", {}).get("attack", "none") == "none"
    return False


def _remove_leftover(piece: Garbage) -> None:
    way = (piece.path, *piece.path.parents)
    if any(path.is_symlink() for path in way if piece.run_folder in path.parents):
        raise LabError("it is a link now; it stays")
    if not piece.path.exists():  # and its run may be gone, in which a lock would make a new folder
        return
    with _held(piece.run_folder) if piece.run else contextlib.nullcontext():
        if piece.path.name == "checkpoints" and not RunFolder(piece.run_folder).finished:
            raise LabError("the run goes on from them now; they stay")
        if piece.path.is_dir():
            shutil.rmtree(piece.path)
        else:
            piece.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(run: Path) -> Iterator[None]:
    """Hold a run that nobody works on, so that nobody begins to in the middle."""
    guard = filelock.FileLock(run / ".lock")
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        raise LabError("somebody works on this run now; it stays") from None
    try:
        yield
    finally:
        guard.release()


def _remove_run(piece: Garbage) -> None:
    from lab.record import Run

    if piece.kind == "unreferenced" and piece.run in referred(piece.path.parent):
        raise LabError("another run names it now; it stays")
    if piece.kind == "failed" and (state := RunFolder(piece.path).state()) not in _FAILED:
        raise LabError(f"it is {state} now; it stays")
    delete_run(Run(piece.path))
