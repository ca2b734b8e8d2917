"""A sweep on a Ray cluster of two nodes, on this machine: lost nodes, nodes without a common disk."""

import hashlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import lab
from lab.errors import LabError
from lab.store import RunFolder
from lab.sweeps.doing import Place
from lab.sweeps.executors import Setting, on_ray

pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")


@pytest.fixture
def quick(tiny):
    return tiny.with_(**{"training.steps": 4, "training.epochs": 0, "probe.scope": "headline"})


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one core each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.second = made.add_node(**node)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


def weights(runs):
    """Hashes of every run's weights, by run."""
    return {
        path.parts[-3]: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in runs.glob("*/adapter/adapter_model.safetensors")
    }


def finished(runs):
    """How often each run was finished, by its events."""
    from lab.store import RunFolder

    stages = {p.name: [e.get("stage") for e in RunFolder(p).read_events()] for p in runs.glob("tiny-*")}
    return {name: found.count("finished") for name, found in stages.items()}


def kill_when_busy(cluster, runs, tell, is_over):
    """Lose the second node once two runs are under way: a node has one core, so one of them is there."""
    while sum(not (p.parent / "result.json").exists() for p in runs.glob("*/experiment.json")) < 2:
        if is_over.is_set():
            return
        time.sleep(0.02)
    cluster.remove_node(cluster.second, allow_graceful=False)
    tell.append(True)


@pytest.mark.recipe  # starts a cluster and kills a part of it
def test_a_lost_node_costs_no_cell_and_results_are_those_of_this_machine(quick, cluster, tmp_path):
    runs, here, killed, is_over = tmp_path / "ray", tmp_path / "local", [], threading.Event()
    over = {"poison.count": [4, 8], "adapter.rank": [1, 2]}
    killer = threading.Thread(target=kill_when_busy, args=(cluster, runs, killed, is_over))
    killer.start()
    try:
        table = lab.sweep(
            quick, over, seeds=1, runs=runs, device="cpu", executor="ray", address=cluster.address
        )
    finally:
        is_over.set()
        killer.join()
    assert killed, "a node was lost"
    assert table["reason"].tolist() == [""] * 4
    assert len(set(table["run"])) == 4
    assert set(finished(runs).values()) == {1}, "each run was finished once"
    local = lab.sweep(quick, over, seeds=1, runs=here, device="cpu", executor="local", workers=2)
    pd.testing.assert_frame_equal(table, local)
    assert weights(runs) == weights(here)
    assert len(weights(runs)) == 6, "four cells, and the twins of two ranks"


@pytest.mark.recipe  # starts a cluster
def test_nodes_without_a_common_disk_send_their_runs_home(quick, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray.RayPool, "_is_shared", lambda *_: False)
    token = f"test-{os.getpid()}"
    monkeypatch.setattr(on_ray, "secrets", SimpleNamespace(token_hex=lambda _: token))
    visit, seen = on_ray.RayPool._on_every_node, []

    def visit_once_looked(pool, ray, function, *words):
        seen.extend(Path(tempfile.gettempdir()).glob(f"lab-runs-{token}-*"))
        return visit(pool, ray, function, *words)

    monkeypatch.setattr(on_ray.RayPool, "_on_every_node", visit_once_looked)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)  # which is what "auto" looks at first
    first = lab.sweep(quick, {"poison.count": [4]}, seeds=1, runs=tmp_path)
    table = lab.sweep(
        quick, {"poison.count": [4, 8]}, seeds=1, runs=tmp_path, device="cpu", executor="ray", address="auto"
    )  # fmt: skip
    assert table["state"].tolist() == ["finished"] * 2
    assert table["run"][0] == first["run"][0]
    assert len(weights(tmp_path)) == 3, "the twin travelled to the node and was not trained again"
    assert not list(tmp_path.glob(".parcel-*"))
    assert not any((path / "checkpoints").exists() for path in tmp_path.glob("tiny-*"))
    assert seen, "a node worked in a folder of its own"
    left = list(Path(tempfile.gettempdir()).glob(f"lab-runs-{token}-*"))
    assert not left, "the nodes' own folders are removed"


@pytest.mark.recipe  # starts a cluster
def test_a_run_that_lies_here_is_asked_more_on_a_node_without_a_common_disk(
    quick, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(on_ray.RayPool, "_is_shared", lambda *_: False)
    lab.run(quick, runs=tmp_path, seed=0, twin=False)
    trained = weights(tmp_path)
    table = lab.sweep(
        quick, {"probe.rows": [20, 30]}, seeds=1, runs=tmp_path, device="cpu", executor="ray",
        address=cluster.address,
    )  # fmt: skip
    assert table["reason"].tolist() == ["", ""]
    assert table["clean_accuracy.n"].tolist() == [20, 30]
    assert table["twin.clean_accuracy.n"].tolist() == [20, 30]
    assert trained.items() <= weights(tmp_path).items(), "no weights were trained again"


@pytest.mark.recipe  # starts a cluster
@pytest.mark.parametrize("is_shared", [True, False])
def test_a_twin_whose_worker_dies_takes_no_cell_with_it(quick, cluster, tmp_path, monkeypatch, is_shared):
    def dying(asked, *words):
        from lab.sweeps.executors.on_ray import _do

        if asked["kind"] == "twin":
            os._exit(1)
        return _do(asked, *words)

    monkeypatch.setattr(on_ray, "_do", dying)
    monkeypatch.setattr(on_ray, "_RETRIES", 0)
    monkeypatch.setattr(on_ray.RayPool, "_is_shared", lambda *_: is_shared)
    table = lab.sweep(
        quick, {"poison.count": [4, 8]}, seeds=1, runs=tmp_path, device="cpu", executor="ray",
        address=cluster.address,
    )  # fmt: skip
    assert table["reason"].tolist() == ["", ""]
    assert len(weights(tmp_path)) == 3, "one twin, which a cell trained"


def task_error(cause):
    """What Ray makes of an exception in a task."""
    from ray.exceptions import RayTaskError

    return RayTaskError("_do", "Traceback\n  File …\nError: …", cause, "p", 1, "::1")


class Ref:
    """What a task or a put of `FakeRay` gives: a value, or the error that it is asked for in vain."""

    def __init__(self, value=None, error=None):
        self.value, self.error = value, error


class FakeRay:
    """Ray within this process: a task is done when it is asked for, and fails with what it rests on."""

    def __init__(self, dying=()):
        import ray

        self.exceptions, self.__spec__ = ray.exceptions, ray.__spec__
        self.dying, self.done = dying, []

    def nodes(self):
        return []

    def put(self, value):
        return Ref(value)

    def remote(self, **_):
        return lambda function: SimpleNamespace(remote=lambda *words: self.call(function, words))

    def call(self, function, words):
        kind = words[0]["kind"]
        for word in words:
            if isinstance(word, Ref) and word.error:
                return self.raised(word.error)
        self.done.append(kind)
        if kind in self.dying:
            return Ref(error=self.exceptions.WorkerCrashedError())
        try:
            return Ref(function(*[word.value if isinstance(word, Ref) else word for word in words]))
        except Exception as error:
            return self.raised(error)

    def raised(self, cause):
        return Ref(error=task_error(cause).as_instanceof_cause())

    def wait(self, refs, num_returns, timeout):
        return refs[:num_returns], refs[num_returns:]

    def get(self, ref, timeout=None):
        if ref.error:
            raise ref.error
        return ref.value


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Sweeps on a Ray that is none, whose only node has a folder of its own: `fake(dying=[…])`."""

    def install(dying=()):
        made = FakeRay(dying)
        monkeypatch.setitem(sys.modules, "ray", made)
        return made

    monkeypatch.setattr(on_ray.RayPool, "__enter__", lambda pool: pool)
    monkeypatch.setattr(on_ray.RayPool, "__exit__", lambda *_: None)
    monkeypatch.setattr(on_ray.RayPool, "_is_shared", lambda *_: False)
    monkeypatch.setattr(on_ray, "_node_folder", lambda _: tmp_path / "node")
    return install


def on_nodes(experiment, over, runs, **more):
    """A sweep by the executor."""
    return lab.sweep(experiment, over, seeds=1, runs=runs, device="cpu", executor="ray", **more)


def asked_before(experiment, **probe):
    return experiment.with_(**{f"probe.{name}": value for name, value in probe.items()})


@pytest.mark.parametrize(
    ("before", "twin"),
    [({"rows": 20}, True), ({}, False), ({"split": "validation"}, True), ({"triggers": ["cf"]}, False)],
    ids=["other rows", "no twin", "validation only", "other triggers"],
)
def test_what_is_missing_of_a_run_that_lies_here_is_measured_elsewhere(quick, fake, tmp_path, before, twin):
    fake()
    runs = tmp_path / "runs"
    first = lab.run(asked_before(quick, **before), runs=runs, seed=0, twin=twin)
    (first.path / "note.md").write_text("mine")
    trained, former = weights(runs), first.headline
    predictions = first.predictions
    table = on_nodes(quick, {"poison.count": [12]}, runs)
    assert table["reason"].tolist() == [""]
    assert table["run"].tolist() == [first.id]
    assert table["twin.clean_accuracy.n"].tolist() == [30]
    assert trained.items() <= weights(runs).items()
    assert (first.path / "note.md").read_text() == "mine"
    if before:
        assert first.headline == former
        pd.testing.assert_frame_equal(first.predictions, predictions)
    assert [e.get("stage") for e in RunFolder(first.path).read_events()].count("finished") == 2


def test_cells_that_differ_in_their_probe_alone_are_one_run_with_both(quick, fake, tmp_path):
    fake()
    runs = tmp_path / "runs"
    over = {"probe.rows": [20, 30]}
    table = on_nodes(quick, over, runs)
    assert table["reason"].tolist() == ["", ""]
    assert table["run"].nunique() == 1
    local = lab.sweep(quick, over, seeds=1, runs=tmp_path / "local", device="cpu", executor="inline")
    pd.testing.assert_frame_equal(table, local)


def test_a_disk_of_a_node_that_is_full_is_told_in_one_sentence(quick, fake, tmp_path, monkeypatch):
    fake()

    def full(*_, **__):
        raise LabError("Cannot write to /tmp: the disk is full.")

    lab.run(quick.twin(), runs=tmp_path / "runs", seed=0)
    monkeypatch.setattr(on_ray, "unpack_runs", full)
    table = on_nodes(quick, {"poison.count": [4]}, tmp_path / "runs")
    assert table["reason"].tolist() == ["Cannot write to /tmp: the disk is full."]


def test_what_a_task_raised_is_its_sentence_and_no_traceback(tmp_path):
    raised = task_error(LabError("The disk is full."))
    deeper = task_error(raised)
    for error in (raised, raised.as_instanceof_cause(), deeper.as_instanceof_cause()):
        assert on_ray._sentence(error) == "The disk is full."
    assert on_ray._sentence(ValueError("one\ntwo")) == "ValueError: one"


@pytest.mark.parametrize("dying", ["twin", "base"])
def test_a_cell_whose_twin_or_base_is_lost_is_tried_without(quick, fake, tmp_path, dying):
    ray = fake(dying=[dying])
    (tmp_path / "base.json").write_text(json.dumps(quick.to_dict()))
    over = {"base.model": [str(tmp_path / "base.json")]} if dying == "base" else {"poison.count": [4]}
    table = on_nodes(quick, over, tmp_path / "runs")
    assert dying in ray.done
    assert table["reason"].tolist() == [""]
    assert table["twin.clean_accuracy.n"].tolist() == [30]


def test_a_cell_that_is_lost_itself_is_told_once(quick, fake, tmp_path):
    ray = fake(dying=["twin", "cell"])
    table = on_nodes(quick, {"poison.count": [4]}, tmp_path / "runs")
    assert ray.done == ["twin", "cell"]
    assert table["reason"].str.startswith("Ray gave it up: WorkerCrashedError").all()


def nodes(*resources):
    """A Ray that has these nodes, the last of them lost."""
    told = [{"Alive": True, "Resources": own} for own in resources]
    return SimpleNamespace(nodes=lambda: [*told, {"Alive": False, "Resources": {"GPU": 8.0}}])


@pytest.mark.parametrize(
    ("found", "device", "asked"),
    [
        ([{"memory": 9e9}, {"memory": 8e9}], "auto", {"num_cpus": 1, "memory": 2 * 2**30}),
        ([{"memory": 9e9}, {"memory": 1e9}], "auto", {"num_cpus": 1}),
        ([{"GPU": 1.0}, {}], "auto", {"num_cpus": 1, "num_gpus": 0.12}),
        ([{"GPU": 1.0}], "cpu", {"num_cpus": 1}),
        ([{"CPU": 2.0}], "cuda", {"num_cpus": 1}),
    ],
)
def test_a_task_asks_for_what_there_is(found, device, asked, tmp_path):
    setting = Setting(Place(tmp_path, device), 1, tmp_path, need=2 * 2.0**30)
    assert on_ray.RayPool(setting)._resources(nodes(*found)) == asked


def test_a_large_model_has_a_card_to_itself(tmp_path):
    setting = Setting(Place(tmp_path, "auto"), 1, tmp_path, need=60 * 2.0**30)
    assert on_ray.RayPool(setting)._resources(nodes({"GPU": 1.0}))["num_gpus"] == 1.0


def test_nobody_at_the_address_is_told_within_seconds():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(LabError, match="no Ray cluster answers there"):
        on_ray._check_address(address)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "address", ["nonsense", "host:", ":1", "host:99999999", "host:port", "ray://host:10001"]
)
def test_an_address_that_is_none(address):
    with pytest.raises(LabError, match="HOST:PORT"):
        on_ray._check_address(address)


def test_somebody_else_at_the_address_is_told_too(monkeypatch):
    monkeypatch.setattr(on_ray, "_ANSWER", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(LabError, match="no Ray cluster answers there"),
    ):
        on_ray._check_address(f"127.0.0.1:{server.getsockname()[1]}")


def test_without_ray_it_says_what_to_install(monkeypatch, tiny):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LabError, match="pip install"):
        lab.sweep(tiny, {}, seeds=1, executor="ray")
