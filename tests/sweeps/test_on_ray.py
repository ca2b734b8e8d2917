"""A sweep on a Ray cluster of two nodes, on this machine: lost nodes, nodes without a common disk."""

import hashlib
import socket
import threading
import time

import pandas as pd
import pytest

import lab
from lab.errors import LabError
from lab.sweeps.executors import on_ray

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


def begun(runs):
    """How often each run was begun and finished, by its events."""
    from lab.store import RunFolder

    stages = {p.name: [e.get("stage") for e in RunFolder(p).read_events()] for p in runs.glob("tiny-*")}
    return {name: (found.count("load"), found.count("finished")) for name, found in stages.items()}


@pytest.mark.recipe  # starts a cluster and kills a part of it
def test_a_lost_node_costs_no_cell_and_results_are_those_of_this_machine(quick, cluster, tmp_path):
    runs, here = tmp_path / "ray", tmp_path / "local"
    over = {"poison.count": [4, 8], "adapter.rank": [1, 2]}
    seen = []

    def kill_once(event):
        if event["kind"] == "sweep" and not seen:
            threading.Thread(target=lambda: cluster.remove_node(cluster.second, allow_graceful=False)).start()
            seen.append(time.monotonic())

    table = lab.sweep(
        quick, over, seeds=1, runs=runs, device="cpu", executor="ray", address=cluster.address,
        on_event=kill_once,
    )  # fmt: skip
    assert seen, "a node was killed while others worked"
    assert table["reason"].tolist() == [""] * 4
    assert len(set(table["run"])) == 4
    assert {finished for _, finished in begun(runs).values()} == {1}, "each run was finished once"
    local = lab.sweep(quick, over, seeds=1, runs=here, device="cpu", executor="local", workers=2)
    pd.testing.assert_frame_equal(table, local)
    assert weights(runs) == weights(here)
    assert len(weights(runs)) == 6, "four cells, and the twins of two ranks"


@pytest.mark.recipe  # starts a cluster
def test_nodes_without_a_common_disk_send_their_runs_home(quick, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray.RayPool, "_is_shared", lambda *_: False)
    first = lab.sweep(quick, {"poison.count": [4]}, seeds=1, runs=tmp_path)
    table = lab.sweep(
        quick, {"poison.count": [4, 8]}, seeds=1, runs=tmp_path, device="cpu", executor="ray",
        address=cluster.address,
    )  # fmt: skip
    assert table["state"].tolist() == ["finished"] * 2
    assert table["run"][0] == first["run"][0]
    assert len(weights(tmp_path)) == 3, "the twin travelled to the node and was not trained again"
    assert not list(tmp_path.glob(".parcel-*"))
    assert not any((path / "checkpoints").exists() for path in tmp_path.glob("tiny-*"))


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
