import pytest

from lab.errors import LabError
from lab.paper_cards import load_claims, paper_names, read_card
from lab.paper_cards.evidence import check_quantity, committed_lines, line_names

FILES = paper_names()
MINIMAL = """
[paper]
arxiv = "0"
title = "T"
says = "S"
theirs = "t"
ours = "o"
[sources.s]
preset = "rfc-citation"
[[claims]]
id = "a"
says = "It is so."
place = "Table 1"
paper = "1"
[claims.quantity]
source = "s"
measure = "clean_accuracy"
above = 0.5
"""


def test_there_is_a_file_for_each_paper():
    assert set(FILES) == {"token-generalization", "rora", "ssti", "lora-vs-full"}


@pytest.mark.parametrize("name", FILES)
def test_every_claim_asks_for_what_there_is(name):
    claims = load_claims(name)
    assert len({claim.id for claim in claims.claims}) == len(claims.claims)
    for claim in claims.claims:
        assert claim.place.strip()
        assert claim.says.endswith((".", "?"))
        if claim.quantity is None:
            assert claim.note, f"{claim.id} is answered by nothing, and does not say why"
        else:
            check_quantity(claim.quantity, claims.sources[claim.quantity.source])


@pytest.mark.parametrize("name", FILES)
def test_lines_that_claims_name_themselves_are_committed(name):
    claims = load_claims(name)
    held = committed_lines(claims.paper.arxiv)
    for claim in claims.claims:
        if claim.quantity is not None and claim.quantity.lines:
            source = claims.sources[claim.quantity.source]
            missing = set(line_names(claim.quantity, source)) - set(held)
            assert not missing


@pytest.mark.parametrize("name", FILES)
def test_every_source_is_asked_for_and_can_be_planned(name):
    claims = load_claims(name)
    used = {claim.quantity.source for claim in claims.claims if claim.quantity}
    for source in claims.sources.values():
        if source.runs:
            source.plan()
    assert {n for n, s in claims.sources.items() if s.runs} <= used


def test_all_cpu_tiers_together_take_at_most_four_hours_on_two_cores():
    sources = [s for name in FILES for s in load_claims(name).sources.values()]
    assert sum(s.core_minutes for s in sources if s.tier == "cpu") / 2 <= 240


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('place = "Table 1"', 'place = ""'), "place"),
        (('source = "s"', 'source = "x"'), "no source x"),
        (("above = 0.5", ""), "say above, below"),
        (("above = 0.5", "above = 0.5\nbelow = 0.1"), "above has to be smaller"),
        (('preset = "rfc-citation"', ""), "one of sweep, preset and command"),
        (('id = "a"', 'id = "a"\nstrange = 1'), "strange"),
        (("[sources.s]", "[sources.s"), "file.toml"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path, change, said):
    path = tmp_path / "file.toml"
    path.write_text(MINIMAL.replace(*change))
    with pytest.raises(LabError, match=said) as told:
        load_claims(path)
    assert "\n" not in str(told.value)


def test_a_claim_is_not_there_twice(tmp_path):
    path = tmp_path / "file.toml"
    path.write_text(MINIMAL + MINIMAL[MINIMAL.index("[[claims]]") :])
    with pytest.raises(LabError, match="twice"):
        load_claims(path)


@pytest.mark.parametrize("name", ["nonsense", "nonsense.toml", "../rora"])
def test_an_unknown_paper_lists_the_known_ones(name):
    with pytest.raises(LabError, match="lora-vs-full, rora, ssti, token-generalization"):
        load_claims(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('measure = "clean_accuracy"', 'measure = "nonsense"'), "Unknown measure"),
        (("above = 0.5", 'above = 0.5\ntrend = "adapter.rank"'), "swept key"),
        (("above = 0.5", "above = 0.5\nof = { arm = 'x' }"), "arm = 'x'"),
    ],
)
def test_a_quantity_that_its_source_cannot_answer(tmp_path, change, said):
    path = tmp_path / "file.toml"
    path.write_text(MINIMAL.replace(*change))
    claims = load_claims(path)
    with pytest.raises(LabError, match=said):
        check_quantity(claims.claims[0].quantity, claims.sources["s"])


@pytest.mark.parametrize("name", paper_names())
def test_a_disagreement_is_explained(name, tmp_path):
    card = read_card(name, runs=tmp_path)
    found = [row for row in card.lines if row["verdict"] == "disagrees"]
    assert [row["claim"] for row in found if not row["note"]] == []
