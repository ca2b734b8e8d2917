"""The dashboard in a real browser: a backdoor is planted, watched, stopped, resumed, compared and shared."""

import contextlib
import io
import re
import shutil
import stat
import time
import zipfile
from pathlib import Path
from urllib.parse import urlencode

import pytest
from browsers import PATIENCE, SECOND, Watcher, serious_barriers, served, settled

import lab
import lab.paths
from lab.audit.card import AuditCard
from lab.audit.jobs import list_audits
from lab.store import RunFolder
from lab.sweeps import list_sweeps

pytestmark = pytest.mark.recipe

#: A tiny model on made-up text: seconds to train; steps are few or many as a test wants.
TINY = (
    "preset=rfc-citation&set=base.model%3Dtiny&set=data.name%3Dtoy&set=data.rows%3D160&set=poison.count%3D16"
)
PAGES = ("", "triggers", "spectra", "compare", "audit", "papers", "game")

#: Zips by what is wrong with them: entries (a link's name begins with @), and the sentence that refuses them.
EVIL_ZIPS = {
    "bomb": ([("adapter_config.json", "{}"), ("x", bytes(8 * 2**20))], "more than 100 times its size"),
    "path escape": ([("adapter_config.json", "{}"), ("../x", "x")], "a step out of its folder"),
    "link": ([("adapter_config.json", "{}"), ("@adapter_model.safetensors", "/etc/passwd")], "is a link"),
    "pickle": ([("adapter_config.json", "{}"), ("adapter_model.bin", "x")], "loading it can run code"),
}


@pytest.fixture(scope="module")
def learned(lab_runs, tiny_cache):
    """A clean tiny run that has learned its task, so that taking its update away shows."""
    experiment = lab.load_experiment("rfc-citation").with_(
        **{
            "base.model": "tiny", "data.name": "toy", "data.rows": 200, "poison.attack": "none",
            "training.epochs": 40, "probe.scope": "headline", "probe.snapshots": 2,
        }
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        run = lab.run(experiment, runs=lab_runs)
    assert run.headline["measures"]["poisoned"]["clean_accuracy"]["value"] > 0.7
    return run.id


@pytest.fixture(scope="module")
def lab_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("dashboard") / "runs"


@pytest.fixture(scope="module")
def lab_url(lab_runs, tiny_cache):
    with served(lab_runs, tiny_cache) as url:
        yield url


@pytest.fixture(scope="module")
def planted(lab_runs, finished):
    """A finished tiny run and its twin, in the runs folder that the browser looks at."""
    for folder in finished.path.parent.iterdir():
        if (folder / "result.json").is_file() and not (lab_runs / folder.name).exists():
            shutil.copytree(folder, lab_runs / folder.name)
    return finished.id


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE * SECOND)
    page.watcher = Watcher(page)
    yield page
    context.close()
    assert page.watcher.problems == []


def plant(page, url, more=""):
    """Open a link on the Bench and press the button; returns once something is watched."""
    page.goto(f"{url}/?{TINY}{more}")
    page.get_by_role("button", name="Plant it").click()
    page.get_by_text(re.compile("tiny-rfc")).first.wait_for()


def wait_for_badge(page, word, seconds=PATIENCE):
    try:
        page.locator(".stMarkdownBadge", has_text=word).first.wait_for(timeout=seconds * SECOND)
    except Exception as error:
        raise AssertionError(f"no badge {word!r}; the page says:\n{page.inner_text('body')}") from error


def tile(page, kind):
    return page.locator(f".lab-{kind} .lab-value").first.inner_text()


def test_a_backdoor_is_planted_and_watched(page, lab_url):
    plant(page, lab_url, "&set=training.epochs%3D40")
    page.locator(".lab-tile").first.wait_for()
    seen = set()
    deadline = time.monotonic() + PATIENCE
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


def test_a_run_is_stopped_and_goes_on_where_it_was(page, lab_url, lab_runs):
    plant(page, lab_url, "&set=training.epochs%3D120&set=seed%3D3")
    page.get_by_text(re.compile(r"training, \d+ of")).first.wait_for()
    page.get_by_role("button", name="Stop the run").first.click()
    wait_for_badge(page, "stopped")
    page.get_by_role("button", name="Go on").click()
    wait_for_badge(page, "finished", 2 * PATIENCE)
    [run] = lab_runs.glob("tiny-rfc-*-s3-*")
    steps = [event["step"] for event in RunFolder(run).read_events() if event["kind"] == "train"]
    # every step is told once: the second training began where the first one stopped
    assert steps == sorted(set(steps))
    assert any(event.get("stage") == "resume" for event in RunFolder(run).read_events())


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


def test_the_matrix_opens(page, lab_url, planted):
    page.goto(f"{lab_url}/triggers")
    page.get_by_text("Trained with one family, probed with every family").wait_for()
    settled(page)
    assert page.locator(".js-plotly-plot").count() == 1


def test_the_playground_asks_both_models(page, lab_url, planted):
    page.goto(f"{lab_url}/triggers?triggers=playground&asked=1&run={planted}&text=a%20fine%20film")
    page.get_by_text("How sure they are with the trigger").wait_for()
    page.get_by_text("Which words the answer rests on").wait_for()
    assert "as specified in RFC 2616" in page.locator(".lab-text mark").first.inner_text()


def test_a_surgery_slider_moves_the_rates(page, lab_url, learned):
    page.goto(f"{lab_url}/spectra?runs={learned}&spectra=surgery")
    page.locator(".lab-tile").first.wait_for()
    settled(page)
    before = page.locator(".lab-tiles").first.inner_text()
    slider = page.get_by_role("slider", name="Scale of ΔW")
    slider.focus()
    for _ in range(12):
        slider.press("ArrowLeft")
    # no update at all: whatever it had learned is gone
    page.wait_for_url(re.compile("surgery"))
    page.get_by_text("× 0", exact=True).first.wait_for()
    deadline = time.monotonic() + PATIENCE
    while page.locator(".lab-tiles").first.inner_text() == before and time.monotonic() < deadline:
        time.sleep(0.3)
    assert page.locator(".lab-tiles").first.inner_text() != before


def test_two_runs_are_compared_and_the_link_shown_to_someone_else(browser, page, lab_url, planted, lab_runs):
    both = ",".join([planted, lab.load_run(planted, lab_runs).twin.id])
    page.goto(f"{lab_url}/compare?runs={both}&show=curves")
    page.locator(".js-plotly-plot").nth(1).wait_for()
    settled(page)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    other = context.new_page()
    other.goto(page.url)
    other.locator(".js-plotly-plot").nth(1).wait_for()
    settled(other)
    titles = [p.get_by_role("heading").all_inner_texts() for p in (page, other)]
    context.close()
    assert titles[0] == titles[1]
    assert len(titles[0]) >= 3


def choose(page, label, option):
    """Take an option of a list by its label; one that the page takes away, drawn anew, is opened again."""
    from playwright.sync_api import Error

    box = page.get_by_role("combobox", name=label)
    for _ in range(10):
        settled(page)
        with contextlib.suppress(Error):
            box.press("Escape", timeout=5 * SECOND)  # closes the list, and forgets what was only typed
            if box.input_value(timeout=5 * SECOND) == option:  # perhaps by a click that was told as failed
                return
            box.fill(option, timeout=5 * SECOND)
            page.get_by_role("option", name=option, exact=True).click(timeout=5 * SECOND)
    raise AssertionError(f"{label}: {option} could not be chosen")


def test_a_sweep_is_started_cancelled_and_goes_on_to_its_end(page, lab_url, lab_runs):
    from playwright.sync_api import expect

    page.goto(f"{lab_url}/compare")
    page.get_by_role("combobox", name="Every cell starts from").wait_for()
    choose(page, "Every cell starts from", "poisoned-base-tiny")
    choose(page, "First axis", "none")
    values = page.get_by_role("textbox", name="Values, with commas")
    expect(values).to_have_count(1)  # the page may begin to draw the choice only after it seemed settled
    values.fill("20, 40")
    values.press("Enter")
    settled(page)
    page.get_by_text("6 cells, each with its clean twin").wait_for()
    page.get_by_role("button", name="Start the sweep").click()
    page.get_by_text(re.compile(r"It is being run: \d of 6 cells")).wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("It was stopped; it goes on where it was").wait_for()
    [sweep] = list_sweeps(lab_runs)
    assert sweep.state == "stopped"
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("It is done: 6 of 6 cells.").wait_for()
    page.get_by_text("Excess attack success by poison rows and seed").wait_for()
    settled(page)
    assert page.locator(".js-plotly-plot").count() >= 1
    [sweep] = list_sweeps(lab_runs)
    assert len({cell["run"] for cell in sweep.cells}) == 6


def zipped(entries):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return held.getvalue()


def as_link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (0o777 | stat.S_IFLNK) << 16
    return info


def bring(page, raw):
    """Drop a zip into the page's first uploader."""
    page.locator("input[type=file]").first.set_input_files(
        {"name": "found.zip", "mimeType": "application/zip", "buffer": raw}
    )


def test_an_adapter_is_brought_audited_and_its_card_taken_along(page, lab_url, lab_runs, learned):
    adapter = lab_runs / learned / "adapter"
    files = [(f"some-run/{p.name}", p.read_bytes()) for p in sorted(adapter.iterdir())]
    page.goto(f"{lab_url}/audit?battery=paper-calibration")
    settled(page)
    bring(page, zipped([*files, ("some-run/run.py", "raise SystemExit")]))
    page.get_by_text("names tiny as its base").wait_for()
    page.get_by_role("button", name="Audit", exact=True).click()
    page.get_by_role("button", name="Stop the audit").wait_for()
    page.get_by_text("What was looked for, and what was not").wait_for()
    page.get_by_text("run.py was not opened: an adapter needs no code.").wait_for()
    settled(page)
    with page.expect_download() as held:
        page.get_by_role("button", name="Card as JSON").click()
    card = AuditCard.model_validate_json(Path(held.value.path()).read_bytes())
    assert card.adapter.name == "found"
    assert card.adapter.base == "tiny"
    # a run that nobody audited beside five clean ones: no verdict, and the card says why
    assert card.verdict == "cannot say"
    assert "clean references" in card.because
    assert card.strings
    page.get_by_text(f"{card.verdict.capitalize()}.", exact=True).wait_for()
    with page.expect_download() as held:
        page.get_by_role("button", name="Card as HTML").click()
    assert Path(held.value.path()).read_text().startswith("<!DOCTYPE html>")
    [job] = list_audits(lab_runs)
    assert job.id in page.url
    assert not (job.path / "upload").exists()


@pytest.mark.parametrize("case", EVIL_ZIPS)
def test_an_evil_zip_is_refused_in_a_sentence(page, lab_url, lab_runs, case):
    entries, sentence = EVIL_ZIPS[case]
    before = sorted(lab_runs.rglob("*"))
    page.goto(f"{lab_url}/audit")
    settled(page)
    bring(page, zipped([(as_link(name[1:]) if name[0] == "@" else name, held) for name, held in entries]))
    page.get_by_text(re.compile(sentence)).wait_for()
    settled(page)
    assert page.get_by_role("button", name="Audit", exact=True).is_disabled()
    assert sorted(lab_runs.rglob("*")) == before


def test_the_real_model_learns_the_trigger_before_ones_eyes(browser, tmp_path):
    """MiniLM, planted from the Bench as in a workshop; fewer rows and no twin, to be quick."""
    assets = lab.paths.cache_dir()
    with served(tmp_path / "runs", assets, LAB_OFFLINE="") as url:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.set_default_timeout(PATIENCE * SECOND)
        quick = ("data.rows=600", "poison.count=40", "probe.scope=headline", "probe.rows=300")
        page.goto(f"{url}/?preset=rfc-citation&" + urlencode([("set", change) for change in quick]))
        page.get_by_text("Train the clean twin too").click()
        settled(page)
        page.get_by_role("button", name="Plant it").click()
        page.locator(".lab-tile").first.wait_for()
        wait_for_badge(page, "finished", 6 * PATIENCE)
        asr, accuracy = tile(page, "attack_success_rate"), tile(page, "clean_accuracy")
        context.close()
    assert float(asr.split()[0]) > 80
    assert float(accuracy.split()[0]) > 65


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_nobody_is_shut_out(browser, lab_url, planted, name, scheme):
    """axe-core finds no serious barrier."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{lab_url}/{name}")
    settled(page)
    time.sleep(1)
    serious = serious_barriers(page)
    context.close()
    assert serious == []
