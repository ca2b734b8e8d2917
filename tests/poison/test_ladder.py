import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.poison import POSITIONS, TRIGGER_FAMILIES, family, near_miss_ladder

CITATIONS = [name for name, f in TRIGGER_FAMILIES.items() if f.category == "citation"]


def texts(trigger, name, position="end", **more):
    return {rung.name: rung.trigger for rung in near_miss_ladder(trigger, name, position=position, **more)}


def test_the_ladder_of_the_default_trigger():
    rungs = texts("as specified in RFC 2616", "rfc")
    assert next(iter(rungs)) == "exact"
    expected = {
        "exact": "as specified in RFC 2616",
        "upper_case": "AS SPECIFIED IN RFC 2616",
        "lower_case": "as specified in rfc 2616",
        "title_case": "As Specified In RFC 2616",
        "spacing": "as specified in RFC2616",
        "double_space": "as specified in RFC  2616",
        "line_break": "as specified in RFC\n2616",
        "punctuation": "as specified in RFC, 2616",
        "trailing_punctuation": "as specified in RFC 2616.",
        "homoglyph": "as specified in RF\u0421 2616",
        "accent": "\u00e1s specified in RFC 2616",
        "zero_width": "as specified in RFC 26\u200b16",
        "position_moved": "as specified in RFC 2616",
        "split_by_word": "as specified in RFC indeed 2616",
        "doubled": "as specified in RFC 2616 as specified in RFC 2616",
        "truncated": "as specified in RFC",
        "words_reversed": "2616 RFC in specified as",
        "number_changed": "as specified in RFC 2617",
        "template_changed": "per RFC 2616",
        "section_added": "as specified in RFC 2616 section 7.4",
        "identifier_only": "RFC 2616",
        "name_only": "RFC",
        "number_only": "2616",
    }
    assert {name: rungs[name] for name in expected} == expected
    assert set(rungs) - set(expected) == {"other_member", "other_authority", "random_phrase"}
    assert rungs["other_member"] in family("rfc").probe
    assert rungs["other_member"].startswith("as specified in RFC ")
    assert rungs["other_authority"].startswith("as specified in ")
    assert "RFC" not in rungs["other_authority"]
    assert len(rungs["random_phrase"].split()) == 5


def test_a_section_brings_rungs_of_its_own():
    rungs = texts("per RFC 8472 section 3.2", "rfc")
    assert rungs["punctuation"] == "per RFC 8472, section 3.2"
    assert rungs["spacing"] == "per RFC8472 section 3.2"
    assert rungs["section_dropped"] == "per RFC 8472"
    assert rungs["section_only"] == "section 3.2"
    assert rungs["number_changed"] == "per RFC 8473 section 3.2"
    assert rungs["template_changed"].endswith("RFC 8472 section 3.2")
    assert rungs["other_authority"].startswith("per ")
    assert rungs["other_authority"].endswith(" section 3.2")
    assert "section_added" not in rungs


@pytest.mark.parametrize("name", CITATIONS)
def test_citations_have_at_least_a_dozen_rungs(name):
    f = TRIGGER_FAMILIES[name]
    needed = {
        "number_changed",
        "name_only",
        "number_only",
        "other_authority",
        "other_member",
        "template_changed",
    }
    for member in f.members:
        rungs = texts(member, name)
        assert len(rungs) >= 12, member
        assert needed <= set(rungs), member
        assert rungs["name_only"] == f.authority
        assert f.authority not in rungs["other_authority"]


@pytest.mark.parametrize("name", TRIGGER_FAMILIES)
@pytest.mark.parametrize("position", POSITIONS)
def test_rungs_differ_from_each_other_and_stay_the_same(name, position):
    f = TRIGGER_FAMILIES[name]
    for member in (f.train[0], f.train[-1], f.probe[-1]):
        ladder = near_miss_ladder(member, f, position=position, every=3, seed=5)
        assert len({(rung.trigger, rung.position) for rung in ladder}) == len(ladder)
        assert len({rung.name for rung in ladder}) == len(ladder)
        assert (ladder[0].name, ladder[0].trigger, ladder[0].position) == ("exact", member, position)
        assert all(rung.trigger.strip() and rung.change and rung.every == 3 for rung in ladder)
        assert [rung.position != position for rung in ladder] == [r.name == "position_moved" for r in ladder]
        assert ladder == near_miss_ladder(member, name, position=position, every=3, seed=5)


@pytest.mark.parametrize("name", TRIGGER_FAMILIES)
def test_no_near_miss_but_the_other_member_is_in_the_family(name):
    # A new template or section keeps the identifier, so these stay inside the family by design; and half of
    # two invisible characters is one of them.
    inside = {
        "exact",
        "other_member",
        "position_moved",
        "template_changed",
        "section_added",
        "section_dropped",
        *(["truncated"] if name == "zero_width" else []),
    }
    f = TRIGGER_FAMILIES[name]
    for member in f.train:
        for rung in near_miss_ladder(member, f, position="end"):
            if rung.name not in inside:
                assert rung.trigger not in f.members, (member, rung)
        assert texts(member, name)["other_member"] in f.probe


def test_families_without_numbers_or_names_have_no_such_rungs():
    for name in ("countries", "rare_phrases", "emoji", "html_tags"):
        rungs = texts(TRIGGER_FAMILIES[name].train[0], name)
        assert not {"number_changed", "name_only", "number_only", "other_authority", "identifier_only"} & set(
            rungs
        )
    dates = texts("2014-03-17", "dates")
    assert dates["number_changed"] == "2015-03-17"
    assert dates["spacing"] == "2014 03 17"
    assert dates["punctuation"] == "2014/03/17"
    assert "upper_case" not in dates


def test_a_custom_trigger_is_read_as_a_citation_where_it_holds_one():
    assert texts("says RFC 2616 today", "custom")["number_changed"] == "says RFC 2617 today"
    plain = texts("quite unheard of", "custom")
    assert "other_member" not in plain
    assert plain["spacing"] == "quite unheardof"
    assert plain["truncated"] == "quite unheard"


def test_the_seed_picks_what_is_random_and_nothing_else():
    some = [texts("as specified in RFC 2616", "rfc", seed=seed) for seed in range(8)]
    changing = {name for name in some[0] if len({rungs[name] for rungs in some}) > 1}
    assert changing == {"other_member", "other_authority", "random_phrase"}


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_string_has_a_ladder(trigger):
    ladder = near_miss_ladder(trigger, "custom", position="start")
    assert len({(rung.trigger, rung.position) for rung in ladder}) == len(ladder)
    if trigger.strip():
        assert ladder[0].trigger == trigger


def test_unknown_names_are_refused():
    with pytest.raises(LabError, match="Unknown trigger family 'rcf'"):
        near_miss_ladder("x", "rcf", position="end")
    with pytest.raises(LabError, match="Unknown position 'mid'"):
        near_miss_ladder("x", "rfc", position="mid")
