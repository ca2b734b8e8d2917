import errno
import os

import pytest

from lab.errors import LabError
from lab.files import writing_to


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
