"""A sweep on a Ray cluster of two nodes, on this machine: lost nodes, nodes without a common disk."""

import hashlib
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import lab
from lab.errors import LabError
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
