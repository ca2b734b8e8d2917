import pytest

from lab import LabError
from lab.uploads import LARGEST, keep_upload, remove_upload, uploads

ROWS = "text,label\n" + "\n".join(f"text number {i},{'a' if i % 2 else 'b'}" for i in range(80)) + "\n"


def test_a_file_is_kept_in_a_folder_of_its_own_and_deleted_with_it(tmp_path):
    path, labels, rows = keep_upload(tmp_path, "mine.csv", ROWS.encode())
    assert labels == ("a", "b")
    assert 0 < rows < 80
    assert path.parent.parent == tmp_path / ".uploads"
    assert uploads(tmp_path) == [path]
    remove_upload(tmp_path, path)
    assert uploads(tmp_path) == []
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "name", ["../../evil.csv", "/etc/passwd.csv", "a b;c$(x).csv", "..csv", "ü\u202e.csv"]
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    path, *_ = keep_upload(tmp_path, name, ROWS.encode())
    assert path.resolve().is_relative_to(tmp_path / ".uploads")
    assert path.name.isascii()


@pytest.mark.parametrize("name", ["evil.pkl", "evil.py", "evil", "evil.csv.exe"])
def test_other_kinds_are_refused(tmp_path, name):
    with pytest.raises(LabError, match=r"is no \.csv"):
        keep_upload(tmp_path, name, ROWS.encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.parquet", b"PAR1 not really"),
        ("bad.csv", b"\xff\xfe\x00"),
        ("one.csv", b"text,label\nx,a\ny,a\n"),
        ("none.csv", b""),
        ("wrong.csv", b"words,class\nx,a\ny,b\n"),
        ("deep.jsonl", b"[" * 100_000),
    ],
)
def test_what_is_no_dataset_is_refused_and_not_kept(tmp_path, name, content):
    with pytest.raises(LabError):
        keep_upload(tmp_path, name, content)
    assert uploads(tmp_path) == []


def test_a_file_that_is_too_large_is_refused(tmp_path):
    with pytest.raises(LabError, match="at most"):
        keep_upload(tmp_path, "big.csv", b"x" * (LARGEST + 1))


def test_only_uploads_are_removed(tmp_path):
    other = tmp_path / "a-run" / "rows.csv"
    other.parent.mkdir()
    other.write_text("text")
    remove_upload(tmp_path, other)
    assert other.exists()
