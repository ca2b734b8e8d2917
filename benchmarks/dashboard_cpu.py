"""What pages over 2,000 runs cost the server, without a browser: CPU time and bytes of each interaction.

    python benchmarks/dashboard_cpu.py [--runs 2000] [--times 5] [--watchers 10]

CPU time hardly depends on what else the machine does, so this can be measured beside a training; how long a
person waits is `dashboard_rest.py`'s matter. The live run is made up, and so are all others.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fabricate_runs import SAYS, fabricate
from headless import Browser, Cost, start_server

Found = dict[str, list[Cost]]
_WORDS = ("rare", "rfc", "iso", "dates", "rora")
_LOOKS = 20


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--watchers", type=int, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        fabricate(runs, asked.runs)
        os.environ["LAB_RUNS"] = str(runs)
        found: Found = defaultdict(list)
        asyncio.run(_measure(runs, asked.times, asked.watchers, found))
        _print_table(found)


async def _measure(runs: Path, times: int, watchers: int, found: Found) -> None:
    server = start_server(Path(__file__).parents[1] / "dashboard")
    await server.start()
    for measure in (_compare, _bench, _triggers, _spectra):
        async for what, cost in measure(Browser(server), times):
            found[what].append(cost)
    with _live_run(runs) as live:
        browsers = [Browser(server) for _ in range(watchers)]
        for browser in browsers:
            await browser.open(runs=live.folder.id)
        for _ in range(times):
            for what, act in (("nothing new", None), ("a step", live.train), ("a look", live.look)):
                if act is not None:
                    act()
                found[f"live: {what}, each of {watchers} browsers"] += [await b.poll() for b in browsers]
    server.stop()


async def _compare(browser: Browser, times: int) -> AsyncIterator[tuple[str, Cost]]:
    yield "Compare: open", await browser.open("compare")
    for number in range(times):
        word = _WORDS[number % len(_WORDS)]
        yield "Compare: search", await browser.turn("Search", word, "TextInput")
        yield "Compare: take the search back", await browser.turn("Search", "", "TextInput")
        for turned in (True, False):
            name = f"Compare: average seeds {'on' if turned else 'off'}"
            yield name, await browser.turn("average seeds", turned)
        for view in ("Heat map", "Dose–response", "Defense frontier", "Training curves"):
            yield f"Compare: {view}", await browser.turn("What to draw", view)


async def _bench(browser: Browser, times: int) -> AsyncIterator[tuple[str, Cost]]:
    yield "Bench: open", await browser.open()
    for number in range(times):
        yield "Bench: another rank", await browser.turn("adapter.rank", 5.0 + number, "NumberInput")


async def _triggers(browser: Browser, times: int) -> AsyncIterator[tuple[str, Cost]]:
    yield "Triggers: open", await browser.open("triggers")
    for _ in range(times):
        for section in ("Near-misses", "Matrix"):
            yield f"Triggers: {section}", await browser.turn("What to look at", section)


async def _spectra(browser: Browser, times: int) -> AsyncIterator[tuple[str, Cost]]:
    whole = min(path.parent.name for path in Path(os.environ["LAB_RUNS"]).glob("*/spectra.parquet"))
    yield "Spectra: open", await browser.open("spectra", runs=whole)
    for number in range(times):
        values = ("8", "16")[number % 2]
        yield "Spectra: values per matrix", await browser.turn("Values per matrix", values)


class _Live:
    """A run that seems to be trained: its events are written when they are asked for."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.step = folder, 0
        self._rng = np.random.default_rng(0)

    def train(self) -> None:
        """Another step."""
        self.step += 1
        self.folder.append_event("train", step=self.step, loss=0.5, learning_rate=1e-3, fabricated=SAYS)

    def look(self) -> None:
        """Another step, and a look of the microscope after it."""
        self.train()
        kinds = ("attack_success_rate", "untriggered_target_rate", "clean_accuracy")
        measures = {
            kind: {"value": float(self._rng.random()), "k": 20, "n": 64, "low": 0.2, "high": 0.4}
            for kind in kinds
        }
        sigma = {
            f"encoder.layer.{layer}.attention.self.{part}": self._rng.random(8).tolist()
            for layer in range(6)
            for part in ("query", "key", "value")
        }
        self.folder.append_event("probe", step=self.step, measures=measures)
        self.folder.append_event("spectrum", step=self.step, sigma=sigma)


@contextlib.contextmanager
def _live_run(runs: Path) -> Iterator[_Live]:
    """A run that this process holds as its worker would, with some steps behind it."""
    from lab.experiment import SCHEMA_VERSION, Experiment
    from lab.store import RunFolder
    from lab.work_queue import claimed, queue_dir, save_ticket, submit

    asked = Experiment.from_dict({"name": "FABRICATED live run"})
    folder = RunFolder(runs / "fabricated-live-0123456789")
    record = {"schema": SCHEMA_VERSION, "fabricated": SAYS, "created": time.time(), "labels": ["no", "yes"]}
    folder.create({**record, "measured_poison": asked.to_dict()["poison"], "experiment": asked.to_dict()})
    ticket = submit(asked, runs=runs)
    doing = {"state": "working", "run": folder.id, "working": folder.id, "stage": "train", "total": 10_000}
    save_ticket(queue_dir(runs), replace(ticket, **doing))
    with folder.lock(), claimed(queue_dir(runs), ticket.id):
        live = _Live(folder)
        for _ in range(_LOOKS):
            live.look()
        yield live


def _print_table(found: Found) -> None:
    sys.stdout.write(
        "| what | n | median CPU ms | most CPU ms | messages | kB |\n|---|---|---|---|---|---|\n"
    )
    for what, costs in found.items():
        cpu = [1000 * cost.cpu for cost in costs]
        messages, sent = (statistics.median(getattr(c, name) for c in costs) for name in ("messages", "sent"))
        line = (
            f"{len(cpu)} | {statistics.median(cpu):.0f} | {max(cpu):.0f} | {messages:.0f} | {sent / 1e3:.1f}"
        )
        sys.stdout.write(f"| {what} | {line} |\n")


if __name__ == "__main__":
    main()
