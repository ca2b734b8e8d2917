"""One thing after another from an iterator, measured side by side, while few of them are held in memory."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")
#: More threads than that only wait for the one that reads.
_MOST_THREADS = 8
#: Bytes that wait or are measured, beside the one that is being read; the largest module may have more.
_HELD = 128 * 1024**2


def side_by_side(
    measure: Callable[[_Item], _Found], items: Iterable[_Item], size: Callable[[_Item], int]
) -> list[_Found]:
    """`measure` of every item, on as many threads as torch has, while the next one is read.

    Linear algebra on many small matrices gains little from threads inside of one; side by side they gain all.

    Args:
        measure: Of one item; spends its time where other threads can run (NumPy, torch).
        items: Asked for the next one in the calling thread alone.
        size: Bytes of an item.

    Returns:
        What was measured, in the order of the items, whatever the number of threads.
    """
    import torch

    threads = min(torch.get_num_threads(), _MOST_THREADS)
    if threads == 1:
        return [measure(item) for item in items]
    found: list[_Found] = []
    waiting: deque[tuple[Future[_Found], int]] = deque()
    # told in each thread, for torch's libraries ask the thread that calls them
    alone = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    with _one_thread_each(), alone as pool:
        for item in items:
            while waiting and (
                len(waiting) > threads or sum(held for _, held in waiting) + size(item) > _HELD
            ):
                found.append(waiting.popleft()[0].result())
            waiting.append((pool.submit(measure, item), size(item)))
        found.extend(future.result() for future, _ in waiting)
    return found


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Torch without threads of its own: they would spin while they wait, on cores that are busy already."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
