"""The dashboard in a real browser: a backdoor is planted, watched, stopped, resumed, compared and shared.

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

pytestmark = pytest.mark.recipe

REQUIRED = os.environ.get("LAB_BROWSER") == "required"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SECOND = 1000
#: A tiny model on made-up text: seconds to train; steps are few or many as a test wants.
TINY = (
    "preset=rfc-citation&set=base.model%3Dtiny&set=data.name%3Dtoy&set=data.rows%3D160&set=poison.count%3D16"
)
PAGES = ("", "triggers", "spectra", "compare")


def _need(there, what):
    if not there:
        if REQUIRED:
            pytest.fail(f"{what} is needed here")
        pytest.skip(f"no {what}")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(runs, assets, **environment):
    """A dashboard over a runs folder, as `lab dashboard` serves it."""
    port = _free_port()
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
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


class Watcher:
    """A page that writes down what went wrong: console errors, and requests that leave this machine."""

    def __init__(self, page):
        self.problems = []
        page.on("console", lambda m: m.type == "error" and self.problems.append(f"console: {m.text}"))
        page.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        page.on("request", self._request)

    def _request(self, request):
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", request.url):
            self.problems.append(f"request: {request.url}")


@pytest.fixture(scope="module")
def browser():
    _need(Path(CHROMIUM).is_file(), "Chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab_url(tmp_path_factory, tiny_cache):
    runs = tmp_path_factory.mktemp("dashboard") / "runs"
    with served(runs, tiny_cache) as url:
        yield url


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(45 * SECOND)
    page.watcher = Watcher(page)
    yield page
    context.close()
    assert page.watcher.problems == []


def plant(page, url, more=""):
    """Open a link on the Bench and press the button; returns once something is watched."""
    page.goto(f"{url}/?{TINY}{more}")
    page.get_by_role("button", name="Plant it").click()
    page.get_by_text(re.compile("tiny-rfc")).first.wait_for()


def wait_for_badge(page, word, seconds=120):
    page.locator(".stMarkdownBadge", has_text=word).first.wait_for(timeout=seconds * SECOND)


def tile(page, kind):
    return page.locator(f".lab-{kind} .lab-value").first.inner_text()


def settled(page):
    """Wait until the page is drawn: nothing is running, no skeleton is left."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.locator("[data-testid=stSkeleton]").first.wait_for(state="detached")


def test_a_backdoor_is_planted_and_watched(page, lab_url):
    plant(page, lab_url, "&set=training.epochs%3D40")
    page.locator(".lab-tile").first.wait_for()
    seen = set()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and page.locator(".stMarkdownBadge", has_text="finished").count() == 0:
        with contextlib.suppress(Exception):
            seen.add((tile(page, "attack_success_rate"), tile(page, "clean_accuracy")))
        time.sleep(0.3)
    wait_for_badge(page, "finished")
    assert len(seen) > 1, "no number moved"
    page.get_by_text("What else fires it: held-out members of every family").wait_for()
    page.get_by_text("How near is near: the trigger, changed step by step").wait_for()
    assert page.locator(".js-plotly-plot").count() >= 3


def test_the_preview_marks_the_trigger(page, lab_url):
    page.goto(f"{lab_url}/?{TINY}&set=poison.family%3Dcustom&set=poison.member%3D%3Cb%3Ehello%3C/b%3E")
    mark = page.locator(".lab-text mark").first
    mark.wait_for()
    # what people type is text, whatever it looks like
    assert "<b>hello</b>" in mark.inner_text()


def test_a_run_is_stopped_and_goes_on_where_it_was(page, lab_url):
    plant(page, lab_url, "&set=training.epochs%3D400&set=seed%3D3")
    page.get_by_text(re.compile(r"training, \d+ of")).first.wait_for()
    page.get_by_role("button", name="Stop").first.click()
    wait_for_badge(page, "stopped")
    page.get_by_role("button", name="Go on").click()
    page.get_by_text(re.compile(r"training, \d+ of")).first.wait_for()
    wait_for_badge(page, "finished", 300)


def test_a_link_reproduces_the_view_in_another_browser(browser, page, lab_url):
    page.goto(f"{lab_url}/?{TINY}&set=adapter.rank%3D3&set=poison.family%3Drare_words")
    page.locator(".lab-text mark").first.wait_for()
    settled(page)
    other = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    other.goto(page.url)
    other.locator(".lab-text mark").first.wait_for()
    settled(other)
    texts = [p.locator(".lab-text").all_inner_texts() for p in (page, other)]
    assert texts[0] == texts[1]
    assert other.get_by_label("rank", exact=True).first.input_value() == "3"
    other.context.close()


def test_the_matrix_opens(page, lab_url):
    page.goto(f"{lab_url}/triggers")
    settled(page)
    page.locator(".js-plotly-plot").first.wait_for()


def test_a_surgery_moves_the_rates(page, lab_url):
    page.goto(f"{lab_url}/")
    settled(page)
    run = page.evaluate("() => 0")
    assert run == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_nobody_is_shut_out(browser, lab_url, name, scheme):
    """axe-core finds no serious barrier."""
    axe = os.environ.get("LAB_AXE", "")
    _need(axe and Path(axe).is_file(), "axe-core (LAB_AXE)")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{lab_url}/{name}")
    settled(page)
    time.sleep(1)
    page.add_script_tag(path=axe)
    found = page.evaluate("async () => (await axe.run(document)).violations")
    serious = [
        f"{v['id']}: {v['help']} at {v['nodes'][0]['target']} ({len(v['nodes'])} places)"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    context.close()
    assert serious == []
