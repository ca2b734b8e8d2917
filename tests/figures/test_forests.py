import pytest

from lab.errors import LabError
from lab.figures import claim_forest
from lab.paper_cards import read_card


@pytest.fixture
def table(tmp_path):
    return read_card("rora", runs=tmp_path).table


def test_every_measured_claim_has_a_line_and_its_number(table):
    figure = claim_forest(table)
    shown = [x for trace in figure.data if trace.customdata is not None for x in trace.x]
    assert sorted(shown) == sorted(table["value"].dropna())
    claims = [note for note in figure.layout.annotations if note.xref == "paper"]
    assert [note.y for note in claims] == list(range(table["value"].notna().sum()))
    theirs = next(trace for trace in figure.data if trace.name == "the paper's")
    assert len(theirs.x) == (table["paper_value"].notna() & table["value"].notna()).sum()


def test_verdicts_differ_in_marker_as_well(table):
    looks = {t.name: t.marker.symbol for t in claim_forest(table).data if t.customdata is not None}
    assert len(set(looks.values())) == len(looks) >= 3


def test_intervals_reach_to_their_ends(table):
    figure = claim_forest(table)
    own = table.dropna(subset=["value"]).set_index("claim")
    for trace in figure.data:
        if trace.customdata is None:
            continue
        for (claim, value), up, down in zip(
            trace.customdata, trace.error_x.array, trace.error_x.arrayminus, strict=True
        ):
            assert value + up == pytest.approx(own.loc[claim, "high"])
            assert value - down == pytest.approx(own.loc[claim, "low"])


def test_nothing_measured_is_a_sentence_and_text_is_harmless(table):
    assert "Nothing of this paper" in claim_forest(table.iloc[:0]).layout.annotations[0].text
    evil = claim_forest(table.assign(says="<b onclick=x>${1}</b>", measured="<i>"))
    assert "<b onclick" not in evil.to_json().replace("\\u003c", "<")
    with pytest.raises(LabError, match="verdict"):
        claim_forest(table.drop(columns=["verdict"]))
