"""Who listens where nobody was named: a bar in a notebook, bars on a terminal, nobody anywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lab.processes import is_main

if TYPE_CHECKING:
    from lab.job import Listener


@contextlib.contextmanager
def showing(on_event: Listener | None) -> Iterator[Listener]:
    """The given listener, or the one that suits this place, for the time of the block.

    Args:
        on_event: Who listens; None for a bar in a notebook and on a terminal. `LAB_QUIET=1` draws nothing.
    """
    if on_event is not None:
        yield on_event
    elif os.environ.get("LAB_QUIET") or not is_main():
        yield lambda _: None
    elif in_notebook():
        from lab.notebook_view import NotebookView

        with NotebookView() as view:
            yield view
    elif sys.stderr is not None and sys.stderr.isatty():
        from lab.console import ProgressView

        with ProgressView() as bars:
            yield bars
    else:
        yield lambda _: None


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel; IPython is not imported for it."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
