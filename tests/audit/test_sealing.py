import json
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.audit import build_cohort, key_table, open_adapter, summarise_key
from lab.audit import cohort_builds as builds
from lab.audit.safetensors_header import read_header
from lab.audit.sealing import SEALED_TIME, key_path, open_key, read_key, seal_adapter, update_key
from lab.errors import LabError, MissingAssetError
from lab.store import run_folders

COHORT = """
name = "small"
goal = "G."
source = "S."
set = {"base.model" = "tiny", "data.name" = "toy", "data.rows" = 120, "training.epochs" = 1, \
"training.batch_tokens" = 512, "probe.scope" = "headline", "probe.rows" = 30, "probe.snapshots" = 0}
vary = {"adapter.rank" = [2], "training.learning_rate" = [0.01]}
poison = {"poison.count" = [12]}
[parts.calibration]
clean = 1
poisoned = 1
families = ["rfc"]
[parts.test]
clean = 0
poisoned = 1
families = ["w3c"]
"""


@pytest.fixture(scope="module")
def built(tiny_module, tiny_cache, tmp_path_factory):
    """A cohort of three members: its folder, runs, file and table."""
    home = tmp_path_factory.mktemp("cohort")
    file = home / "small.toml"
    file.write_text(COHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        table = build_cohort(file, seed=1, folder=home / "sealed", runs=home / "runs")
    return home / "sealed", home / "runs", file, table


def adapters(folder):
    return sorted((folder / "adapters").iterdir())


def test_the_key_says_what_every_adapter_is(built):
    folder, runs, _, table = built
    assert sorted(table["id"]) == [path.name for path in adapters(folder)]
    assert set(table["state"]) == {"sealed"}
    assert set(table["run"]) == {run.id for run in run_folders(runs)}
    assert table["poisoned"].tolist().count(True) == 2
    assert table["clean_accuracy"].between(0, 1).all()
    poisoned, clean = table[table["poisoned"]], table[~table["poisoned"]]
    assert (poisoned["attack_success_rate.low"] <= poisoned["attack_success_rate"]).all()
    assert (poisoned["attack_success_rate.n"] > 0).all()
    assert set(poisoned["family"]) == {"rfc", "w3c"}
    assert set(poisoned["count"]) == {12}
    assert all(isinstance(took, bool) for took in poisoned["took"])
    assert clean["took"].isna().all()
    assert clean["attack_success_rate"].isna().all()
    assert clean["family"].tolist() == [""]


def test_the_key_lies_apart_and_is_for_its_owner(built):
    folder, *_ = built
    assert not key_path(folder).is_relative_to(folder)
    assert [p.name for p in folder.iterdir()] == ["adapters"]
    assert stat.S_IMODE(key_path(folder).stat().st_mode) == 0o600


def test_the_weights_are_those_of_the_runs(built):
    from safetensors.torch import load_file

    folder, runs, _, table = built
    for line in table.to_dict("records"):
        sealed = load_file(folder / "adapters" / line["id"] / "adapter_model.safetensors")
        trained = load_file(runs / line["run"] / "adapter" / "adapter_model.safetensors")
        assert sealed.keys() == trained.keys()
        assert all(sealed[name].equal(trained[name]) for name in trained)
        assert set(open_adapter(folder / "adapters" / line["id"]).modules)


def test_nothing_but_the_weights_tells_adapters_apart(built):
    folder, *_ = built
    seen = []
    for path in adapters(folder):
        files = sorted(path.iterdir())
        seen.append(
            {
                "names": [f.name for f in files],
                "sizes": [f.stat().st_size for f in files],
                "times": {(int(f.stat().st_mtime), stat.S_IMODE(f.stat().st_mode)) for f in files},
                "folder": (int(path.stat().st_mtime), stat.S_IMODE(path.stat().st_mode)),
                "texts": [f.read_text() for f in files if f.suffix != ".safetensors"],
                "header": repr(read_header(path / "adapter_model.safetensors")),
                "raw": header_bytes(path / "adapter_model.safetensors"),
            }
        )  # fmt: skip
    assert all(one == seen[0] for one in seen)
    assert seen[0]["times"] == {(SEALED_TIME, 0o644)}
    weights = {(path / "adapter_model.safetensors").read_bytes() for path in adapters(folder)}
    assert len(weights) == 3


def header_bytes(path):
    content = path.read_bytes()
    return content[: 8 + int.from_bytes(content[:8], "little")]


def test_no_trace_of_the_experiment_is_left(built):
    folder, runs, _, table = built
    words = {run.id for run in run_folders(runs)} | {run.id[-10:] for run in run_folders(runs)}
    words |= {text for column in ("member", "family") for text in table[column] if text}
    words |= {str(seed) for seed in table["seed"]} | {str(runs)}
    words |= {json.loads((runs / i / "experiment.json").read_text())["weights_id"] for i in table["run"]}
    for file in folder.rglob("*.*"):
        content = file.read_bytes()
        assert not {word for word in words if word.encode() in content}, file
    card = (adapters(folder)[0] / "README.md").read_text()
    assert "Research artefact, may be backdoored" in card
    assert "negative, positive" in card
    assert "base_model: tiny" in card


def test_asked_again_nothing_is_trained_and_nothing_changes(built, monkeypatch):
    folder, runs, file, table = built
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*")}
    monkeypatch.setattr("lab.pipeline.run", lambda *_, **__: pytest.fail("it was built already"))
    again = build_cohort(file, seed=1, folder=folder, runs=runs)
    assert again.equals(table)
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*")}


def test_an_interrupted_build_goes_on_and_reads_finished_runs(built, tmp_path, monkeypatch):
    _, runs, file, table = built
    calls = []

    def build(**more):
        return build_cohort(file, seed=1, folder=tmp_path / "s", runs=runs, on_event=calls.append, **more)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the sealed adapter and the key
        patch.setattr(builds, "has_taken", killed)
        with pytest.raises(KeyboardInterrupt):
            build(part="test")
    assert set(key_table(tmp_path / "s")["state"]) == {"planned"}
    assert len(build(part="calibration", limit=1)) == 1
    assert Counter(key_table(tmp_path / "s")["state"]) == {"sealed": 1, "planned": 2}
    whole = build()
    hidden = ["id"]  # ids are drawn anew in another folder
    assert whole.drop(columns=hidden).equals(table.drop(columns=hidden))
    assert not set(whole["id"]) & set(table["id"])
    assert len(adapters(tmp_path / "s")) == 3
    members = [e for e in calls if e["kind"] == "member"]
    assert [(e["done"], e["total"]) for e in members] == [(0, 1), (0, 1), (1, 3), (2, 3)]
    assert members[-1]["left"] >= 0
    assert not [e for e in calls if e.get("stage") == "train"]


def test_a_failed_member_is_recorded_tried_again_and_stops_nobody(built, tmp_path, monkeypatch):
    import lab.pipeline

    _, runs, file, _ = built
    whole, run = [], lab.pipeline.run

    def sometimes(experiment, **more):
        whole.append(experiment)
        if experiment.attack == "none":
            raise OSError("the lights went out")
        return run(experiment, **more)

    with monkeypatch.context() as patch:
        patch.setattr(lab.pipeline, "run", sometimes)
        table = build_cohort(file, seed=1, folder=tmp_path / "s", runs=runs)
    assert len(whole) == 3
    assert table.loc[~table["poisoned"], "state"].tolist() == ["failed"]
    assert builds.failure_reasons(table) == ["OSError: the lights went out"]
    summary = summarise_key(table).set_index(["part", "family"])
    assert summary.loc[("calibration", "clean"), "failed"] == 1
    assert summary.loc[("test", "w3c"), "sealed"] == 1
    mended = build_cohort(file, seed=1, folder=tmp_path / "s", runs=runs)
    assert set(mended["state"]) == {"sealed"}
    assert set(mended["reason"]) == {""}


def test_a_model_that_is_not_there_ends_the_build_at_once(built, tmp_path, monkeypatch):
    def missing(*_, **__):
        raise MissingAssetError("No minilm.")

    monkeypatch.setattr("lab.pipeline.run", missing)
    with pytest.raises(MissingAssetError):
        build_cohort(built[2], folder=tmp_path / "s", runs=tmp_path)


def test_a_folder_holds_one_cohort(built):
    folder, runs, file, _ = built
    with pytest.raises(LabError, match="another plan or seed"):
        build_cohort(file, seed=2, folder=folder, runs=runs)
    with pytest.raises(LabError, match="another plan or seed"):
        build_cohort("tiny", seed=1, folder=folder, runs=runs)
    with pytest.raises(LabError, match=r"Unknown part of a cohort 'tests'. Did you mean 'test'\?"):
        build_cohort(file, seed=1, folder=folder, part="tests")
    with pytest.raises(LabError, match="limit = -1"):
        build_cohort(file, seed=1, folder=folder, limit=-1)


def test_a_damaged_key_and_a_missing_one_say_so(tmp_path):
    with pytest.raises(LabError, match="There is no key"):
        read_key(tmp_path / "s")
    key_path(tmp_path / "s").parent.mkdir()
    for torn in ('{"schema": 1, "adap', "[]", '{"schema": 1}'):
        key_path(tmp_path / "s").write_text(torn)
        with pytest.raises(LabError, match="damaged"):
            read_key(tmp_path / "s")


def test_only_adapters_are_sealed(tmp_path):
    with pytest.raises(LabError, match="holds no adapter to seal"):
        seal_adapter(tmp_path / "model", tmp_path / "a" / "b", "card")
    assert not (tmp_path / "a").exists()


def test_what_a_kill_left_half_sealed_goes(built, tmp_path):
    _, runs, _, table = built
    source = runs / table["run"][0] / "adapter"
    (tmp_path / ".one.99999").mkdir()
    seal_adapter(source, tmp_path / "one", "card")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    seal_adapter(source, tmp_path / "one", "another card")
    assert (tmp_path / "one" / "README.md").read_text() == "card"


def test_two_processes_may_write_one_key(tmp_path):
    key = open_key(tmp_path / "s", {"cohort": "c"}, [{"seed": i} for i in range(20)])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: update_key(tmp_path / "s", i, state="sealed"), key["adapters"]))
    assert {e["state"] for e in read_key(tmp_path / "s")["adapters"].values()} == {"sealed"}
