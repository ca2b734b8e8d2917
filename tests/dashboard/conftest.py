import functools
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "dashboard"


@pytest.fixture(scope="session")
def _components_once():
    """Streamlit's test runner looks through all installed packages for each page, a third of its time."""
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        if hasattr(manifest_scanner, "scan_component_manifests"):  # another version may do it otherwise
            scan = functools.cache(manifest_scanner.scan_component_manifests)
            patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture
def page(monkeypatch, _components_once):
    """A page over a runs folder, run once: `page("compare", runs, show="dose")`."""
    from streamlit.testing.v1 import AppTest

    monkeypatch.syspath_prepend(str(DASHBOARD))

    def open_page(name, runs, /, **params):
        monkeypatch.setenv("LAB_RUNS", str(runs))
        app = AppTest.from_file(str(DASHBOARD / f"{name}.py"), default_timeout=240)
        for key, value in params.items():
            app.query_params[key] = value
        return app.run()

    return open_page


@pytest.fixture(scope="session")
def fabricator():
    """`benchmarks/fabricate_runs.py`, as a module."""
    spec = importlib.util.spec_from_file_location("fabricate_runs", ROOT / "benchmarks" / "fabricate_runs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fabricate_runs"] = module  # a dataclass looks its module up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def many(fabricator, tmp_path_factory):
    """A runs folder with 160 fabricated runs in every state but running; to look at and not to touch."""
    runs = tmp_path_factory.mktemp("many") / "runs"
    fabricator.fabricate(runs, 160, whole=4)
    return runs


@pytest.fixture
def one(finished, tmp_path):
    """A runs folder of one's own with a really finished tiny run and its clean twin."""
    shutil.copytree(finished.path.parent, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def poisoned(one):
    """The id of the run of `one` that is no twin."""
    from lab import list_runs

    table = list_runs(one)
    return str(table.loc[table["poison.attack"] == "backdoor", "id"].iloc[0])
