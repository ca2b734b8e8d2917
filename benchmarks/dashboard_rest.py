"""One browser at rest over 2,000 runs: how long each interaction takes that needs no model, as a table.

    python benchmarks/dashboard_rest.py [--runs 2000] [--times 5]

From the press to the end of the page's last script run, drawing in the browser included. Nothing else should
run on the machine. All traffic stays on it. Needs Debian's Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from dashboard_load import FLAGS, SCREEN, _open, _print_table, _wait_for
from fabricate_runs import fabricate
from playwright.sync_api import Page, sync_playwright

#: Milliseconds of quiet after which a page has answered.
_QUIET = 400
_WATCH = """
() => {
  const app = document.querySelector('[data-testid=stApp]');
  window.labDone = performance.now();
  new MutationObserver(() => { window.labDone = performance.now(); })
    .observe(app, {attributes: true, attributeFilter: ['data-test-script-state']});
}
"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--port", type=int, default=8598)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        fabricate(runs, asked.runs)
        command = [sys.executable, "-m", "lab", "dashboard", "--port", str(asked.port), "--no-browser"]
        environment = os.environ | {"LAB_RUNS": str(runs)}
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{asked.port}"
            _wait_for(f"{url}/_stcore/health")
            _print_table(_measure(url, asked.times))
        finally:
            server.terminate()
            server.wait(20)


def _measure(url: str, times: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    with sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium", args=FLAGS
        )
        for number in range(times):
            page = chromium.new_context(viewport=SCREEN, reduced_motion="reduce").new_page()
            kind = (
                "first page after the server's start" if number == 0 else "first page, a new browser session"
            )
            found[kind].append(_open(page, url, ".lab-text mark"))
            page.context.close()
        page = chromium.new_context(viewport=SCREEN, reduced_motion="reduce").new_page()
        _measure_bench(page, url, times, found)
        _measure_compare(page, url, times, found)
        chromium.close()
    return found


def _measure_bench(page: Page, url: str, times: int, found: dict[str, list[float]]) -> None:
    _open(page, url, ".lab-text mark")
    _settle(page)
    rank = page.get_by_label("rank", exact=True).first
    for number in range(times):

        def act(value: int = 5 + number) -> None:
            rank.fill(str(value))
            rank.press("Enter")

        found["Bench: another rank"].append(_answer(page, act))


def _measure_compare(page: Page, url: str, times: int, found: dict[str, list[float]]) -> None:
    _open(page, f"{url}/compare", "[data-testid=stDataFrame]")
    _settle(page)
    field = page.get_by_role("textbox").first
    for number in range(times):

        def search(word: str = ("rare", "rfc")[number % 2]) -> None:
            field.fill(word)
            field.press("Enter")

        found["Compare: search"].append(_answer(page, search))
        for name in ("Heat map", "Dose–response", "Training curves"):
            button = page.get_by_role("radio", name=name).or_(page.get_by_role("button", name=name)).first
            found[f"Compare: {name}"].append(_answer(page, button.click))
        seeds = page.get_by_text("Average seeds").first
        found["Compare: average seeds, on and off"].append(_answer(page, seeds.click))


def _settle(page: Page) -> None:
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_timeout(1000)
    page.evaluate(_WATCH)


def _answer(page: Page, act: Callable[[], object]) -> float:
    """Seconds from an action to the last change of the page's state before it is quiet."""
    before = float(page.evaluate("() => { window.labDone = performance.now(); return window.labDone; }"))
    act()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        page.wait_for_timeout(_QUIET / 4)
        now, done = page.evaluate("() => [performance.now(), window.labDone]")
        if done > before and now - done > _QUIET:
            return float(done - before) / 1000
        if done == before and now - before > 3000:
            return float("nan")
    raise SystemExit("a page did not answer within 30 s")


if __name__ == "__main__":
    main()
