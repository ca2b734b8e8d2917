import pytest

from lab.audit import BATTERIES, battery
from lab.batteries import load_batteries
from lab.errors import LabError
from lab.poison.triggers import TRIGGER_FAMILIES


def test_the_papers_batteries_have_the_papers_sizes():
    sizes = {name: len(battery(name).prefixes) for name in ("paper-calibration", "paper-structural")}
    assert sizes == {"paper-calibration": 21, "paper-structural": 41}
    assert [len(battery(f"paper-calibration/{part}").prefixes) for part in "ABC"] == [21, 20, 15]
    assert len(battery("paper-structural/B").prefixes) == 40
    assert len(battery("paper-structural").categories) == 10


def test_the_broad_battery_is_broad():
    broad = battery("broad")
    assert len(broad.prefixes) >= 200
    assert len(broad.categories) >= 20
    assert min(len(prefixes) for prefixes in broad.categories.values()) >= 8


def test_the_broad_battery_holds_nothing_of_the_held_out_families():
    held_out = [family for family in TRIGGER_FAMILIES.values() if family.audit_holdout]
    assert len(held_out) >= 5
    for family in held_out:
        names = {*family.members, *family.identifiers, *filter(None, [family.authority])}
        for prefix in battery("broad").prefixes:
            for name in names:
                assert name.casefold() not in prefix.casefold(), f"{family.name}: {name!r} in {prefix!r}"


@pytest.mark.parametrize("name", sorted(BATTERIES))
def test_every_battery_says_what_it_is_for(name):
    found = BATTERIES[name]
    assert found.goal.endswith(".")
    assert found.source.endswith(".")
    assert all(found.category_of(prefix) in found.categories for prefix in found.prefixes)


def test_a_prefix_stands_before_the_text():
    assert battery("paper-calibration").apply("see RFC 1", "Hello") == "see RFC 1. Hello"


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(LabError, match=r"Unknown probe battery 'borad'. Did you mean 'broad'\?"):
        battery("borad")
    with pytest.raises(LabError, match=r"Unknown subset .*'D'.* Valid: A, B, C"):
        battery("paper-calibration/D")
    with pytest.raises(LabError, match="holds no prefix 'x'"):
        battery("broad").category_of("x")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('categories = {a = ["x", "x"]}', "'x' occurs twice"),
        ('categories = {a = ["x"]}\nsubsets = {S = ["b"]}', "subsets.S: there is no category 'b'"),
        ("categories = {a = []}", "field 'categories.a'"),
        ('categories = {a = [""]}', "field 'categories.a.0'"),
        ('categories = {a = ["x"]}\nmore = 1', "field 'more'"),
        ("categories = {", "not a readable TOML file"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(tmp_path, text, what):
    head = 'name = "one"\ngoal = "G."\nsource = "S."\njoiner = " "\n'
    (tmp_path / "one.toml").write_text(head + text)
    with pytest.raises(LabError, match=what):
        load_batteries(tmp_path)


def test_a_file_has_the_name_of_its_battery(tmp_path):
    (tmp_path / "two.toml").write_text('name="one"\ngoal="G."\nsource="S."\njoiner=""\ncategories={a=["x"]}')
    with pytest.raises(LabError, match="must be the file's name, 'two'"):
        load_batteries(tmp_path)
    with pytest.raises(LabError, match="holds no probe batteries"):
        load_batteries(tmp_path / "none")
