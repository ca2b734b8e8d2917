"""`lab` commands that outlive the process that starts them: what trains and audits behind the dashboard."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.files import writing_to
from lab.paths import cache_dir, import_path

#: Bytes after which a log begins anew.
_LONGEST_LOG = 10**6


def start_detached(
    words: Sequence[str], *, folder: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start `lab WORDS…` so that it does not end with this process, nor hold its terminal, folder or files.

    Args:
        words: The command's words after `lab`.
        folder: Where it runs; whatever lies there is not imported.
        log: Takes its output, in a folder that is there.
        environment: What it is told beside this process's own environment.

    Returns:
        The process, for asking whether it still lives.

    Raises:
        LabError: The log cannot be written.
    """
    is_long = log.is_file() and log.stat().st_size > _LONGEST_LOG
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    with writing_to(log.parent), log.open("wb" if is_long else "ab") as file:
        return subprocess.Popen(
            # -P keeps the folder out of the import path
            [sys.executable, "-P", "-m", "lab", *words],
            cwd=folder,
            env=child_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            **detached,
        )


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of the lab's own: the same code and assets, and no rank of ours.

    Args:
        more: What it is told besides.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    inherited |= {**more, "PYTHONUNBUFFERED": "1", "PYTHONPATH": import_path()}
    if os.environ.get("LAB_ASSETS"):
        inherited["LAB_ASSETS"] = str(cache_dir())
    return inherited
