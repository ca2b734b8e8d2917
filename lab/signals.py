"""Signals that end the work as Ctrl-C would, so that what is temporary is removed on the way out."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interrupted_by(*numbers: signal.Signals) -> Iterator[bool]:
    """Turn signals into KeyboardInterrupt meanwhile; yields whether that could be done: in the main thread.

    Args:
        *numbers: Signals that would end the process at once, or, as SIGINT in a shell's background job, not
            at all.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
