"""What the pages say, without building the site."""

import doctest
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONCEPTS = sorted((ROOT / "docs" / "concepts").glob("*.md"))
CODE = re.compile(r"```pycon\n(.*?)```", re.DOTALL)
INTERVAL = re.compile(r"\[[+−-]?\d*\.\d+, [+−-]?\d*\.\d+\]")


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "extensions"))
    import measured

    yield measured
    sys.modules.pop("measured", None)


@pytest.mark.parametrize("page", CONCEPTS, ids=lambda page: page.stem)
def test_code_on_a_page_gives_what_the_page_says(page):
    code = "\n".join(CODE.findall(page.read_text(encoding="utf-8")))
    test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("page", CONCEPTS, ids=lambda page: page.stem)
def test_measured_numbers_are_read_and_not_typed(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    assert "{measured}" in text
    assert not INTERVAL.findall(text)


def test_a_number_is_shown_with_its_interval_and_n(measured):
    line = {"claim_id": "a", "value": "-0.1234", "low": "-0.2", "high": "1.0", "n": "1170"}
    assert measured.shown(line) == "−.12 [−.20, 1.00], n\u00a0=\u00a01,170"


@pytest.mark.parametrize("missing", ["n", "low", "high"])
def test_a_number_without_n_or_interval_is_not_shown(measured, missing):
    line = {"claim_id": "a", "value": "0.5", "low": "0.4", "high": "0.6", "n": "60"}
    with pytest.raises(ValueError, match="a has no interval or no n"):
        measured.shown(line | {missing: ""})


@pytest.mark.parametrize(("value", "told"), [(0.0, ".00"), (-0.001, ".00"), (1.0, "1.00"), (-0.5, "−.50")])
def test_two_digits(measured, value, told):
    assert measured.digits(value) == told
