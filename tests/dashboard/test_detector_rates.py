"""The detectors on the page Audit: what the lab counted, what this machine did, and one of one's own."""

import pytest
from apps import healthy, said
from judged import judged_folder

from lab.audit.detectors import DETECTORS, Detector


@pytest.fixture
def mine(monkeypatch):
    """A detector of one's own, that rests on what a cohort has measured."""
    own = Detector("mine", "what <b>I</b> look at", "me", ("search.string_shift",))
    monkeypatch.setitem(DETECTORS, own.name, own)


def registered(app):
    [table] = app.dataframe
    return table.value.set_index("detector")["counted above"].to_dict()


def test_the_labs_count_is_shown_and_every_detector_is_named(page, tmp_path):
    app = healthy(page("audit", tmp_path / "runs"))
    assert "Poisoned adapters found, and clean ones alarmed at" in said(app)
    assert registered(app).keys() == DETECTORS.keys()
    assert registered(app)["combined"] == "yes"


def test_ones_own_detector_is_there_and_counted_where_a_cohort_is(page, mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = healthy(page("audit", tmp_path / "runs"))
    assert registered(app)["mine"] == "no"
    judged_folder(tmp_path, lambda facts, i: 5.0 * facts["poisoned"] + 0.01 * i, name="cohorts/tiny")
    app = healthy(page("audit", tmp_path / "runs", cohort="tiny"))
    assert registered(app)["mine"] == "yes"
    assert registered(app)["combined"] == "no"
