"""The listing of a runs folder, kept up to date: only what changed since the last look is read again.

`lab.list_runs` reads two small files of every run. A page that asks every second, for ten browsers at once,
asks a `RunIndex` instead, and gets the same table, with what follows from it worked out once.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lab.paths import runs_dir
from lab.store import RunFolder, is_gone, listing_line, listing_table

if TYPE_CHECKING:
    import pandas as pd

    from lab.comparison import Listing

#: A file that was written this recently, in ns, may be written again without its time changing (some file
#: systems count in steps of two seconds), so it is read again until it is older.
_FRESH = 2_500_000_000
#: What makes an unfinished run stopped, failed, killed or queued.
_MARKS = ("failure.json", "stop", "events.jsonl")

#: Inode, size and time of last writing in ns; None where there is no such file.
_Stamp = tuple[int, int, int]


class _Signature(NamedTuple):
    """What a line of the listing depends on.

    A finished run's line is a function of its two files alone, so the rest is empty there.
    """

    experiment: _Stamp
    result: _Stamp | None
    marks: tuple[bool, ...] = ()
    is_locked: bool = False


class RunIndex:
    """The runs of a folder as a table that is cheap to ask for again and again.

    It may be shared by threads. It does not write, and holds no file open.

    Args:
        runs: The runs folder, by the rule of `lab.paths.runs_dir`; it need not exist.
        rest: After a look that took t seconds, the table is good enough for rest · t seconds, so that many
            askers and thousands of runs do not keep it looking all the time. 0 looks whenever it is asked.
    """

    def __init__(self, runs: str | Path | None = None, *, rest: float = 0.0) -> None:
        self.runs = runs_dir(runs)
        self._lock = threading.Lock()
        self._lines: dict[str, tuple[_Signature, dict[str, Any]]] = {}
        self._listing: Listing | None = None
        self._looked = -1.0
        self._rest, self._good_until = rest, -1.0

    def table(self) -> pd.DataFrame:
        """The table that `lab.list_runs` gives: one line per run, newest first.

        Returns:
            A copy, which may be changed.
        """
        return self.listing().table.copy()

    def listing(self) -> Listing:
        """The same table with what it is asked again and again.

        Returns:
            One that all askers share, so it is not to be changed; the same one as long as no run has changed.
        """
        asked = time.monotonic()
        with self._lock:
            # who waited here while another thread looked need not look once more
            if self._listing is None or self._looked < asked >= self._good_until:
                looked = time.monotonic()
                self._refresh()
                done = time.monotonic()
                self._looked, self._good_until = looked, done + self._rest * (done - looked)
            assert self._listing is not None
            return self._listing

    def look_again(self) -> None:
        """Make the next table look at the folder, rest or not: for who has just changed it."""
        self._good_until = -1.0

    def _refresh(self) -> None:
        from lab.comparison import Listing

        now, lines, has_changed = time.time_ns(), {}, self._listing is None
        for name in self._names():
            known = self._lines.get(name)
            if known is not None and self._is_known(name, known[0], now):
                lines[name] = known
                continue
            try:
                signature = self._signature(name)
            except OSError:  # no run, or gone in this moment
                continue
            if known is None or known[0] != signature or _is_fresh(signature, now):
                folder = RunFolder(self.runs / name)
                line = listing_line(folder)
                if is_gone(folder, line):
                    continue
                # the line's own look at the lock is what it is compared with the next time
                locked = signature.result is None and line["state"] == "running"
                has_changed = has_changed or known is None or _differ(known[1], line)
                known = (signature._replace(is_locked=locked), line)
            lines[name] = known
        if has_changed or lines.keys() != self._lines.keys():
            self._listing = Listing(listing_table([line for _, line in lines.values()]))
        self._lines = lines

    def _names(self) -> Iterator[str]:
        with contextlib.suppress(OSError), os.scandir(self.runs) as entries:
            yield from sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())

    def _is_known(self, name: str, signature: _Signature, now: int) -> bool:
        """Whether a finished run is as it was read: so are nearly all, and it is found out fast."""
        if signature.result is None or _is_fresh(signature, now):
            return False
        folder = f"{self.runs}{os.sep}{name}{os.sep}"
        try:
            one, other = os.stat(folder + "experiment.json"), os.stat(folder + "result.json")
        except OSError:
            return False
        return (one.st_ino, one.st_size, one.st_mtime_ns) == signature.experiment and (
            other.st_ino, other.st_size, other.st_mtime_ns
        ) == signature.result  # fmt: skip

    def _signature(self, name: str) -> _Signature:
        folder = f"{self.runs}{os.sep}{name}{os.sep}"
        experiment = _stamp(folder + "experiment.json")
        try:
            return _Signature(experiment, _stamp(folder + "result.json"))
        except FileNotFoundError:
            marks = tuple(os.path.exists(folder + mark) for mark in _MARKS)
            locked = os.path.exists(folder + ".lock") and RunFolder(Path(folder)).is_locked()
            return _Signature(experiment, None, marks, locked)


def _stamp(path: str) -> _Stamp:
    """A file's stamp.

    Raises:
        FileNotFoundError: There is no regular file.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_fresh(signature: _Signature, now: int) -> bool:
    """Whether one of the files may change without its stamp doing so."""
    experiment, result = signature[:2]
    return abs(now - experiment[2]) < _FRESH or (result is not None and abs(now - result[2]) < _FRESH)


def _differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two lines say different things; what is no number equals itself here."""
    return repr(one) != repr(other)
