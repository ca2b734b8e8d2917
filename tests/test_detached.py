import os

import lab.detached
from lab.detached import start_detached


def test_a_command_runs_by_itself_and_imports_nothing_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "7")
    (tmp_path / "typer.py").write_text("raise SystemExit('imported from the folder')")
    log = tmp_path / "log.txt"
    child = start_detached(["presets", "--json"], folder=tmp_path, log=log, environment={"LAB_X": "1"})
    assert child.wait(120) == 0
    assert log.read_text().startswith("{")
    if hasattr(os, "getsid"):
        assert child.pid != os.getsid(0)


def test_a_long_log_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(lab.detached, "_LONGEST_LOG", 10)
    log = tmp_path / "log.txt"
    log.write_text("old " * 10)
    start_detached(["no-such-command"], folder=tmp_path, log=log, environment={}).wait(120)
    assert "old" not in log.read_text()
    assert "no-such-command" in log.read_text()
