"""What is kept of the references that `--reference auto` trained: the sets used last, within a limit in size.

A set is what one question trained: the folders `reference-<number>-<key>` of one key. It is found again as
long as it is there, and trained once more when it is not, so that nothing is lost but minutes.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import filelock

from lab.errors import LabError
from lab.run_care import discard
from lab.store import RunFolder

#: Sets that are kept; an audit of another adapter, or with another seed, makes one.
KEPT_SETS = 12
#: Bytes that all sets may take: one of five references is 7 MB on MiniLM, 50 MB on SmolLM2, both at rank 8.
LARGEST = 2 * 1024**3
#: Seconds for which a set is spared after its last use: the audit that asked for it may still be reading.
SPARED = 3600.0
#: Seconds to wait for another process that tidies.
_PATIENCE = 10.0
_NAME = re.compile(r"reference-\d+-([0-9a-f]{10})")


@dataclass(frozen=True)
class _Set:
    """The references of one key."""

    places: tuple[Path, ...]
    used: float
    size: int

    def is_in_use(self, now: float) -> bool:
        return now - self.used < SPARED or any(RunFolder(place).is_locked() for place in self.places)


def look_after(folder: Path, asked: Iterable[Path] = ()) -> list[str]:
    """Note that references are used now, and tidy up; one process at a time, so that no mark is missed.

    Args:
        folder: `.references/` of a runs folder; it need not exist.
        asked: Places of references that are about to be read or trained.

    Returns:
        The names of the folders that were deleted; none where another process tidies or nothing may be
        written.
    """
    if not folder.is_dir():
        return []
    door = filelock.FileLock(folder / ".door")
    try:
        door.acquire(timeout=_PATIENCE)
    except (filelock.Timeout, OSError):
        return []
    try:
        for place in asked:
            with contextlib.suppress(OSError):  # most are still to be trained
                os.utime(place)
        return tidy_references(folder)
    finally:
        door.release()


def tidy_references(folder: Path, *, kept: int = KEPT_SETS, largest: int = LARGEST) -> list[str]:
    """Delete the sets of references that were used longest ago, and trainings that nobody went on with.

    A set is in use while somebody trains one of it, who holds its lock, and for an hour after its last use;
    such a set stays whatever the limits say. For whoever holds the door (`look_after`).

    Args:
        folder: `.references/` of a runs folder; it need not exist.
        kept: How many sets stay at most.
        largest: How many bytes they take at most, together.

    Returns:
        The names of the folders that were deleted.
    """
    now = time.time()
    gone: list[Path] = []
    total = 0
    for number, found in enumerate(sorted(_sets(folder), key=lambda s: s.used, reverse=True), start=1):
        total += found.size
        if found.is_in_use(now):
            continue
        if number > kept or total > largest:
            gone += found.places
            total -= found.size
        else:
            gone += [place for place in found.places if not (place / "reference.json").is_file()]
    return [place.name for place in gone if _is_discarded(place)]


def _is_discarded(place: Path) -> bool:
    try:
        discard(RunFolder(place))
    except LabError:  # somebody began to work on it, or the system says no: the next audit tries again
        return False
    return True


def _sets(folder: Path) -> list[_Set]:
    by_key: dict[str, list[Path]] = {}
    for place in sorted(folder.glob("reference-*")):
        name = _NAME.fullmatch(place.name)
        if name and place.is_dir() and not place.is_symlink():
            by_key.setdefault(name[1], []).append(place)
    return [_Set(tuple(p), max(map(_last_used, p)), sum(map(_size, p))) for p in by_key.values()]


def _last_used(place: Path) -> float:
    """When a reference was last asked for or worked on: every write into a folder is a time of it."""
    with contextlib.suppress(OSError):
        return place.stat().st_mtime
    return 0.0


def _size(place: Path) -> int:
    size = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.lstat().st_size
    return size
