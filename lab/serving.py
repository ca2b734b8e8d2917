"""How the dashboard is served: Streamlit with settings that keep it offline, local and quiet."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from lab.paths import dashboard_dir, expanded, import_path, runs_dir

LOCAL = "127.0.0.1"
#: Megabytes: adapters that the Audit page takes have 2 to 6 on MiniLM and some 40 on larger bases. Tables are
#: held to the 10 of `lab.uploads.LARGEST` where they are kept.
_LARGEST_UPLOAD = 64

#: Colours as in lab.figures.style; vermillion stays with attack success.
_THEME = {
    "theme.light.primaryColor": "#0063A0",
    "theme.light.backgroundColor": "#FFFFFF",
    "theme.light.secondaryBackgroundColor": "#F4F6F8",
    "theme.light.textColor": "#1F2328",
    "theme.light.linkColor": "#0063A0",
    "theme.dark.primaryColor": "#56B4E9",
    "theme.dark.backgroundColor": "#12161B",
    "theme.dark.secondaryBackgroundColor": "#1C222A",
    "theme.dark.textColor": "#E6EAEF",
    "theme.dark.linkColor": "#79C4F2",
}


def dashboard_command(
    *, address: str = LOCAL, port: int = 8501, browser: bool = True, theme: Mapping[str, str] = _THEME
) -> list[str]:
    """The command that serves the dashboard.

    Args:
        address: The address to listen on.
        port: The port.
        browser: Whether to open a browser.
        theme: Streamlit's theme settings.
    """
    settings = {
        "server.address": address,
        "server.port": str(port),
        "server.headless": "false" if browser else "true",
        "server.enableXsrfProtection": "true",
        "server.enableCORS": "true",
        "server.maxUploadSize": str(_LARGEST_UPLOAD),
        "server.fileWatcherType": "none",
        # a whole collection after every rerun takes longer than most reruns; Python collects by itself
        "runner.postScriptGC": "false",
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
        # with its welcome comes an offer, over the page, to install tools that write into the environment
        "logger.hideWelcomeMessage": "true",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "type",
        "client.showErrorLinks": "false",
        "runner.magicEnabled": "false",
        **theme,
    }
    flags = [f"--{key}={value}" for key, value in settings.items()]
    pages = dashboard_dir()
    return [sys.executable, str(pages / "server.py"), "run", str(pages / "app.py"), *flags]


def serve(
    *,
    runs: str = "",
    address: str = LOCAL,
    port: int = 8501,
    browser: bool = True,
    password_file: Path | None = None,
) -> int:
    """Serve the dashboard until it is interrupted.

    Args:
        runs: The runs folder, by the rule of `lab.paths.runs_dir`.
        address: The address to listen on; another than this machine's own opens it to the network.
        port: The port.
        browser: Whether to open a browser.
        password_file: A file that holds the password for training and deleting.

    Returns:
        The server's exit code.

    Raises:
        LabError: Streamlit is not installed, the port is taken, or the password file cannot be used.
    """
    check_installed()
    check_address(address, port)
    folder = runs_dir(runs or None)
    environment = {**os.environ, "LAB_RUNS": str(folder), "PYTHONPATH": import_path()}
    if password_file is not None:
        environment["LAB_DASHBOARD_PASSWORD_FILE"] = str(check_password_file(password_file))
    # read from the folder that people stand in, its settings would win over nothing but those we leave open
    command = dashboard_command(address=address, port=port, browser=browser)
    return wait_for_server(subprocess.Popen(command, env=environment))


def wait_for_server(server: subprocess.Popen[bytes]) -> int:
    """The server's exit code; whoever ends this process ends the server with it."""

    def end(*_: object) -> None:
        server.terminate()

    before = signal.signal(signal.SIGTERM, end)
    try:
        return server.wait()
    except KeyboardInterrupt:  # the server heard it too: wait until it has left its port
        server.wait()
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)


def is_local(address: str) -> bool:
    """Whether only this machine can reach an address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def check_installed() -> None:
    """Refuse where Streamlit is not installed, and say how to get it."""
    from importlib.util import find_spec

    if find_spec("streamlit") is None:
        raise LabError("The dashboard needs Streamlit: pip install 'lora-backdoor-lab[dashboard]'.")


def check_address(address: str, port: int) -> None:
    """Refuse an address that is not this machine's, or a port that is taken."""
    if not 1 <= port <= 65535:
        raise LabError(f"--port {port}: should be between 1 and 65535.")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            # as the server itself does: a port that was just left is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except PermissionError:
        raise LabError(f"--port {port}: this user may not listen there; choose one above 1023.") from None
    except OSError as error:
        raise LabError(
            f"--address {address} --port {port}: cannot listen there ({error.strerror})."
        ) from None


def check_password_file(path: Path) -> Path:
    """The whole path of a password file that can be used.

    Raises:
        LabError: It cannot be read, is empty, or others on this machine can read it.
    """
    path = expanded(path).resolve()
    try:
        text = path.read_text(encoding="utf-8").strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"--password-file {str(path)!r} cannot be read ({error}).") from None
    if len(text) < 8:
        raise LabError(f"--password-file {path.name}: the password should have at least 8 characters.")
    if os.name == "posix" and mode & 0o077:
        raise LabError(f"--password-file {path.name}: others can read it; run chmod 600 on it.")
    return path
