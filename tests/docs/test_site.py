"""The site as it is built: whole, strict, and readable in a room without a network."""

import functools
import http.server
import importlib
import json
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsers import Watcher, serious_barriers

import lab

pytest.importorskip("sphinx")
pytestmark = pytest.mark.recipe

ROOT = Path(__file__).parents[2]
PARTS = ("poison", "probe", "spectra", "audit", "lint", "defend", "sweeps", "stats", "lessons", "figures")
#: Where a page takes something from by itself; a link that one may follow is not among them.
ASSETS = {
    ("link", "href"), ("script", "src"), ("img", "src"), ("img", "srcset"), ("source", "src"),
    ("iframe", "src"), ("object", "data"), ("video", "src"), ("audio", "src"), ("embed", "src"),
}  # fmt: skip
#: Pages of every kind, which are looked at for barriers too.
CONCEPTS = {f"concepts/{page.stem}" for page in (ROOT / "docs" / "concepts").glob("*.md")}
LOOKED_AT = {"index", "reference/commands", "reference/lab", "reference/stats", *CONCEPTS}
VIEWS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


class Page(HTMLParser):
    """The ids, links and assets of a page of HTML."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.assets = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            if (tag, name) == ("a", "href"):
                self.links.append(value)
            if (tag, name) in ASSETS and value:
                self.assets.append(value)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    command = [
        "-m",
        "sphinx",
        "--quiet",
        "--fail-on-warning",
        "--keep-going",
        str(ROOT / "docs"),
        str(target),
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def served(site):
    """The site's address: from a folder, a browser lets no script read a page's styles, as axe-core does."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_every_public_name_is_in_the_reference(pages):
    described = set().union(*(page.ids for name, page in pages.items() if name.startswith("reference/")))
    wanted = {f"lab.{name}" for name in lab.__all__}
    wanted |= {
        f"lab.{part}.{name}"
        for part in PARTS
        for name in importlib.import_module(f"lab.{part}").__all__
        if name not in lab.__all__ or part == "figures"
    }
    assert not wanted - described


def test_every_key_of_an_experiment_is_in_the_reference(site):
    text = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    sections = [field.annotation for field in lab.Experiment.model_fields.values()]
    keys = {key for model in sections if hasattr(model, "model_fields") for key in model.model_fields}
    assert len(keys) > 30
    assert not {key for key in keys if f"<strong>{key}</strong>" not in text}


def test_every_command_is_in_the_reference(pages):
    from typer.main import get_command

    from lab.cli import app

    ids = pages["reference/commands.html"].ids
    assert not {f"lab-{name}" for name in get_command(app).commands} - ids


def test_nothing_is_fetched_from_elsewhere(site, pages):
    assert not [(name, url) for name, page in pages.items() for url in page.assets if _is_remote(url)]
    for style in site.rglob("*.css"):
        taken = re.findall(r"(?:@import\s+|url\()['\"]?([^'\")\s]+)", style.read_text(encoding="utf-8"))
        assert not [url for url in taken if _is_remote(url)], style.name


def test_every_internal_link_and_asset_is_there(site, pages):
    broken = []
    for name, page in pages.items():
        for link in (*page.links, *page.assets):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            path = target.resolve().relative_to(site.resolve()).as_posix()
            anchor = unquote(parts.fragment)
            is_there = target.is_file() and (
                not anchor or path not in pages or anchor in pages[path].ids or anchor == "_top"
            )
            if not is_there:
                broken.append((name, link))
    assert not broken


def test_the_search_index_holds_words_titles_and_names(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    assert "Twins and controls" in index["titles"]
    assert "wilson" in index["terms"]
    assert len(index["terms"]) > 1000
    assert {"lab", "lab.stats"} <= set(index["objects"])


def test_the_search_works_from_a_folder_without_a_network(site, browser):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q=wilson")
    page.locator("ul.search li a").first.wait_for(timeout=60_000)
    assert "stats" in " ".join(page.locator("ul.search li a").all_inner_texts())
    context.close()


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_pages_fit_keep_nobody_out_and_ask_nobody(served, pages, browser, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    watcher = Watcher(page)
    wide, barriers = [], {}
    for name in pages:
        page.goto(f"{served}/{name}")
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(name)
        if name.removesuffix(".html") in LOOKED_AT and (found := serious_barriers(page)):
            barriers[name] = found
    context.close()
    assert not watcher.problems
    assert not wide
    assert not barriers


def _is_remote(url):
    return bool(re.match(r"(?:[a-z]+:)?//", url, re.IGNORECASE))
