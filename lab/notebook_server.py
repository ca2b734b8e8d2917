"""JupyterLab on the lessons: a copy for the learner, and a server that stays local and offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lab.errors import LabError
from lab.files import writing_to
from lab.paths import import_path, notebooks_dir, runs_dir
from lab.serving import LOCAL, check_address, wait_for_server


def copy_lessons(folder: Path) -> tuple[list[str], list[str]]:
    """Copy the lessons to a folder of the learner's; a file that is there already stays as it is.

    Args:
        folder: The folder, made where it is missing.

    Returns:
        The names of the files copied, and of those kept.

    Raises:
        LabError: JupyterLab is missing, no lesson is there, or the folder cannot be written.
    """
    check_jupyterlab()
    shipped = {path.name: path for path in notebooks_dir().glob("README.md")}
    for source in sorted(notebooks_dir().glob("[0-9][0-9]_*.py")):
        built = source.with_suffix(".ipynb")
        shipped[built.name] = built if built.is_file() else source
    if not any(name.endswith(".ipynb") for name in shipped):
        raise LabError(f"No lesson lies in {notebooks_dir()}; install the lab again.")
    copied, kept = [], []
    with writing_to(folder, choose="another folder with --folder"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in shipped.items():
            try:
                with open(folder / name, "xb") as mine:  # x: never over what is there
                    mine.write(_content(path))
                copied.append(name)
            except FileExistsError:
                kept.append(name)
    return copied, kept


def _content(path: Path) -> bytes:
    """A file as the learner gets it; a lesson that was not built is a notebook without outputs."""
    if path.suffix != ".py":
        return path.read_bytes()
    from lab.lessons.building import dumped
    from lab.lessons.sources import read_source

    return dumped(read_source(path)).encode()


def check_jupyterlab() -> None:
    """Refuse where JupyterLab is not installed, and say how to get it."""
    from importlib.util import find_spec

    if find_spec("jupyterlab") is None:
        raise LabError("Notebooks need JupyterLab: pip install 'lora-backdoor-lab[notebooks]'.")


def jupyter_command(folder: Path, *, port: int, browser: bool) -> list[str]:
    """The command that serves a folder.

    Args:
        folder: What people see.
        port: The port to listen on.
        browser: Whether to open a browser.
    """
    settings = {
        "ServerApp.ip": LOCAL,
        "ServerApp.port": str(port),
        "ServerApp.port_retries": "0",  # the port that was said, or a sentence
        "ServerApp.root_dir": str(folder.resolve()),
        "ServerApp.open_browser": str(browser),
        # both would ask the network
        "LabApp.news_url": "None",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # as in containers, where everything is root's already
        settings["ServerApp.allow_root"] = "True"
    return [sys.executable, "-m", "jupyterlab", *(f"--{key}={value}" for key, value in settings.items())]


def serve_notebooks(folder: Path, *, port: int = 8888, browser: bool = True, runs: str = "") -> int:
    """Serve a folder until it is interrupted.

    Args:
        folder: What people see.
        port: The port to listen on.
        browser: Whether to open a browser.
        runs: The runs folder, by the rule of `lab.paths.runs_dir`.

    Returns:
        The server's exit code.

    Raises:
        LabError: JupyterLab is missing, or the port is taken.
    """
    check_jupyterlab()
    check_address(LOCAL, port)
    # the first folder has the last word: ours only takes away the question about news, which needs a network
    config = [str(Path(__file__).parent / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    # without its own folder every notebook would make a runs folder beside itself
    environment = {
        **os.environ,
        "LAB_RUNS": str(runs_dir(runs or None)),
        "PYTHONPATH": import_path(),
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, config)),
    }
    return wait_for_server(
        subprocess.Popen(jupyter_command(folder, port=port, browser=browser), env=environment)
    )
