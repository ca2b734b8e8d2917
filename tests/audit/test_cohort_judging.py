import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import judged_folder

from lab.audit.cohort_builds import member_facts
from lab.audit.cohort_judging import judge_cohort, recall_by
from lab.audit.cohort_scores import STAGES, score_cohort, score_table
from lab.audit.cohorts import COHORTS, plan_cohort
from lab.audit.detectors import DETECTORS, fit_score, left_out_scores
from lab.errors import LabError


def line_of(table, detector, allowed):
    return table[(table["detector"] == detector) & (table["allowed"] == allowed)].iloc[0]


def test_a_detector_that_tells_all_apart_has_everything(tmp_path):
    folder, members = judged_folder(tmp_path, lambda facts, i: 5.0 * facts["poisoned"] + 0.01 * i)
    found = line_of(judge_cohort("tiny", folder=folder), "search_shift", 0.0)
    test = [m for m in members if m["part"] == "test"]
    assert found["auc"] == 1
    assert found["recall.k"] == found["recall.n"] == sum(m["poisoned"] for m in test)
    assert found["false_positives.n"] == sum(not m["poisoned"] for m in test)
    assert found["left_out"] == 0
    by_family = recall_by("family", "search_shift", name="tiny", folder=folder)
    assert by_family["n"].sum() == found["recall.n"]
    assert (by_family["recall"] == 1).all()


def test_the_direction_is_that_of_the_calibration_part(tmp_path):
    folder, _ = judged_folder(tmp_path, lambda facts, i: -5.0 * facts["poisoned"] + 0.01 * i)
    found = line_of(judge_cohort("tiny", folder=folder), "search_shift", 0.0)
    assert (found["direction"], found["auc"]) == (-1, 1)


def test_the_test_part_moves_no_threshold(tmp_path):
    def of(scale):
        return lambda facts, i: (scale if facts["part"] == "test" else 1.0) * (facts["poisoned"] + 0.01 * i)

    asked = {}
    for scale in (1.0, 40.0):
        (tmp_path / str(scale)).mkdir()
        folder, _ = judged_folder(tmp_path / str(scale), of(scale))
        table = judge_cohort("tiny", folder=folder)
        asked[scale] = table[["detector", "allowed", "threshold", "direction"]]
    assert asked[1.0].equals(asked[40.0])


def test_an_adapter_without_a_score_raises_no_alarm(tmp_path):
    members = [member_facts(m) for m in plan_cohort("tiny")]
    silent = [i for i, m in enumerate(members) if m["part"] == "test" and m["poisoned"]][:1]
    folder, _ = judged_folder(tmp_path, lambda facts, i: 5.0 * facts["poisoned"] + 0.01 * i, silent=silent)
    found = line_of(judge_cohort("tiny", folder=folder), "search_shift", 0.0)
    assert found["left_out"] == 1
    assert found["recall.k"] == found["recall.n"] - 1
    assert found["auc"] < 1


def test_what_was_not_measured_has_no_line(tmp_path):
    folder, _ = judged_folder(tmp_path, lambda facts, i: facts["poisoned"] + 0.01 * i)
    assert set(judge_cohort("tiny", folder=folder)["detector"]) == {"search_shift"}
    with pytest.raises(LabError, match="was it measured"):
        recall_by("family", "weight_spread", name="tiny", folder=folder)
    with pytest.raises(LabError, match="search_shift"):
        recall_by("family", "no-such", name="tiny", folder=folder)


def test_a_cohort_that_was_not_begun_is_refused(tmp_path):
    with pytest.raises(LabError, match="key"):
        score_cohort("tiny", folder=tmp_path / "none")
    with pytest.raises(LabError, match="measured"):
        score_table(tmp_path / "none")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"part": "validation"}, "validation"),
        ({"stages": ("luck",)}, "luck"),
        ({"stages": ("peer",)}, "AdapterSentry"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path, asked, said):
    with pytest.raises(LabError, match=said):
        score_cohort("tiny", folder=tmp_path, **asked)


def test_every_statistic_of_a_detector_belongs_to_a_stage():
    for detector in DETECTORS.values():
        assert all(statistic.partition(".")[0] in STAGES for statistic in detector.statistics)
    assert set(COHORTS) >= {"tiny", "minilm"}


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_weights_that_are_learned_from_noise_tell_nothing(seed):
    """Scores of left-out adapters are not better than chance because the weights saw the others."""
    random = np.random.default_rng(seed)
    values, poisoned = random.normal(size=(48, 6)), np.arange(48) % 2 == 0
    within = fit_score(values, poisoned)(values)
    without = left_out_scores(values, poisoned)
    gap = [s[poisoned].mean() - s[~poisoned].mean() for s in (within, without)]
    assert gap[1] < gap[0]


def test_what_tells_them_apart_gets_the_weight():
    random = np.random.default_rng(0)
    poisoned = np.arange(48) % 2 == 0
    values = random.normal(size=(48, 3))
    values[:, 1] += 6.0 * poisoned
    learned = fit_score(values, poisoned)
    assert learned.weights.argmax() == 1
    scores = left_out_scores(values, poisoned)
    assert scores[poisoned].min() > scores[~poisoned].max()


def test_references_are_the_clean_calibration_adapters_of_the_cohort_that_is_named(tmp_path, monkeypatch):
    from lab.audit import cohort_scores

    (tmp_path / "other").mkdir()
    folder, _ = judged_folder(tmp_path, lambda facts, i: 0.0)
    other, _ = judged_folder(tmp_path / "other", lambda facts, i: 0.0)
    opened = []
    monkeypatch.setattr("lab.audit.adapter_files.open_adapter", lambda path: opened.append(path) or path)
    monkeypatch.setattr("lab.audit.suspects.load_suspect", lambda files, base, **_: files)
    asked = []

    def search(suspect, references, texts, **_):
        asked.append((suspect, references))
        raise LabError("nothing to find.")

    monkeypatch.setattr("lab.audit.trigger_search.search_triggers", search)
    key = cohort_scores.key_table(other)
    clean = key[(key["part"] == "calibration") & ~key["poisoned"].astype(bool)]
    score_cohort("tiny", folder=folder, calibrated_by=other, stages=("search",))
    assert len(asked) == len(cohort_scores.key_table(folder))
    for suspect, references in asked:
        assert suspect.is_relative_to(folder)
        assert references
        assert {r.name for r in references} <= set(clean["id"])
        assert all(r.is_relative_to(other) for r in references)
