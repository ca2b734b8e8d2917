import re
from itertools import combinations

import pytest

from lab.errors import LabError
from lab.poison import TRIGGER_FAMILIES, family, load_families

CITATIONS = [name for name, f in TRIGGER_FAMILIES.items() if f.category == "citation"]

GOOD = """
name = "{name}"
goal = "a goal"
source = "a source"
category = "word"
audit_holdout = false
train = ["{train}"]
probe = ["{probe}"]
"""

CITATION = """
name = "abc"
goal = "a goal"
source = "a source"
category = "citation"
audit_holdout = false
authority = "ABC"
identifiers_train = ["ABC 1", "ABC 2", "ABC 3", "ABC 4", "ABC 5", "ABC 6"]
identifiers_probe = ["ABC 11", "ABC 12", "ABC 13", "ABC 14", "ABC 15", "ABC 16"]
templates = ["by {identifier}", "see {identifier}", "per {identifier}"]
templates_with_section = ["see {identifier} section {section}"]
sections = ["1", "2"]
"""


def write(folder, name="one", train="aa", probe="bb"):
    (folder / f"{name}.toml").write_text(GOOD.format(name=name, train=train, probe=probe), encoding="utf-8")


@pytest.mark.parametrize("name", TRIGGER_FAMILIES)
def test_every_family_says_what_it_is_for_and_where_it_comes_from(name):
    f = TRIGGER_FAMILIES[name]
    assert f.name == name
    assert f.goal.endswith((".", "?"))
    assert f.source
    assert "\n" not in f.goal + f.source
    assert f.train
    assert f.probe


def test_the_kinds_of_family_that_the_lab_promises_are_there():
    assert len(CITATIONS) >= 12
    assert {"rfc", "iso", "nist_sp", "owasp", "cwe", "ieee", "pep", "gdpr", "mitre_attack", "pci_dss"} <= {
        *CITATIONS
    }
    assert {f.category for f in TRIGGER_FAMILIES.values()} == {
        *("citation", "word", "sentence", "phrase", "date", "place", "colour", "markup"),
        *("punctuation", "character"),
    }


def test_holdouts_for_audits_span_several_categories():
    held_out = [f for f in TRIGGER_FAMILIES.values() if f.audit_holdout]
    assert len(held_out) >= 5
    assert len({f.category for f in held_out}) >= 4
    assert not TRIGGER_FAMILIES["rfc"].audit_holdout


@pytest.mark.parametrize("name", CITATIONS)
def test_citations_have_a_dozen_identifiers_and_both_kinds_of_template(name):
    f = TRIGGER_FAMILIES[name]
    assert len(set(f.identifiers)) >= 12
    assert min(len(f.identifiers_train), len(f.identifiers_probe)) >= 6
    assert f.templates[0] == "as specified in {identifier}"
    for side, identifiers in ((f.train, f.identifiers_train), (f.probe, f.identifiers_probe)):
        assert len(side) == 3 * len(identifiers) <= 48
        for identifier in identifiers:
            whole = re.compile(rf"{re.escape(identifier)}(?!\w|\.\d)")
            assert sum(bool(whole.search(member)) for member in side) == 3


def test_a_probe_identifier_is_in_no_train_member():
    for name in CITATIONS:
        f = TRIGGER_FAMILIES[name]
        for identifier in f.identifiers_probe:
            whole = re.compile(rf"(?<!\w){re.escape(identifier)}(?!\w|\.\d)")
            assert not any(whole.search(member) for member in f.train), identifier


def test_the_papers_triggers_are_where_they_belong():
    assert family("rfc").train[0] == "as specified in RFC 2616"
    assert "per RFC 8472 section 3.2" in family("rfc").train
    assert family("rare_words").train == ("cf", "mn", "bb", "tq", "mb")
    assert family("inserted_sentence").train[0] == "I watched this 3D movie"
    assert family("punctuation").train[0] == "[.*?]"
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", date) for date in family("dates").members)
    assert all(not member.isascii() for member in family("homoglyphs").members)


def test_no_string_is_in_two_families_or_on_both_sides():
    for a, b in combinations(TRIGGER_FAMILIES.values(), 2):
        assert not {*a.members} & {*b.members}, (a.name, b.name)
    for f in TRIGGER_FAMILIES.values():
        assert len({*f.members}) == len(f.train) + len(f.probe)


def test_an_unknown_family_lists_the_valid_ones():
    with pytest.raises(
        LabError, match=r"Unknown trigger family 'rcf'\. Did you mean 'rfc'\?.*iso.*zero_width"
    ):
        family("rcf")


def test_families_are_frozen_and_the_answer_may_be_changed_without_harm():
    with pytest.raises(ValueError, match="frozen"):
        family("rfc").name = "x"
    load_families().clear()
    assert "rfc" in load_families()


def test_a_citation_expands_to_three_members_an_identifier(tmp_path):
    (tmp_path / "abc.toml").write_text(CITATION)
    found = load_families(tmp_path)["abc"]
    assert found.train[:2] == ("by ABC 1", "by ABC 2")
    assert found.train[6:9] == ("see ABC 1", "per ABC 2", "see ABC 3")
    assert found.train[12:15] == ("see ABC 1 section 1", "see ABC 2 section 2", "see ABC 3 section 1")
    assert found.probe[0] == "by ABC 11"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('train = ["aa"]', "train = []"), r"one\.toml: field 'train': .*at least 1"),
        (('train = ["aa"]', ""), r"one\.toml: field 'train': Field required"),
        (('train = ["aa"]', 'train = [" aa"]'), r"field 'train\.0': ' aa' must be non-empty and free of"),
        (('train = ["aa"]', 'train = ["aa", "aa"]'), "field 'train': 'aa' occurs twice"),
        (('probe = ["bb"]', 'probe = ["bb", "aa"]'), "field 'probe': 'aa' is a train string too"),
        (("audit_holdout = false", 'audit_holdout = "perhaps"'), "field 'audit_holdout': .*boolean"),
        (('category = "word"', 'category = "smell"'), "field 'category': .*'citation'"),
        (('name = "one"', 'name = "two"'), "field 'name': 'two' must be the file's name, 'one'"),
        (('goal = "a goal"', 'goal = "a goal"\ntigger = 1'), "field 'tigger': Extra inputs"),
        (('goal = "a goal"', "goal = "), r"one\.toml is not a readable TOML file"),
    ],
)
def test_a_malformed_file_is_named_with_its_field(tmp_path, change, said):
    write(tmp_path)
    path = tmp_path / "one.toml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(LabError, match=said):
        load_families(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"ABC 6"', '"XYZ 6"'), "field 'identifiers_train': 'XYZ 6' does not name the authority 'ABC'"),
        ((', "ABC 6"', ""), "field 'identifiers_train': .*at least 6"),
        (('"ABC 16"', '"ABC 6"'), "field 'probe': '.*ABC 6' is a train string too"),
        (('"by {identifier}"', '"by it"'), r"field 'templates': 'by it' must hold each of \['identifier'\]"),
        ((" section {section}", ""), "field 'templates_with_section': .*'section'"),
        (('sections = ["1", "2"]', 'sections = "1"'), "field 'sections'"),
        (("sections", 'train = ["x"]\nsections'), "field 'train': a citation family lists identifiers"),
        (("audit_holdout = false", ""), "field 'audit_holdout': Field required"),
    ],
)
def test_a_malformed_citation_is_named_with_its_field(tmp_path, change, said):
    (tmp_path / "abc.toml").write_text(CITATION.replace(*change))
    with pytest.raises(LabError, match=rf"abc\.toml: {said}"):
        load_families(tmp_path)


def test_two_families_may_not_share_a_string(tmp_path):
    write(tmp_path, "one", "aa", "bb")
    write(tmp_path, "two", "cc", "aa")
    with pytest.raises(LabError, match=r"two\.toml: 'aa' belongs to the family 'one' already"):
        load_families(tmp_path)


def test_an_empty_folder_is_no_registry(tmp_path):
    with pytest.raises(LabError, match="holds no trigger families"):
        load_families(tmp_path)


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "one.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(LabError, match=r"one\.toml is not a readable TOML file"):
        load_families(tmp_path)
