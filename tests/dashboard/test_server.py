import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What takes long to import, and is needed for the first page.
COSTLY = {"numpy", "pandas", "plotly", "lab.experiment", "lab.preview", "lab.estimates", "lab.run_index"}

_PAGE = """
import sys
from streamlit.testing.v1 import AppTest

sys.path.insert(0, "dashboard")
if {is_ahead}:
    import server

    server.read_ahead()
before = set(sys.modules)
app = AppTest.from_file("dashboard/bench.py", default_timeout=240)
app.query_params["preset"] = "rfc-citation"
app.query_params["set"] = ["base.model=tiny", "data.name=toy", "data.rows=160", "poison.count=16"]
app.run()
assert not app.exception, app.exception[0].message
print(*set(sys.modules) - before)
"""


def imported(runs, monkeypatch, is_ahead):
    """The costly modules that the first page itself has to import, in a fresh process."""
    monkeypatch.setenv("LAB_RUNS", str(runs))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    code = _PAGE.format(is_ahead=is_ahead)
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8"
    )
    return COSTLY & set(done.stdout.split())


def test_the_first_page_finds_everything_imported(tmp_path, monkeypatch):
    assert {"pandas", "lab.preview"} <= imported(tmp_path / "runs", monkeypatch, False)
    assert imported(tmp_path / "runs", monkeypatch, True) == set()


def test_reading_ahead_downloads_nothing(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "dashboard"))
    monkeypatch.setenv("LAB_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("lab.assets.cache._fetch", lambda asset: 1 / 0)
    import server

    server.read_ahead()
