"""Where things lie: the facts the lab ships, the runs folder, the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from lab.errors import LabError

_PACKAGE = Path(__file__).resolve().parent


def expanded(name: str | Path) -> Path:
    """A path whose `~` is the user's home; unlike `Path.expanduser`, that of nobody stays as it is.

    What is read from there is then refused as every other file that is not there.
    """
    return Path(os.path.expanduser(name))


def kept_folder(name: str | Path) -> Path:
    """A folder that may be made, with the user's home for `~`.

    Raises:
        LabError: It is in the home of nobody: a folder that is called `~…` is not what anybody meant.
    """
    path = expanded(name)
    if str(path).startswith("~"):
        raise LabError(f"{str(name)!r}: there is no user {path.parts[0][1:]!r}; name another folder.")
    return path


def data_dir() -> Path:
    """The facts the lab ships (triggers, presets, pins): beside a checkout, else inside the wheel."""
    beside = _PACKAGE.parent / "data"
    return beside if (beside / "triggers").is_dir() else _PACKAGE / "_data"


def dashboard_dir() -> Path:
    """The dashboard's pages: beside a checkout, else inside the wheel."""
    beside = _PACKAGE.parent / "dashboard"
    return beside if (beside / "app.py").is_file() else _PACKAGE / "_dashboard"


def notebooks_dir() -> Path:
    """The lessons: beside a checkout, else inside the wheel."""
    beside = _PACKAGE.parent / "notebooks"
    return beside if any(beside.glob("00_*.py")) else _PACKAGE / "_notebooks"


def runs_dir(given: str | Path | None = None) -> Path:
    """The runs folder: `given`, else `LAB_RUNS`, else the nearest parent's `runs/`, else `./runs`.

    The same rule holds on the command line, in Jupyter and in the dashboard.

    Raises:
        LabError: As `kept_folder`.
    """
    if given:
        return kept_folder(given).resolve()
    if os.environ.get("LAB_RUNS"):
        return kept_folder(os.environ["LAB_RUNS"]).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "runs").is_dir():
            return folder / "runs"
    return here / "runs"


def cache_dir() -> Path:
    """The cache of assets and base spectra: `LAB_ASSETS`, else the platform's user cache folder.

    Raises:
        LabError: As `kept_folder`.
    """
    if os.environ.get("LAB_ASSETS"):
        return kept_folder(os.environ["LAB_ASSETS"]).resolve()
    import platformdirs

    return Path(platformdirs.user_cache_dir("lora-backdoor-lab", appauthor=False))


def import_path() -> str:
    """PYTHONPATH for a child process: a checkout that is not installed has to be in it."""
    return os.pathsep.join([str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
