import pytest

from lab.audit import counted_detectors
from lab.audit.calibrations import CALIBRATIONS, JUDGED
from lab.audit.detectors import DETECTORS
from lab.errors import LabError
from lab.stats import clopper_pearson


@pytest.mark.parametrize("cohort", ["minilm", "minilm-narrow"])
def test_counts_agree_with_their_intervals(cohort):
    table = counted_detectors(cohort)
    assert set(table["detector"]) <= set(DETECTORS)
    assert not table.duplicated(["detector", "allowed"]).any()
    for line in table.to_dict("records"):
        for kind in ("recall", "false_positives"):
            ends = clopper_pearson(line[f"{kind}.k"], int(line[f"{kind}.n"]))
            assert (line[f"{kind}.low"], line[f"{kind}.high"]) == pytest.approx(ends, abs=1e-4)
            assert line[f"{kind}.k"] / line[f"{kind}.n"] == pytest.approx(line[kind], abs=1e-4)


def test_the_verdicts_line_is_the_calibrations():
    table = counted_detectors("minilm")
    line = table[(table["detector"] == JUDGED) & (table["allowed"] == 0.05)].iloc[0]
    test = CALIBRATIONS["minilm"].test
    assert (line["recall.k"], line["recall.n"]) == (test.found, test.poisoned)
    assert (line["false_positives.k"], line["false_positives.n"]) == (test.false_positives, test.clean)


def test_an_unknown_cohort_lists_those_that_were_counted():
    with pytest.raises(LabError, match="Valid: minilm, minilm-narrow"):
        counted_detectors("smollm2")
