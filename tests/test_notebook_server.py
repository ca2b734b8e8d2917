import os
import sys
from pathlib import Path

import pytest

from lab import LabError, cli, notebook_server
from lab.notebook_server import copy_lessons, jupyter_command
from lab.paths import notebooks_dir


def test_lessons_are_copied_and_never_overwritten(tmp_path):
    copied, kept = copy_lessons(tmp_path / "mine")
    assert "00_first_backdoor.ipynb" in copied
    assert kept == []
    mine = tmp_path / "mine" / "00_first_backdoor.ipynb"
    assert "Exercise 00.1" in mine.read_text(encoding="utf-8")
    assert len(list(notebooks_dir().glob("[0-9][0-9]_*.py"))) == len(list(mine.parent.glob("*.ipynb")))
    mine.write_text("my work")
    (tmp_path / "mine" / "README.md").unlink()
    copied, kept = copy_lessons(tmp_path / "mine")
    assert copied == ["README.md"]
    assert mine.name in kept
    assert mine.read_text() == "my work"


def test_the_command_serves_the_copy_here_alone_and_asks_no_network(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "theirs")
    monkeypatch.setattr(notebook_server, "check_address", lambda *_: None)
    monkeypatch.setattr(notebook_server, "wait_for_server", lambda process: 0)
    monkeypatch.setattr(notebook_server.subprocess, "Popen", lambda c, env: started.append((c, env)))
    folder = tmp_path / "mine"
    for flags in ((), ("--port", "9123", "--no-browser")):
        monkeypatch.setattr(sys, "argv", ["lab", "notebook", "--folder", str(folder), *flags])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert (stopped.value.code or 0) == 0
    (first, env), (second, _) = started
    assert {"--ServerApp.ip=127.0.0.1", "--ServerApp.port=8888", "--ServerApp.open_browser=True"} <= {*first}
    assert {"--ServerApp.port=9123", "--ServerApp.open_browser=False", "--LabApp.news_url=None"} <= {*second}
    assert f"--ServerApp.root_dir={folder}" in first
    assert env["LAB_RUNS"] == str(tmp_path / "runs")
    mine, theirs = env["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert (Path(mine) / "labconfig" / "page_config.json").is_file()
    assert theirs == "theirs"
    assert "kept as they were" in capsys.readouterr().err


def test_without_jupyterlab_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LabError, match=r"lora-backdoor-lab\[notebooks\]"):
        copy_lessons(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(LabError, match="another folder with --folder"):
        copy_lessons(tmp_path / "mine")


def test_every_setting_is_one_flag(tmp_path):
    command = jupyter_command(tmp_path, port=1234, browser=False)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert all(flag.startswith("--") and "=" in flag for flag in command[3:])
