import pandas as pd
import pytest

from lab.audit import counted_detectors
from lab.errors import LabError
from lab.figures import detector_rates


@pytest.fixture
def table():
    return counted_detectors("minilm")


def test_every_detector_has_both_rates_with_their_intervals(table):
    figure = detector_rates(table)
    own = table[table["allowed"] == 0.05].set_index("detector")
    assert len(own) == 14
    for trace, kind in zip(figure.data, ("recall", "false_positives"), strict=True):
        assert [handed[0] for handed in trace.customdata] == list(own.index)
        assert {handed[1] for handed in trace.customdata} == {kind}
        for (detector, _), value, up, down in zip(
            trace.customdata, trace.x, trace.error_x.array, trace.error_x.arrayminus, strict=True
        ):
            line = own.loc[detector]
            assert value == line[kind]
            assert value + up == pytest.approx(line[f"{kind}.high"])
            assert value - down == pytest.approx(line[f"{kind}.low"])


def test_the_two_rates_differ_in_marker_and_tell_their_counts(table):
    figure = detector_rates(table[table["detector"] == "search_few"])
    assert len({trace.marker.symbol for trace in figure.data}) == 2
    assert "17 of 30" in figure.data[0].hovertext[0]
    assert "5 of 60" in figure.data[1].hovertext[0]


def test_another_allowed_share_is_shown_or_refused(table):
    assert list(detector_rates(table, 0.0).data[0].x) != list(detector_rates(table).data[0].x)
    with pytest.raises(LabError, match=r"counted with 0, 0\.05"):
        detector_rates(table, 0.2)


def test_a_name_is_only_text(table):
    evil = detector_rates(table.assign(detector="<b onclick=x>"))
    for shown in (*evil.layout.yaxis.ticktext, *evil.data[0].hovertext):
        assert "<b onclick" not in shown


def test_of_no_adapter_there_is_no_rate(table):
    parts = ("", ".low", ".high")
    figure = detector_rates(table.assign(**{f"recall{part}": float("nan") for part in parts}))
    assert all(pd.isna(value) for value in figure.data[0].x)
    assert "none to count" in figure.data[0].hovertext[0]
