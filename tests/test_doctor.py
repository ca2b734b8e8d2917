import dataclasses
import json
import socket
import sys

import pytest

from lab import cli, doctor
from lab.doctor import PORTS, Facts, examine, gather_facts

FINE = Facts(
    python=(3, 12, 1),
    torch="2.10.0",
    torch_error="",
    device="cpu",
    threads=4,
    cores=4,
    lacking={},
    disk_free=50.0,
    memory_free=6.0,
    memory=8.0,
    assets={"minilm": "whole", "movie_reviews": "whole", "smollm2": "missing"},
    offline=False,
    runs="runs",
    runs_error="",
)


def changed(**facts):
    """The lines that are not as on a fine machine."""
    return [f for f in examine(dataclasses.replace(FINE, **facts)) if f.state != "ok"]


def test_a_fine_machine_has_nothing_to_do():
    assert {(f.state, f.todo) for f in examine(FINE)} == {("ok", "")}


@pytest.mark.parametrize(
    ("facts", "subject", "state", "todo"),
    [
        ({"python": (3, 10, 9)}, "Python", "problem", "3.11"),
        ({"torch": "", "torch_error": "no libgomp"}, "PyTorch", "problem", "CPU build"),
        ({"threads": 16}, "threads", "warning", "OMP_NUM_THREADS=4"),
        ({"threads": 1}, "threads", "warning", "Unset"),
        ({"lacking": {"": ("torch<2.14",)}}, "packages", "problem", "--upgrade"),
        ({"lacking": {"notebooks": ("jupyterlab",)}}, "extra notebooks", "warning", "[notebooks]"),
        ({"disk_free": 0.2}, "disk", "problem", "LAB_RUNS"),
        ({"disk_free": 2.0}, "disk", "warning", "90 MB"),
        ({"memory": 1.5, "memory_free": 1.0}, "memory", "problem", "prepared runs"),
        ({"memory_free": 1.0}, "memory", "warning", "Close"),
        ({"assets": {"movie_reviews": "whole"}}, "asset minilm", "warning", "lab assets fetch minilm"),
        ({"assets": {**FINE.assets, "minilm": "damaged"}}, "asset minilm", "problem", "lab assets remove"),
        ({"assets": {**FINE.assets, "smollm2": "damaged"}}, "asset smollm2", "problem", "lab assets remove"),
        ({"runs_error": "Read-only file system"}, "runs folder", "problem", "--runs"),
        ({"busy_ports": (8888,)}, "port 8888", "warning", "--port 8898"),
        ({"browser": False}, "browser", "warning", "address"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(facts, subject, state, todo):
    (finding,) = changed(**facts)
    assert (finding.subject, finding.state) == (subject, state)
    assert todo in finding.todo
    assert finding.todo.endswith(".")


def test_without_a_network_a_missing_asset_is_a_problem():
    (finding,) = changed(assets={"movie_reviews": "whole"}, offline=True)
    assert (finding.state, "LAB_ASSETS" in finding.todo) == ("problem", True)


def test_the_command_exits_with_one_where_something_has_to_be_done(monkeypatch, capsys):
    for facts, code in ((FINE, 0), (dataclasses.replace(FINE, disk_free=0.1), 1)):
        monkeypatch.setattr(doctor, "gather_facts", lambda runs, facts=facts: facts)
        for more in ((), ("--json",)):
            monkeypatch.setattr(sys, "argv", ["lab", "doctor", *more])
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            out = capsys.readouterr().out
            assert (stopped.value.code or 0) == code
            assert "disk" in out
        assert {line["state"] for line in json.loads(out)} == ({"ok"} if not code else {"ok", "problem"})


def test_facts_of_this_machine(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(PORTS, port, "a test")
            facts = gather_facts(tmp_path / "runs")
    assert facts.torch
    assert port in facts.busy_ports
    assert facts.assets["minilm"] == "missing"
    assert (facts.runs_error, (tmp_path / "runs").exists()) == ("", False)
    assert 0 < facts.memory_free <= facts.memory
    assert examine(facts)
