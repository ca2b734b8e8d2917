"""The events of a run that goes on, read by many and again and again: only what was appended is parsed."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

#: Bytes before the end of what was read that are compared, to see that the file was not written anew.
_KNOWN = 64


class EventLog:
    """The events of one run by their kinds, in order, as `RunFolder.read_events` gives them.

    It may be shared by threads. It does not write, and holds no file open.

    Args:
        path: The file `events.jsonl`; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = (-1, -1, -1)
        self._forget()

    def of(self, *kinds: str) -> Sequence[dict[str, Any]]:
        """The events of some kinds so far, in order; those of all kinds where none is named.

        Returns:
            A list of one's own; the events in it are shared, so they are not to be changed.
        """
        with self._lock:
            self._look()
            if len(kinds) == 1:
                return list(self._by_kind.get(kinds[0], ()))
            return [e for e in self._events if not kinds or e.get("kind") in kinds]

    def _look(self) -> None:
        try:
            facts = os.stat(self._path)
        except OSError:
            self._forget()
            return
        stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if stamp == self._stamp:
            return
        with self._path.open("rb") as file:
            if facts.st_ino != self._stamp[0] or not self._goes_on(file):
                self._forget()
                file.seek(0)
            self._take(file.read())
        self._stamp = stamp

    def _forget(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._stamp = (-1, -1, -1)
        self._place, self._tail = 0, b""

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether the file still begins with what was read of it; then it stands behind that."""
        file.seek(self._place - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _take(self, appended: bytes) -> None:
        """Parse whole lines; half a line at the end is left for the next look."""
        whole = appended[: appended.rfind(b"\n") + 1]
        for line in filter(None, whole.decode("utf-8", errors="replace").split("\n")):
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict):
                self._events.append(event)
                self._by_kind[str(event.get("kind"))].append(event)
        self._place += len(whole)
        self._tail = (self._tail + whole)[-_KNOWN:]
