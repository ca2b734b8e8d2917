import signal
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lab import LabError
from lab.cli import app
from lab.serving import check_address, check_password_file, dashboard_command, is_local


def settings(**asked):
    flags = [piece for piece in dashboard_command(**asked) if piece.startswith("--")]
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags)


def test_it_is_local_offline_and_quiet_unless_asked_otherwise():
    found = settings()
    assert found["server.address"] == "127.0.0.1"
    assert found["browser.gatherUsageStats"] == "false"
    assert found["server.enableXsrfProtection"] == "true"
    assert int(found["server.maxUploadSize"]) <= 64
    # with its welcome, Streamlit offers visitors on this machine to install tools of its own, over the page
    assert found["logger.hideWelcomeMessage"] == "true"


def test_every_setting_is_one_that_streamlit_knows():
    config = pytest.importorskip("streamlit.config")
    assert set(settings()) <= set(config.get_config_options())


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("lab.example", False)],
)
def test_what_only_this_machine_reaches(address, local):
    assert is_local(address) is local


def test_a_port_that_is_taken_is_refused_in_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LabError, match="cannot listen there"):
            check_address("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(LabError, match="between 1 and 65535"):
        check_address("127.0.0.1", 70_000)


def test_a_password_file_must_be_private_and_long_enough(tmp_path):
    path = tmp_path / "password"
    with pytest.raises(LabError, match="cannot be read"):
        check_password_file(path)
    path.write_text("short\n")
    with pytest.raises(LabError, match="at least 8"):
        check_password_file(path)
    path.write_text("long enough\n")
    path.chmod(0o644)
    with pytest.raises(LabError, match="chmod 600"):
        check_password_file(path)
    path.chmod(0o600)
    assert check_password_file(path) == path


def test_another_address_is_warned_about(monkeypatch):
    monkeypatch.setattr("lab.serving.serve", lambda **_: 0)
    result = CliRunner().invoke(app, ["dashboard", "--address", "0.0.0.0", "--no-browser"])
    assert "can be reached from other machines" in result.output
    assert "anybody there may train" in result.output


@pytest.mark.parametrize(
    ("address", "told"), [("127.0.0.1", "http://127.0.0.1:8613"), ("::1", "http://[::1]:8613")]
)
def test_where_it_is_served_is_told(monkeypatch, address, told):
    monkeypatch.setattr("lab.serving.serve", lambda **_: 0)
    result = CliRunner().invoke(app, ["dashboard", "--address", address, "--port", "8613", "--no-browser"])
    assert told in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to hear")
def test_who_ends_the_command_ends_the_server(tmp_path):
    said = tmp_path / "ended"
    server = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path({str(said)!r}).touch() or 7))\n"
        "print('serving', flush=True)\n"
        "time.sleep(120)\n"
    )
    command = (
        "import sys, lab.serving\n"
        f"lab.serving.dashboard_command = lambda **_: [sys.executable, '-c', {server!r}]\n"
        "sys.exit(lab.serving.serve(port=65535))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"serving"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 7
    assert said.exists()
