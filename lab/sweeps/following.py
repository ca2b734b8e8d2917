"""How far a sweep is: counted, told to the listener, and written to its record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lab.sweeps.asking import Lost
from lab.sweeps.doing import Listener, Outcome
from lab.sweeps.grid import Cell
from lab.sweeps.plan import SweepJob
from lab.sweeps.records import SweepRecord

NAN = float("nan")


class Following:
    """Keeps count of a sweep's cells and jobs.

    The best cell so far is told by the measure that a tuning maximises, or else by clean accuracy: the one
    figure that every run has, and the one that says whether training works at all.

    Args:
        record: Where the state is written.
        listen: Called with `{"kind": "sweep", …}` after every job that ends, and with
            `{"kind": "tuning", …}` for each tuning that lost candidates.
        measure: What the best cell is told by, the largest being best.
        about: What does not change: executor, workers.
    """

    def __init__(self, record: SweepRecord, listen: Listener, measure: str, about: dict[str, Any]) -> None:
        self._record, self._listen, self._measure, self._about = record, listen, measure, about
        self._cells: list[dict[str, Any]] = []
        self._main: list[dict[str, Any]] = []
        self._places: dict[str, list[int]] = {}
        self._jobs: dict[str, SweepJob] = {}
        self._ended: dict[str, Outcome] = {}
        self._stage = "cells"
        self._start = time.monotonic()
        self._best: dict[str, Any] = {}
        self._tunings: list[dict[str, Any]] = []

    def begin(self, stage: str, cells: Sequence[Cell], jobs: Sequence[SweepJob], keys: Sequence[str]) -> None:
        """Begin a stage: "tuning" or "cells"; `keys` names the job of each cell."""
        self._stage, self._start, self._ended, self._places = stage, time.monotonic(), {}, {}
        self._cells = [
            {"point": c.shown, "seed": c.seed, "state": "waiting", "run": "", "reason": ""} for c in cells
        ]
        if stage == "cells":
            self._main, self._best = self._cells, {}
        self._jobs = {job.key: job for job in jobs}
        for place, key in enumerate(keys):
            self._places.setdefault(key, []).append(place)
        self._write(now=True)

    def waiting(self, cells: Sequence[Cell]) -> None:
        """Name the cells that come after a tuning."""
        self._main = [
            {"point": c.shown, "seed": c.seed, "state": "waiting", "run": "", "reason": ""} for c in cells
        ]

    def tuned(self, lost: Sequence[tuple[dict[str, Any], Lost]]) -> None:
        """Note and tell which points were tuned without some of the candidates."""
        self._tunings = [{"point": point, "text": str(of), "failed": of.failed} for point, of in lost]
        for told in self._tunings:
            self._listen({"kind": "tuning", "step": -1, **told})

    def begun(self, job: SweepJob) -> None:
        """Note that a worker has taken a job."""
        for place in self._places.get(job.key, []):
            self._cells[place]["state"] = "running"
        self._write()

    def ended(self, outcome: Outcome, line: dict[str, Any]) -> None:
        """Note how a job ended, and what a cell's run says: a line of the table, {} for other jobs."""
        self._ended[outcome.key] = outcome
        places = self._places.get(outcome.key, [])
        for place in places:
            state = "failed" if outcome.reason else "finished"
            self._cells[place].update(state=state, run=outcome.run, reason=outcome.reason)
        value = line.get(self._measure, NAN)
        if places and value == value and not value <= self._best.get("value", -1.0):
            cell = self._cells[places[0]]
            self._best = {
                "point": cell["point"], "seed": cell["seed"], "run": outcome.run,
                "measure": self._measure, "value": value,
            }  # fmt: skip
        self._write(now=len(self._ended) == len(self._jobs))
        self._listen(self._event(outcome, places, line))

    def close(self, state: str, reason: str = "") -> None:
        """Write how the sweep ended, and why where that is no cell's doing."""
        self._write(now=True, state=state, reason=reason)

    def _event(self, outcome: Outcome, places: list[int], line: dict[str, Any]) -> dict[str, Any]:
        cell = self._cells[places[0]] if places else {}
        job = self._jobs[outcome.key]
        return {
            "kind": "sweep",
            "step": -1,
            "stage": self._stage,
            "job": job.kind,
            "point": cell.get("point", {}),
            "seed": cell.get("seed", job.experiment["seed"]),
            "run": outcome.run,
            "worked": outcome.worked,
            "reason": outcome.reason,
            "done": sum(c["state"] in ("finished", "failed") for c in self._cells),
            "total": len(self._cells),
            "jobs": self._count(),
            "per_minute": self.per_minute(),
            "left": self.left(),
            "best": self._best,
            "measures": {k: line[k] for k in ("clean_accuracy", "attack_success_rate") if k in line},
        }

    def _count(self) -> tuple[int, int]:
        return len(self._ended), len(self._jobs)

    def per_minute(self) -> float:
        """Cells trained in a minute, twins and all; those that were there already do not count."""
        trained = sum(o.worked and self._jobs[k].kind == "cell" for k, o in self._ended.items())
        return 60 * trained / max(time.monotonic() - self._start, 1e-9) if trained else NAN

    def left(self) -> float:
        """Seconds that the stage will still take, if the rest goes as what was trained so far."""
        done = [o for o in self._ended.values() if o.worked]
        if not done:
            return NAN
        waiting = len(self._jobs) - len(self._ended)
        return waiting * (time.monotonic() - self._start) / len(done)

    def _write(self, *, now: bool = False, state: str = "running", reason: str = "") -> None:
        told = {
            **self._about,
            "state": state,
            "reason": reason,
            "stage": self._stage,
            "cells": self._main,
            "jobs": self._count(),
            "per_minute": self.per_minute(),
            "left": self.left(),
            "best": self._best,
            "tunings": self._tunings,
        }
        self._record.write(told, now=now)
