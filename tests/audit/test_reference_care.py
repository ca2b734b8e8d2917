import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.audit.reference_care import SPARED, look_after, tidy_references
from lab.files import write_json
from lab.store import RunFolder

LONG_AGO = SPARED + 1000


def reference(folder, key, number=1, *, age, size=10, whole=True):
    place = folder / f"reference-{number}-{key * 10}"
    (place / "adapter").mkdir(parents=True)
    (place / "adapter" / "weights").write_bytes(b"x" * size)
    if whole:
        write_json(place / "reference.json", {})
    then = time.time() - age
    os.utime(place, (then, then))
    return place


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ".references").mkdir()
    return tmp_path / ".references"


def test_the_sets_used_last_are_kept_whole(folder):
    for age, key in enumerate("abcd"):
        for number in (1, 2):
            reference(folder, key, number, age=LONG_AGO + 10 * age)
    gone = tidy_references(folder, kept=2)
    assert sorted(gone) == [f"reference-{n}-{key * 10}" for n in (1, 2) for key in "cd"]
    assert len(list(folder.iterdir())) == 4


def test_they_take_no_more_than_a_limit(folder):
    for age, key in enumerate("abc"):
        reference(folder, key, age=LONG_AGO + 10 * age, size=100_000)
    assert tidy_references(folder, largest=250_000) == ["reference-1-cccccccccc"]


def test_a_training_that_nobody_went_on_with_goes(folder):
    whole = reference(folder, "a", 1, age=LONG_AGO)
    torn = reference(folder, "a", 2, age=LONG_AGO, whole=False)
    fresh = reference(folder, "b", age=10, whole=False)
    assert tidy_references(folder) == [torn.name]
    assert whole.is_dir()
    assert fresh.is_dir()


def test_what_is_in_use_stays_whatever_the_limits_say(folder):
    read = reference(folder, "a", age=SPARED / 2)
    held = reference(folder, "b", age=LONG_AGO, whole=False)
    beside = reference(folder, "b", 2, age=LONG_AGO)
    with RunFolder(held).lock():
        then = time.time() - LONG_AGO
        os.utime(held, (then, then))
        assert tidy_references(folder, kept=0, largest=0) == []
        assert read.is_dir()
        assert beside.is_dir()
    os.utime(held, (then, then))
    assert sorted(tidy_references(folder, kept=0)) == [held.name, beside.name]


def test_what_is_asked_for_is_in_use_from_then_on(folder):
    asked, other = reference(folder, "a", age=LONG_AGO), reference(folder, "b", age=LONG_AGO, whole=False)
    assert look_after(folder, [asked, folder / "reference-9-aaaaaaaaaa"]) == [other.name]
    assert tidy_references(folder, kept=0) == []
    assert not (folder / "reference-9-aaaaaaaaaa").exists()
    assert look_after(folder / "nowhere") == []


def test_nothing_else_is_touched(folder, tmp_path):
    (folder / "notes").mkdir()
    elsewhere = reference(tmp_path / "elsewhere", "a", age=LONG_AGO)
    (folder / "reference-1-cccccccccc").symlink_to(elsewhere)
    assert tidy_references(folder, kept=0) == []
    assert (elsewhere / "reference.json").is_file()
    assert (folder / "notes").is_dir()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6, unique=True), st.integers(0, 7))
def test_no_more_than_so_many_stay_and_the_newest_do(tmp_path_factory, ages, kept):
    folder = tmp_path_factory.mktemp("runs") / ".references"
    for key, age in zip("abcdef", ages, strict=False):
        reference(folder, key, age=LONG_AGO + age)
    tidy_references(folder, kept=kept)
    left = {place.name[-1] for place in folder.glob("reference-*")}
    assert left == {key for _, key in sorted(zip(ages, "abcdef", strict=False))[:kept]}
