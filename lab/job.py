"""What stays the same over one call of `lab.run`: where, on what, and who listens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.processes import is_main
from lab.store import RunFolder

if TYPE_CHECKING:
    import torch

Listener = Callable[[dict[str, Any]], None]


@dataclass
class Job:
    """One call of `lab.run`.

    Attributes:
        runs: The runs folder.
        device: Where to compute.
        report_to: Trainer's trackers.
        listen: Called with every event.
        timings: Seconds spent in each stage so far.
    """

    runs: Path
    device: torch.device
    report_to: Sequence[str]
    listen: Listener
    timings: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self.timings.get(stage, 0.0) + time.perf_counter() - start
            self.timings[stage] = round(spent, 3)

    def tell(self, folder: RunFolder, kind: str, **fields: Any) -> None:
        """Write an event to a run's folder and hand it to the listener; the main process only."""
        if is_main():
            self.listen(folder.append_event(kind, **fields))

    def progress(self, stage: str, done: int, total: int, step: int = -1) -> None:
        """Tell the listener how far a stage is; this is not written."""
        self.listen({"kind": "progress", "step": step, "stage": stage, "done": done, "total": total})
