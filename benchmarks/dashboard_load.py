"""Ten browsers watch one live run in a runs folder of 2,000: how long answers take, as a table.

    python benchmarks/dashboard_load.py [--browsers 10] [--runs 2000] [--seconds 60]

It makes a runs folder of fabricated runs, serves it, plants a tiny run from the first browser and lets all of
them watch it while the last one works in Compare. All traffic stays on this machine. Needs Debian's Chromium.
Browsers draw with the same cores that serve and train: on a small machine ten of them measure mostly
themselves, so `--browsers 2` beside it says what is the server's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

from fabricate_runs import fabricate
from playwright.sync_api import Page, sync_playwright

TINY = (
    "preset=rfc-citation&set=base.model%3Dtiny&set=data.name%3Dtoy&set=data.rows%3D160"
    "&set=poison.count%3D16&set=training.epochs%3D1000"
)
SCREEN = {"width": 1280, "height": 720}
#: Seconds after which a browser that waits has failed.
_PATIENCE = 60
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--port", type=int, default=8599)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        sys.stderr.write(f"making up {asked.runs} runs\n")
        fabricate(runs, asked.runs)
        environment = os.environ | {"LAB_WORKERS": "2", "LAB_RUNS": str(runs)}
        command = [sys.executable, "-m", "lab", "dashboard", "--port", str(asked.port), "--no-browser"]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{asked.port}"
            _wait_for(f"{url}/_stcore/health")
            _print_table(_measure(url, asked.browsers, asked.seconds, runs))
        finally:
            server.terminate()
            server.wait(20)
            subprocess.run(["pkill", "-f", f"lab worker --runs {runs}"], check=False)


def _wait_for(url: str) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


def _measure(url: str, browsers: int, seconds: int, runs: Path) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    with sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium", args=FLAGS
        )
        sessions = [chromium.new_context(viewport=SCREEN, reduced_motion="reduce") for _ in range(browsers)]
        pages = [session.new_page() for session in sessions]
        for page in pages:
            page.set_default_timeout(_PATIENCE * 1000)
        times["first page, nothing else going on"].append(_open(pages[0], f"{url}/?{TINY}", "text=Plant it"))
        pages[0].get_by_role("button", name="Plant it").click()
        pages[0].locator(".lab-tile").first.wait_for()
        for page in pages[1:]:
            times["open the live run"].append(_open(page, pages[0].url, ".lab-tile"))
            sys.stderr.write(f"a browser more, after {times['open the live run'][-1]:.1f} s\n")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            times["live view behind the events file"].append(_behind(pages[0], runs))
            table = "[data-testid=stDataFrame]"
            times["open Compare"].append(_open(pages[-1], f"{url}/compare", table))
            for _ in range(3):
                times["search 2,000 runs in Compare"].append(_search(pages[-1]))
        chromium.close()
    return times


def _open(page: Page, url: str, sign: str) -> float:
    start = time.monotonic()
    page.goto(url)
    page.locator(sign).first.wait_for()
    return time.monotonic() - start


def _search(page: Page) -> float:
    field = page.get_by_role("textbox").first
    start = time.monotonic()
    field.fill("rare" if field.input_value() != "rare" else "rfc")
    field.press("Enter")
    page.locator("[data-testid=stApp][data-test-script-state=running]").wait_for(timeout=3000)
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    return time.monotonic() - start


def _behind(page: Page, runs: Path) -> float:
    """Seconds from a new look of the microscope in the events file until a browser shows its step."""
    from lab.store import RunFolder

    start = time.monotonic()
    while not (found := [folder.parent for folder in runs.glob("tiny-rfc-*/events.jsonl")]):
        if time.monotonic() - start > _PATIENCE:
            raise SystemExit("the planted run did not start; see .queue/worker-1.log in the runs folder")
        time.sleep(0.1)
    [live] = found[:1]
    known = _last_step(RunFolder(live))
    while (step := _last_step(RunFolder(live))) == known and time.monotonic() - start < 20:
        time.sleep(0.05)
    seen = time.monotonic()
    if step == known:
        return float("nan")
    # the page may be a look further by the time that it is asked
    page.wait_for_function(
        "step => [...document.querySelectorAll('.lab-note')].some("
        "note => Number((note.textContent.match(/Step (\\d+):/) || [])[1]) >= step)",
        arg=step,
        timeout=20_000,
    )
    return time.monotonic() - seen


def _last_step(folder: object) -> int:
    steps = [e["step"] for e in folder.read_events() if e["kind"] == "probe"]  # type: ignore[attr-defined]
    return steps[-1] if steps else -1


def _print_table(times: dict[str, list[float]]) -> None:
    sys.stdout.write("| what | n | median s | 95th percentile s | longest s |\n|---|---|---|---|---|\n")
    for what, found in times.items():
        values = sorted(v for v in found if v == v)
        if values:
            late = values[min(len(values) - 1, round(0.95 * len(values)))]
            middle = statistics.median(values)
            sys.stdout.write(f"| {what} | {len(values)} | {middle:.2f} | {late:.2f} | {values[-1]:.2f} |\n")


if __name__ == "__main__":
    main()
