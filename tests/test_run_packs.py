import hashlib
import io
import json
import os
import random
import shutil
import stat
import zipfile
from collections import namedtuple

import pytest

import lab
from lab import cli
from lab.errors import LabError
from lab.experiment import Experiment
from lab.prepare import prepare
from lab.record import Run
from lab.results import experiment_record
from lab.run_packs import (
    MANIFEST,
    export_runs,
    import_runs,
    pack_runs,
    unpack_runs,
    with_what_they_rest_on,
)


@pytest.fixture
def packed(finished):
    """The archive of a finished run with its twin."""
    folder = finished.path.parent
    return pack_runs([path for path in sorted(folder.iterdir()) if (path / "result.json").is_file()])


@pytest.fixture
def small(packed, finished):
    """An archive of the twin alone, with its two small files and nothing else."""
    return rewritten(packed, lambda entries: keep_records(entries, finished.twin.id))


def keep_records(entries, run):
    records = {f"{run}/{name}": entries[f"{run}/{name}"] for name in ("experiment.json", "result.json")}
    entries.clear()
    entries[MANIFEST] = json.dumps({"schema": 1, "files": {}}).encode()
    for name, content in records.items():
        listing(entries, name, content)


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


@pytest.fixture
def two_ways(finished, tmp_path):
    """A run probed in one way, and an archive of it probed in another way too, both of one training."""
    here, there = tmp_path / "here", tmp_path / "there"
    for run in (finished, finished.twin):
        shutil.copytree(run.path, here / run.id)
        shutil.copytree(run.path, there / run.id)
    more = lab.run(finished.experiment.with_(**{"probe.rows": 12}), runs=there)
    assert more.id == finished.id
    return here, pack_runs(with_what_they_rest_on([more.path])), more


def test_an_import_adds_no_measures(two_ways):
    here, archive, _ = two_ways
    before = everything(here)
    unpack_runs(archive, here)
    assert everything(here) == before


def test_measures_of_the_same_training_are_added_and_nothing_is_lost(two_ways, finished):
    here, archive, more = two_ways
    (here / finished.id / "note.md").write_text("mine")
    before = everything(here)
    assert unpack_runs(archive, here, add=True) == ([], sorted([finished.id, finished.twin.id]))
    first, second = Run(here / finished.id, finished.asked_probe), Run(here / finished.id, more.asked_probe)
    assert second.headline == more.headline
    assert first.headline == finished.headline
    for mine, told in ((first, finished), (second, more)):
        assert mine.measures.equals(told.measures)
        assert mine.predictions.equals(told.predictions)
    assert second.result == more.result
    changed = {str(name) for name, content in everything(here).items() if before.get(name) != content}
    assert {os.path.basename(name) for name in changed} >= {
        "result.json",
        "predictions.parquet",
        "events.jsonl",
    }
    assert not [name for name in changed if name.endswith((".safetensors", "note.md", "trained.json"))]
    again = everything(here)
    unpack_runs(archive, here, add=True)
    assert everything(here) == again


def test_two_that_come_back_with_different_measures_are_both_added(two_ways, finished):
    here, archive, more = two_ways
    other = lab.run(finished.experiment.with_(**{"probe.rows": 14}), runs=here)
    unpack_runs(archive, here, add=True)
    for run in (finished, more, other):
        assert Run(here / finished.id, run.asked_probe).headline == run.headline


def test_measures_of_weights_that_were_trained_another_time_are_not_added(two_ways, finished):
    here, archive, _ = two_ways
    for run in (finished.id, finished.twin.id):
        path = here / run / "trained.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 1e6}))
    before = everything(here)
    unpack_runs(archive, here, add=True)
    assert everything(here) == before


def test_measures_of_a_changed_record_are_refused_before_any_is_added(two_ways):
    here, archive, _ = two_ways
    before = everything(here)
    for change in (BROKEN_RECORDS["other seed"], BROKEN_RESULTS["shown"]):
        name = "experiment.json" if change is BROKEN_RECORDS["other seed"] else "result.json"
        with pytest.raises(LabError, match="archive"):
            unpack_runs(rewritten(archive, replacing(name, change)), here, add=True)
    assert everything(here) == before


def test_a_way_of_probing_that_names_a_path_is_not_added(two_ways, finished):
    here, archive, _ = two_ways

    def escape(told):
        told["probes"]["../../../out"] = next(iter(told["probes"].values()))

    name = f"{finished.id}/measures/x.parquet"
    bad = rewritten(archive, lambda entries: listing(entries, name, b"x"))
    bad = rewritten(bad, replacing(f"{finished.id}/result.json", edited(escape)))
    unpack_runs(bad, here, add=True)
    assert len(Run(here / finished.id).result["probes"]) == 2


def test_a_file_that_changes_while_it_is_packed_is_listed_as_it_was_packed(finished, tmp_path, monkeypatch):
    """Whatever else is asked of a run meanwhile, the archive can be opened."""
    folder = tmp_path / finished.twin.id
    shutil.copytree(finished.twin.path, folder)
    real = zipfile.ZipFile.open

    def changing(archive, name, *mode, **more):
        if getattr(name, "filename", "").endswith("events.jsonl") and mode == ("w",):
            with (folder / "events.jsonl").open("ab") as file:
                file.write(b'{"kind": "status", "step": -1}\n')
        return real(archive, name, *mode, **more)

    monkeypatch.setattr(zipfile.ZipFile, "open", changing)
    assert unpack_runs(pack_runs([folder]), tmp_path / "runs")[0] == [finished.twin.id]


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


def endless_size(entries):
    manifest = json.loads(entries[MANIFEST])
    name = next(iter(manifest["files"]))
    manifest["files"][name][0] = float("inf")
    entries[MANIFEST] = json.dumps(manifest).encode()


def deep_manifest(entries):
    entries[MANIFEST] = b"[" * 100_000


def file_as_folder(entries):
    name = next(n for n in entries if n.endswith("result.json"))
    listing(entries, f"{name}/more.json", b"{}")


@pytest.mark.parametrize("change", [endless_size, deep_manifest, file_as_folder])
def test_a_hostile_manifest_is_one_sentence(small, tmp_path, change):
    assert_refused(rewritten(small, change), tmp_path)


def assert_refused(archive, folder, match="archive"):
    with pytest.raises(LabError, match=match) as caught:
        unpack_runs(archive, folder)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


def test_a_damaged_stream_is_one_sentence(small, tmp_path):
    with zipfile.ZipFile(io.BytesIO(small)) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith("experiment.json"))
    damaged = bytearray(small)
    # deflate's third kind of block does not exist
    damaged[entry.header_offset + 30 + len(entry.filename)] = 0b111
    assert_refused(bytes(damaged), tmp_path, "cannot be read")


def test_a_name_that_is_no_utf8_is_one_sentence(small, tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a-0123456789/é.json", b"{}")
    assert_refused(out.getvalue().replace("é".encode(), b"\xff\xfe"), tmp_path, "cannot be read")


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_the_packing_of_an_export_is_read(small, tmp_path, how):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(small)) as old, zipfile.ZipFile(out, "w", how) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    assert_refused(out.getvalue(), tmp_path, "packed in another way")


@pytest.mark.parametrize(
    "place", [".", "folder", "/dev/null", "no/such.zip", "file/x.zip", "~no-such-user/x", "x" * 300]
)
def test_a_place_that_holds_no_archive_is_one_sentence(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(LabError, match="archive") as caught:
        import_runs(place, tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_no_damaged_byte_anywhere_imports_half_a_run_or_raises_anything_else(small, tmp_path):
    with zipfile.ZipFile(io.BytesIO(small)) as archive:
        whole = {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}
    dice, said = random.Random(0), []
    for i in range(250):
        damaged, folder = bytearray(small), tmp_path / str(i)
        folder.mkdir()
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        try:
            unpack_runs(bytes(damaged), folder)
        except LabError as error:
            said.append(str(error))
            expected = {}
        else:
            expected = whole
        assert {str(name): content for name, content in everything(folder).items()} == expected
    assert len(said) > 150
    assert not any("\n" in sentence for sentence in said)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8, 0.99])
def test_a_torn_archive_is_refused(small, tmp_path, at):
    assert_refused(small[: int(len(small) * at)], tmp_path)


def test_many_small_bombs_are_one(small, finished, tmp_path):
    def swarm(entries):
        zeros = b"0" * 2**20
        manifest = json.loads(entries[MANIFEST])
        for i in range(40):
            name = f"{finished.twin.id}/zeros-{i}.json"
            manifest["files"][name] = [len(zeros), hashlib.sha256(zeros).hexdigest()]
            entries[name] = zeros
        entries[MANIFEST] = json.dumps(manifest).encode()

    assert_refused(rewritten(small, swarm), tmp_path, "unpacks to")


def test_a_disk_without_room_is_asked_first(small, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 1000))
    with pytest.raises(LabError, match="free"):
        unpack_runs(small, tmp_path / "new" / "runs")
    assert list(tmp_path.iterdir()) == []


def replacing(name, change):
    """A change of an archive: one small file of its only run, with a hash that fits."""

    def rewrite(entries):
        path = next(n for n in entries if n.endswith(name))
        content = change(entries[path])
        listing(entries, path, content if isinstance(content, bytes) else json.dumps(content).encode())

    return rewrite


def edited(change):
    def rewrite(content):
        told = json.loads(content)
        change(told)
        return told

    return rewrite


BROKEN_RESULTS = {
    "text": lambda _: "not json",
    "torn": lambda content: content[:-20],
    "no text": lambda _: b"\xff\xfe\xfd",
    "deep": lambda _: b"[" * 100_000,
    "list": lambda _: [],
    "empty": lambda _: {},
    "measures": edited(lambda told: told.update(measures=[1])),
    "rate": edited(lambda told: told["measures"]["test"]["poisoned"]["clean_accuracy"].update(value="high")),
    "twin": edited(lambda told: told.update(twin=["x"])),
    "twin elsewhere": edited(lambda told: told.update(twin="../../x-0123456789")),
    "twin of a probing": edited(lambda told: next(iter(told["probes"].values())).update(twin="/x")),
    "family": edited(lambda told: next(iter(told["probes"].values())).update(families={"a": "high"})),
    "family rows": edited(lambda told: next(iter(told["probes"].values())).update(family_rows={"a": 0.5})),
    "shown": edited(lambda told: told.update(shown="other")),
    "probe": edited(lambda told: next(iter(told["probes"].values())).update(probe={"rows": -1})),
    "id": edited(lambda told: told.update(id="tiny-0123456789")),
}


@pytest.mark.parametrize("change", BROKEN_RESULTS.values(), ids=BROKEN_RESULTS)
def test_a_result_that_is_none_is_refused(small, tmp_path, change):
    assert_refused(rewritten(small, replacing("result.json", change)), tmp_path)


def test_a_small_file_that_is_large_is_not_read(small, tmp_path, monkeypatch):
    monkeypatch.setattr("lab.packed_records.MAX_RECORD", 2**10)
    assert_refused(small, tmp_path, "larger than")


BROKEN_RECORDS = {
    "torn": lambda content: content[:-20],
    "list": lambda _: [],
    "weights_id": edited(lambda told: told.update(weights_id="x" * 54 + told["weights_id"][:10])),
    "created": edited(lambda told: told.update(created="now")),
    "labels": edited(lambda told: told.update(labels=[1, 2])),
    "base_run": edited(lambda told: told.update(base_run="../../x")),
    "parent": edited(lambda told: told.update(parent="../../x-0123456789")),
    "no experiment": edited(lambda told: told.pop("experiment")),
    "unknown key": edited(lambda told: told["experiment"].update(colour="red")),
    "unknown defense": edited(lambda told: told["experiment"].update(defense=[{"name": "prayer"}])),
    "rank": edited(lambda told: told["experiment"]["adapter"].update(rank=-4)),
    "rank as text": edited(lambda told: told["experiment"]["adapter"].update(rank="4")),
    "other rank": edited(lambda told: told["experiment"]["adapter"].update(rank=8)),
    "other seed": edited(lambda told: told["experiment"].update(seed=7)),
    "other base": edited(lambda told: told.update(base_sha256="0" * 64)),
    "other data": edited(lambda told: told["dataset"].update(fingerprint="0" * 64)),
    "measured poison": edited(lambda told: told.update(measured_poison={"attack": "spell"})),
}


@pytest.mark.parametrize("change", BROKEN_RECORDS.values(), ids=BROKEN_RECORDS)
def test_a_record_that_does_not_make_its_own_id_is_refused(small, tmp_path, change):
    assert_refused(rewritten(small, replacing("experiment.json", change)), tmp_path)


def test_a_note_of_the_sender_is_no_reason_to_refuse(small, finished, tmp_path):
    named = edited(lambda told: told["experiment"].update(name="my favourite"))
    unpack_runs(rewritten(small, replacing("experiment.json", named)), tmp_path)
    assert lab.list_runs(tmp_path)["name"].tolist() == ["my favourite"]


ASKED = {
    "rare words": {
        "poison": {"attack": "backdoor", "family": "rare_words", "count": 5, "target_label": "positive"}
    },
    "no poison, full": {"poison": {"attack": "none"}, "adapter": {"kind": "full"}},
    "rate and epochs": {"poison": {"attack": "label_flip", "rate": 0.1}, "training": {"epochs": 2.0}},
    "training defense": {"defense": ["cl"]},
    "edited weights": {"defense": [{"name": "truncate", "rank": 1}]},
    "chat": {"task": {"kind": "chat", "system": "good or bad ?"}, "base": {"model": "tiny-chat"}},
}


@pytest.mark.parametrize("changes", ASKED.values(), ids=ASKED)
def test_whatever_was_asked_its_record_makes_its_id(tiny, small, finished, tmp_path, changes):
    """The record alone, without data and model, gives the id that `prepare` gave with both."""
    record = experiment_record(prepare(Experiment.from_dict({**tiny.to_dict(), **changes}), tmp_path))
    new, _ = unpack_runs(rewritten(small, recording(record, finished)), tmp_path / "runs")
    assert new == [record["id"]]


def recording(record, finished):
    """A change of an archive: its only run is that of a record, with the twin's result."""

    def rewrite(entries):
        result = json.loads((finished.twin.path / "result.json").read_bytes()) | {"id": record["id"]}
        for name in set(entries) - {MANIFEST}:
            del entries[name]
        entries[MANIFEST] = json.dumps({"schema": 1, "files": {}}).encode()
        listing(entries, f"{record['id']}/experiment.json", json.dumps(record).encode())
        listing(entries, f"{record['id']}/result.json", json.dumps(result).encode())

    return rewrite


def test_the_id_of_a_run_on_a_base_is_worked_out_with_that(tiny, small, finished, tmp_path):
    here, there, nowhere = tmp_path / "here", tmp_path / "there", tmp_path / "nowhere"
    for run in (finished, finished.twin):
        shutil.copytree(run.path, here / run.id)
        shutil.copytree(run.path, there / run.id)
    asked = tiny.with_(**{"poison.attack": "none", "base.model": finished.id})
    record = experiment_record(prepare(asked, here))
    assert record["base_run"] == finished.id
    archive = rewritten(small, recording(record, finished))
    assert unpack_runs(archive, there)[0] == [record["id"]]
    assert unpack_runs(archive, nowhere)[0] == [record["id"]], "its numbers can be read without the base"
    shutil.rmtree(there / record["id"])
    other = edited(lambda told: told["experiment"].update(seed=5))
    forged = rewritten(archive, replacing("experiment.json", other))
    with pytest.raises(LabError, match="makes another id"):
        unpack_runs(forged, there)
    assert not (there / record["id"]).exists()


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `lab runs …` in this process: (exit code, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["lab", "runs", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return run


def test_the_commands_take_a_run_from_one_folder_to_another(command, finished, tmp_path):
    archive, here, elsewhere = tmp_path / "x.zip", finished.path.parent, tmp_path / "elsewhere"
    both = sorted([finished.id, finished.twin.id])
    code, out, err = command("export", finished.id, "--out", archive, "--runs", here)
    assert (code, err) == (0, "")
    assert all(part in out for part in (*both, str(archive)))
    code, out, _ = command("import", archive, "--runs", elsewhere, "--json")
    assert (code, json.loads(out)) == (0, {"new": both, "there": []})
    code, out, _ = command("import", archive, "--runs", elsewhere)
    assert code == 0
    assert "2 were there already" in out
    code, out, _ = command("export", finished.twin.id, "--out", archive, "--runs", elsewhere, "--json")
    assert (code, json.loads(out)) == (0, {"archive": str(archive), "runs": [finished.twin.id]})


def test_a_mistake_at_the_commands_is_one_sentence_and_exit_code_2(
    command, finished, small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    here = ("--runs", finished.path.parent)
    (tmp_path / "bad.zip").write_bytes(rewritten(small, replacing("result.json", lambda _: "not json")))
    for words in (
        ("export", "no-such-run", *here),
        ("export", finished.id, "--out", ".", *here),
        ("export", finished.id, "--out", tmp_path / "no" / "x.zip", *here),
        ("import", ".", "--runs", tmp_path / "runs"),
        ("import", "gone.zip", "--runs", tmp_path / "runs", "--json"),
        ("import", "bad.zip", "--runs", tmp_path / "runs"),
    ):
        code, out, err = command(*words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


def test_the_help_says_whose_word_an_imported_run_is(command):
    code, out, _ = command("import", "--help")
    assert code == 0
    assert "sender's word" in " ".join(out.replace("│", " ").split())
