"""Several processes train one run together: one writes, the others train along."""

import json
import os
import subprocess
import sys

import pytest

import lab

#: The two commands of the README, as modules. "--multi_gpu" is what accelerate calls several processes, and
#: without a GPU they train on the CPU; with its "--cpu" there would be one process alone.
TORCHRUN = ("torch.distributed.run", "--nproc_per_node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")


@pytest.mark.recipe  # no download, but three processes to start
def test_two_processes_make_one_run(tiny, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(tiny.with_(**{"training.steps": 8}).to_toml())
    document = _together(path, tmp_path / "runs", *ACCELERATE)
    together = lab.load_run(document["id"], tmp_path / "runs")
    assert together.state == "finished"
    assert len(lab.list_runs(tmp_path / "runs")) == 2
    steps = [e["step"] for e in together._folder.read_events() if e["kind"] == "train"]
    assert steps == sorted(set(steps)), "each step is told once"
    alone = lab.run(path, runs=tmp_path / "alone")
    assert together.id == alone.id
    _close(together, alone)


def _together(path, runs, *launcher):
    """What `lab run --json` says when two processes work on it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LAB_RUNS": str(runs)}
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "lab", "run", str(path), "--json", "--device", "cpu"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout)  # one document: the second process prints nothing
    assert lab.load_run(document["id"], runs).result["machine"]["processes"] == 2
    return document


def _close(one, two):
    """Sharing a batch over processes sums in another order: nearly the same weights, not bit for bit."""
    import numpy as np
    from safetensors.numpy import load_file

    a, b = (load_file(r.path / "adapter" / "adapter_model.safetensors") for r in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=2e-2, err_msg=name)


@pytest.mark.recipe  # no download, but three processes to start
def test_two_processes_derive_a_run_from_an_adapter_as_base(tiny, tmp_path):
    runs = tmp_path / "runs"
    quick = {"training.epochs": 0, "training.steps": 6, "probe.scope": "headline", "probe.snapshots": 0}
    base = lab.run(tiny, {**quick, "data.pool": "a"}, runs=runs)
    path = tmp_path / "tuned.toml"
    changes = {"base.model": base.id, "poison.attack": "none", "defense": ["cl", "tr", "scale"]}
    path.write_text(tiny.with_(**quick, **changes).to_toml())
    document = _together(path, runs, *TORCHRUN)
    derived = lab.load_run(document["id"], runs)
    assert derived.state == "finished"
    assert derived.parent.state == "finished"
    assert derived.twin.base_run.id == base.twin.id
    assert (base.path / "merged" / "model.safetensors").is_file()
    assert len(lab.list_runs(runs)) == 6, "base, fine-tune and derived run, and the twin of each"
