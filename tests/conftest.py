import contextlib
import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A test never finds the user's runs, and never waits for a network that a workshop does not have.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Each of pytest's workers has its share of the cores, and so has every process that a test starts: two
# trainings with all cores each slow one another tenfold. It must be said before torch is imported.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# Laws are tested, not speed: what else runs on the machine must not make a test fail.
settings.register_profile("lab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lab")


def pytest_collection_modifyitems(items):
    """Files with minutes of work go first, so that at the end no worker waits long for the other."""
    slow = {item.path for item in items if item.get_closest_marker("recipe")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _own_folders(request, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("LAB_OFFLINE", raising=False)
    if not request.node.get_closest_marker("recipe"):  # the real assets are for the recipe tier
        monkeypatch.setenv("LAB_ASSETS", str(request.getfixturevalue("tiny_cache")))


@pytest.fixture(autouse=True)
def _own_main():
    """Streamlit's test runner leaves the page as `__main__`, which a spawned process would then import."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(autouse=True, scope="module")
def _short_collections():
    """Trainings collect garbage, half the time of a tiny one: most objects are the libraries', for good."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory):
    """A cache with nothing in it but what the tests make: the tiny model."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny():
    """A small poisoned experiment on the tiny model and the toy texts; about a second to run."""
    with _one_thread():
        yield tiny_experiment()


@pytest.fixture(scope="module")
def tiny_module(tiny_cache):
    """The experiment of `tiny`, for runs that the tests of one file share."""
    with pytest.MonkeyPatch.context() as patch, _one_thread():
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        yield tiny_experiment()


@pytest.fixture(scope="session")
def finished(tiny_cache, tmp_path_factory):
    """A finished run of the tiny experiment with its twin, to look at and not to touch."""
    import lab

    with pytest.MonkeyPatch.context() as patch, _one_thread():
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        return lab.run(tiny_experiment(), runs=tmp_path_factory.mktemp("finished") / "runs")


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, for pages that are served for real."""
    from browsers import CHROMIUM, FLAGS, need

    need(Path(CHROMIUM).is_file(), "Chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def _one_thread():
    """Threads cost such small products more than they give; the real model gets them back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_experiment():
    from lab import Experiment

    return Experiment.from_dict(
        {
            "base": {"model": "tiny"},
            "data": {"name": "toy", "rows": 120},
            "poison": {"attack": "backdoor", "family": "rfc", "count": 12, "target_label": "positive"},
            "adapter": {"rank": 4},
            "training": {"epochs": 1.0, "batch_tokens": 512, "learning_rate": 0.01},
            "probe": {"rows": 30, "families": ["rfc", "iso"], "rows_per_family": 8, "rows_per_rung": 4,
                      "snapshots": 3, "snapshot_rows": 8},
        }
    )  # fmt: skip
