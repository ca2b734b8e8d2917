"""A dashboard that is served, and browsers that look at it.

Chromium is Debian's; `LAB_AXE` names axe-core's script for the accessibility check. Where they are missing
the tests are skipped, unless `LAB_BROWSER=required`, as in the whole check.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

REQUIRED = os.environ.get("LAB_BROWSER") == "required"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SECOND = 1000
#: Seconds for anything to happen; what is slow on a busy machine is not wrong.
PATIENCE = 240


def need(there, what):
    if not there:
        if REQUIRED:
            pytest.fail(f"{what} is needed here")
        pytest.skip(f"no {what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(runs, assets, **environment):
    """A dashboard over a runs folder, as `lab dashboard` serves it."""
    port = free_port()
    env = os.environ | {"LAB_ASSETS": str(assets), "LAB_OFFLINE": "1", "LAB_RUNS": str(runs)}
    # two workers have one thread each: two threads fight over such small products
    env |= {"LAB_WORKERS": "2"} | environment
    command = [
        sys.executable,
        "-m",
        "lab",
        "dashboard",
        "--port",
        str(port),
        "--no-browser",
        "--runs",
        str(runs),
    ]
    with (Path(runs).parent / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


class Watcher:
    """A page that writes down what went wrong: console errors, and requests that leave this machine."""

    def __init__(self, page):
        self.problems = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        page.on("request", self._request)

    def _console(self, message):
        # opened on a page of its own, Streamlit asks for its server below that page first, and is told no
        is_probe = re.search(r"/\w+/_stcore/(health|host-config)$", message.location.get("url", ""))
        if message.type == "error" and not is_probe:
            self.problems.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _request(self, request):
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", request.url):
            self.problems.append(f"request: {request.url}")


def settled(page):
    """Wait until the page is drawn: nothing is running, no skeleton is left."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.locator("[data-testid=stSkeleton]").first.wait_for(state="detached")


def serious_barriers(page):
    """What axe-core finds on a page that keeps people out."""
    axe = os.environ.get("LAB_AXE", "")
    need(axe and Path(axe).is_file(), "axe-core (LAB_AXE)")
    page.add_script_tag(path=axe)
    found = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{v['id']}: {v['help']} at {v['nodes'][0]['target']} ({len(v['nodes'])} places)"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
