"""The first lesson in JupyterLab, in a real browser, from the command that learners type."""

import contextlib
import os
import re
import subprocess
import sys
import time

import nbformat
import pytest
from browsers import PATIENCE, SECOND, Watcher, free_port

from lab.lessons import LESSONS

pytestmark = pytest.mark.recipe

LESSON = LESSONS["00"].built.name


@pytest.fixture
def jupyterlab(tmp_path, tiny_cache):
    """The address of `lab notebook`, the token in it, and the folder that it serves."""
    folder, port, log = tmp_path / "lessons", free_port(), tmp_path / "jupyter.log"
    command = [sys.executable, "-m", "lab", "notebook", "--folder", str(folder), "--port", str(port)]
    env = os.environ | {"LAB_ASSETS": str(tiny_cache), "LAB_LESSON_SIZE": "small", "OMP_NUM_THREADS": "1"}
    # settings of a person who runs the tests are not this person's
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "HOME": str(tmp_path)}
    with log.open("wb") as file:
        server = subprocess.Popen([*command, "--no-browser"], env=env, stdout=file, stderr=file)
    try:
        yield _address(log, server), folder
    finally:
        server.terminate()
        server.wait(60)


def _address(log, server):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            found = re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", log.read_text(errors="replace"))
            if found:
                return found[0]
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not come up: {log.read_text(errors='replace')[-2000:]}")


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_the_first_lesson_runs_from_top_to_bottom(jupyterlab, browser):
    address, folder = jupyterlab
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE * SECOND)
    watcher = Watcher(page)
    page.goto(address.replace("/lab?", f"/lab/tree/{LESSON}?"))
    page.get_by_role("heading", name="00 · Your first backdoor").wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(state="attached")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    number = len(code_cells(folder / LESSON))
    # the last cell has been run once its number stands beside it
    page.keyboard.press("Control+End")
    page.get_by_text(f"[{number}]:", exact=True).last.wait_for()
    page.keyboard.press("Control+s")
    end = time.monotonic() + 30
    while time.monotonic() < end and code_cells(folder / LESSON)[-1].execution_count != number:
        time.sleep(0.2)
    cells = code_cells(folder / LESSON)
    assert [cell.execution_count for cell in cells] == list(range(1, number + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "application/vnd.plotly.v1+json" in kinds
    page.locator(".js-plotly-plot .main-svg").first.scroll_into_view_if_needed()
    assert page.locator(".js-plotly-plot .main-svg").first.is_visible()
    assert page.get_by_text("Jupyter news").count() == 0, "nobody is asked what needs a network"
    page.screenshot(path=folder / "lesson.png")
    assert not watcher.problems
