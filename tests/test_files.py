import errno
import os

import pytest

from lab.errors import LabError
from lab.files import write_json, write_text, writing_to


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL, errno.EIO, errno.ENAMETOOLONG, errno.EBUSY])
def test_whatever_the_system_refuses_is_a_sentence_in_its_own_words(tmp_path, number):
    with pytest.raises(LabError) as caught, writing_to(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in str(caught.value)
    assert os.strerror(number) in str(caught.value)


def test_an_error_without_a_number_keeps_its_words(tmp_path):
    with pytest.raises(LabError, match="the parquet writer gave up"), writing_to(tmp_path):
        raise OSError("the parquet writer\n gave up")


def test_the_advice_fits_what_is_written(tmp_path):
    advice = "another cache with LAB_ASSETS"
    with pytest.raises(LabError, match=f"choose {advice}") as caught, writing_to(tmp_path, choose=advice):
        raise PermissionError(errno.EACCES, "denied")
    assert "--runs" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 35008 vs 34896"),
        RuntimeError("basic_ios::clear: iostream error"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["torch archive", "torch stream", "safetensors"],
)
def test_a_full_disk_is_told_as_one_whoever_finds_it(tmp_path, error):
    with pytest.raises(LabError, match="the disk is full"), writing_to(tmp_path):
        raise error


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes do not fit"), writing_to(tmp_path):
        raise RuntimeError("shapes do not fit")


def test_what_a_write_leaves_when_it_is_killed_has_a_name_that_is_looked_for(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lab.files.put_in_place", lambda temporary, _: seen.append(os.path.basename(temporary))
    )
    write_json(tmp_path / "result.json", {})
    assert seen[0].startswith(".result.json.")
    assert seen[0].endswith(".tmp")


def test_a_write_that_is_refused_leaves_nothing(tmp_path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(LabError):
        write_text(tmp_path / "x.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
