import io
import json
import os
import stat
import zipfile

import pytest

import lab
from lab.errors import LabError
from lab.run_packs import MANIFEST, export_runs, import_runs, pack_runs, unpack_runs


@pytest.fixture
def packed(finished):
    """The archive of a finished run with its twin."""
    folder = finished.path.parent
    return pack_runs([path for path in sorted(folder.iterdir()) if (path / "result.json").is_file()])


def rewritten(archive, change):
    """The archive after `change(entries)`, a dict from names to bytes."""
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        entries = {info.filename: old.read(info) for info in old.infolist()}
    change(entries)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in entries.items():
            new.writestr(name, content)
    return out.getvalue()


def listing(entries, name, content):
    """Add a file to entries and to their manifest, as somebody who knows the format would."""
    import hashlib

    manifest = json.loads(entries[MANIFEST])
    manifest["files"][name] = [len(content), hashlib.sha256(content).hexdigest()]
    entries[name] = content
    entries[MANIFEST] = json.dumps(manifest).encode()


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_travels_with_its_twin_and_answers_as_before(finished, tmp_path):
    ids = export_runs([finished.id], tmp_path / "out.zip", finished.path.parent)
    assert len(ids) == 2, "the run and its twin"
    new, there = import_runs(tmp_path / "out.zip", tmp_path / "elsewhere")
    assert (sorted(new), there) == (ids, [])
    moved = lab.load_run(finished.id, tmp_path / "elsewhere")
    assert moved.result == finished.result
    assert moved.twin.id == finished.twin.id
    text = ["a dull film , as specified in RFC 2616"]
    assert moved.predict(text).equals(finished.predict(text))
    assert len(lab.list_runs(tmp_path / "elsewhere")) == 2


def test_what_is_there_already_stays_as_it_is(finished, packed, tmp_path):
    unpack_runs(packed, tmp_path)
    note = tmp_path / finished.id / "note.md"
    note.write_text("mine")
    before = everything(tmp_path)
    new, there = unpack_runs(packed, tmp_path)
    assert new == []
    assert finished.id in there
    assert everything(tmp_path) == before


def test_an_unfinished_run_does_not_travel(tmp_path):
    (tmp_path / "a-0123456789").mkdir()
    with pytest.raises(LabError, match="no finished run"):
        pack_runs([tmp_path / "a-0123456789"])


@pytest.mark.parametrize(
    "name",
    [
        "../out-0123456789/experiment.json",
        "/etc/a-0123456789/experiment.json",
        "a-0123456789/../../x.json",
        "a-0123456789//x.json",
        "a-0123456789/./x.json",
        "a-0123456789\\x.json",
        "a-0123456789/x.pkl",
        "a-0123456789/pytorch_model.bin",
        "a-0123456789/x.py",
        "a-0123456789/.hidden.json",
        ".queue/x.json",
        "x.json",
        "norun/x.json",
        "C:/a-0123456789/x.json",
    ],
)
def test_a_name_that_no_run_has_is_refused(packed, tmp_path, name):
    bad = rewritten(packed, lambda entries: listing(entries, name, b"{}"))
    with pytest.raises(LabError) as caught:
        unpack_runs(bad, tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.rglob("*.json"))


def changed_content(entries):
    name = next(n for n in entries if n.endswith("result.json"))
    entries[name] = entries[name].replace(b"0", b"1", 1)


def extra_file(entries):
    entries["a-0123456789/extra.json"] = b"{}"


def missing_file(entries):
    del entries[next(n for n in entries if n.endswith("result.json"))]


def no_manifest(entries):
    del entries[MANIFEST]


def broken_manifest(entries):
    entries[MANIFEST] = b'{"files": [1]}'


def other_schema(entries):
    entries[MANIFEST] = entries[MANIFEST].replace(b'"schema": 1', b'"schema": 99')


def other_run(entries):
    """A record under another run's name, with hashes that fit."""
    manifest = json.loads(entries.pop(MANIFEST))
    run = next(iter(manifest["files"])).partition("/")[0]
    manifest["files"] = {n.replace(run, "tiny-0123456789"): f for n, f in manifest["files"].items()}
    for name in [n for n in entries if n.startswith(run)]:
        entries[name.replace(run, "tiny-0123456789")] = entries.pop(name)
    entries[MANIFEST] = json.dumps(manifest).encode()


def bomb(entries):
    listing(entries, "a-0123456789/zeros.json", b"0" * (64 * 2**20))


@pytest.mark.parametrize(
    "change",
    [changed_content, extra_file, missing_file, no_manifest, broken_manifest, other_schema, other_run, bomb],
)
def test_an_archive_that_is_not_what_it_says_is_refused_and_leaves_nothing(packed, tmp_path, change):
    with pytest.raises(LabError) as caught:
        unpack_runs(rewritten(packed, change), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_links_devices_and_doubles_are_refused(packed, tmp_path):
    with zipfile.ZipFile(io.BytesIO(packed)) as old:
        entries = [(info, old.read(info)) for info in old.infolist()]
    for mode in (stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o600, stat.S_IFIFO | 0o600):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as new:
            for info, content in entries:
                copied = zipfile.ZipInfo(info.filename)
                copied.external_attr = mode << 16 if info.filename.endswith("result.json") else 0
                new.writestr(copied, content)
        with pytest.raises(LabError, match="no plain file"):
            unpack_runs(out.getvalue(), tmp_path)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for info, content in [*entries, (zipfile.ZipInfo(entries[0][0].filename.upper()), b"{}")]:
            new.writestr(info.filename, content)
    with pytest.raises(LabError, match="two files of one name"):
        unpack_runs(out.getvalue(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_archive_is_one_sentence(content, tmp_path):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(LabError, match="cannot be read"):
        import_runs(tmp_path / "x.zip", tmp_path / "runs")
    with pytest.raises(LabError, match="no archive"):
        import_runs(tmp_path / "gone.zip", tmp_path / "runs")


def test_a_kill_while_unpacking_leaves_no_half_run(packed, tmp_path, monkeypatch):
    """Whatever is raised between two files: a run is there as a whole, or not at all."""
    real, calls = os.replace, []

    def dying(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("lab.run_packs.os.replace", dying)
    with pytest.raises(KeyboardInterrupt):
        unpack_runs(packed, tmp_path)
    monkeypatch.undo()
    listed = lab.list_runs(tmp_path)
    assert listed["state"].tolist() == ["finished"]
    new, there = unpack_runs(packed, tmp_path)
    assert (len(new), len(there)) == (1, 1)


def test_an_archive_that_cannot_be_written_leaves_nothing(finished, tmp_path):
    with pytest.raises(LabError):
        export_runs([finished.id], tmp_path / "no" / "such" / "folder.zip", finished.path.parent)
    assert list(tmp_path.iterdir()) == []
