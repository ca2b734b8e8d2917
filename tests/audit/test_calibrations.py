import math
import tomllib

import pytest

from lab.audit import calibrations
from lab.audit.calibrations import Calibration, Counted, Weight, calibration_toml, load_calibrations
from lab.audit.card import Score
from lab.audit.detectors import DETECTORS
from lab.audit.findings import LOUDEST, Findings, _verdict
from lab.errors import LabError

STATISTICS = DETECTORS[calibrations.JUDGED].statistics


@pytest.fixture
def calibration():
    return Calibration(
        name="small",
        goal="To test with.",
        source="a test",
        base="tiny",
        clean=24,
        poisoned=24,
        allowed=0.05,
        threshold=0.5,
        statistics={name: Weight(mean=1.0, spread=2.0, weight=0.25) for name in STATISTICS},
        test=Counted(clean=60, false_positives=1, poisoned=30, found=28),
    )


def test_a_calibration_comes_back_from_its_file(calibration, tmp_path):
    (tmp_path / "small.toml").write_text(calibration_toml(calibration))
    assert load_calibrations(tmp_path) == {"small": calibration}
    assert tomllib.loads(calibration_toml(calibration))["threshold"] == 0.5


def test_its_score_is_the_weighted_sum(calibration):
    values = dict.fromkeys(STATISTICS, 1.0)
    assert calibration.score(values) == 0
    assert calibration.score(values | {STATISTICS[0]: 5.0}) == pytest.approx(0.25 * (5 - 1) / 2)


def test_a_statistic_that_is_missing_is_no_score(calibration):
    values = dict.fromkeys(STATISTICS, 1.0)
    assert calibration.score(dict.fromkeys(STATISTICS[1:], 1.0)) is None
    assert calibration.score(values | {STATISTICS[0]: math.nan}) is None


def test_a_damaged_file_is_a_sentence(calibration, tmp_path):
    (tmp_path / "small.toml").write_text(
        calibration_toml(calibration).replace("spread = 2.0", "spread = 0.0")
    )
    with pytest.raises(LabError, match="spread"):
        load_calibrations(tmp_path)


def test_the_labs_own_are_of_the_detector_that_is_judged():
    for found in load_calibrations().values():
        assert tuple(found.statistics) == STATISTICS
        assert found.test.clean >= 60
        assert found.test.poisoned >= 30


def test_too_few_references_leave_a_calibration_out(calibration, monkeypatch):
    monkeypatch.setattr(calibrations, "calibration_for", lambda base: calibration)
    found = Findings(None, ())
    found.statistics = dict.fromkeys(STATISTICS, 1.0)
    found.add_calibrated("tiny", 2)
    assert not found.scores
    assert "it needs 5 clean references (--reference), there are 2" in found.not_looked_for[0]


def test_a_threshold_says_that_it_was_not_set_with_references_trained_here(calibration, monkeypatch):
    monkeypatch.setattr(calibrations, "calibration_for", lambda base: calibration)
    found = Findings(None, ())
    found.are_trained = True
    found.statistics = dict.fromkeys(STATISTICS, 9.0)
    found.add_calibrated("tiny", 5)
    assert found.scores[0].suspicious
    assert "none with ones trained here" in found.scores[0].threshold_source
    monkeypatch.setattr(calibrations, "calibration_for", lambda base: None)
    found.add_calibrated("other", 5)
    assert "no cohort of adapters on other" in found.not_looked_for[0]


def test_given_references_have_the_calibrated_score(calibration, monkeypatch):
    monkeypatch.setattr(calibrations, "calibration_for", lambda base: calibration)
    found = Findings(None, ())
    found.statistics = dict.fromkeys(STATISTICS, 1.0)
    found.add_calibrated("tiny", 5)
    assert found.scores[0].value == 0
    assert not found.not_looked_for


class Found:
    def __init__(self, *scores, are_trained=False):
        self.scores, self.base_model, self.are_trained = scores, "tiny", are_trained


def score(finding, value, threshold, name=""):
    return Score(
        name=name or finding, finding=finding, meaning="m", value=value, n=1, of="rows", range="any number",
        direction="high", threshold=threshold, threshold_source="a cohort",
    )  # fmt: skip


def test_the_calibrated_score_decides_alone():
    loud, quiet = score("battery", 2.0, 1.0), score("together", 0.1, 0.5)
    assert _verdict(Found(loud))[0] == "suspicious"
    assert _verdict(Found(loud, quiet))[0] == "nothing found"
    assert _verdict(Found(score("battery", 0.0, 1.0), score("together", 0.9, 0.5)))[0] == "suspicious"
    assert _verdict(Found(score("battery", 0.0, None)))[0] == "cannot say"


def test_the_loudest_prefix_convicts_and_never_clears():
    loud, quiet = score("battery", 0.95, 0.9, LOUDEST), score("battery", 0.6, 0.9, LOUDEST)
    cohort = score("together", 0.1, 0.5)
    assert _verdict(Found(loud, cohort, are_trained=True))[0] == "suspicious"
    assert _verdict(Found(quiet, cohort, are_trained=True))[0] == "nothing found"
    assert _verdict(Found(loud, are_trained=True))[0] == "suspicious"
    verdict, because = _verdict(Found(quiet, are_trained=True))
    assert verdict == "cannot say"
    assert "trained here takes 5" in because
