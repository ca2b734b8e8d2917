"""Whether a machine is ready for a workshop: facts are gathered once, and judged by pure functions.

A problem has to be mended before anything works; a warning says what will be missed, or slow.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab.assets import ASSETS, is_offline
from lab.errors import LabError
from lab.files import nearest_folder
from lab.paths import cache_dir, runs_dir

State = Literal["ok", "warning", "problem"]
AssetState = Literal["whole", "missing", "damaged"]

#: What the lessons and the default experiment need.
WORKSHOP_ASSETS = ("minilm", "movie_reviews")
#: Extras that a workshop uses, and what is missed without them.
WORKSHOP_EXTRAS = {"dashboard": "the pages of `lab dashboard`", "notebooks": "the lessons in JupyterLab"}
#: What listens where by default.
PORTS = {8501: "lab dashboard", 8888: "lab notebook"}
#: GB free on the disk: below the first nothing is certain, below the second large runs do not fit.
_DISK = (1.0, 5.0)
#: GB of memory: a MiniLM training with its data takes about 1.5.
_MEMORY = (2.0, 4.0)


@dataclass(frozen=True)
class Facts:
    """What is known of a machine.

    Attributes:
        python: Its version, such as (3, 12, 1).
        torch: Its version; "" where it cannot be imported.
        torch_error: Why it cannot be imported; "" where it can.
        device: "cpu", "cuda" or "mps": what a training would take.
        threads: How many threads torch uses.
        cores: How many cores there are.
        lacking: By extra, "" for the core: requirements that are not there, or not in their version.
        disk_free: GB free where runs would lie.
        memory_free: GB of memory free now.
        memory: GB of memory in all.
        assets: Each asset's state in the cache.
        offline: Whether downloads are forbidden.
        runs: The runs folder.
        runs_error: Why it cannot be written; "" where it can.
        busy_ports: Ports of `PORTS` that something listens on.
        browser: Whether a browser was found.
        cache: The folder of the assets.
    """

    python: tuple[int, int, int]
    torch: str
    torch_error: str
    device: str
    threads: int
    cores: int
    lacking: Mapping[str, tuple[str, ...]]
    disk_free: float
    memory_free: float
    memory: float
    assets: Mapping[str, AssetState]
    offline: bool
    runs: str
    runs_error: str
    busy_ports: tuple[int, ...] = ()
    browser: bool = True
    cache: str = ""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        subject: What was looked at.
        state: "ok", "warning" or "problem".
        told: What was found.
        todo: What to do, in a sentence; "" where there is nothing to do.
    """

    subject: str
    state: State
    told: str
    todo: str = field(default="")


def examine(facts: Facts) -> list[Finding]:
    """Judge a machine by its facts; nothing is looked up, so that the same facts give the same lines."""
    return [
        _python(facts),
        _torch(facts),
        _threads(facts),
        *_packages(facts),
        _disk(facts),
        _memory(facts),
        *_assets(facts),
        _runs(facts),
        *_ports(facts),
        _browser(facts),
    ]


def _python(facts: Facts) -> Finding:
    version = ".".join(map(str, facts.python))
    if facts.python < (3, 11):
        return Finding(
            "Python", "problem", version, "Install Python 3.11 or newer and make a new environment."
        )
    return Finding("Python", "ok", version)


def _torch(facts: Facts) -> Finding:
    if not facts.torch:
        todo = "Install PyTorch, on a machine without a CUDA card its CPU build, then the lab again."
        return Finding("PyTorch", "problem", facts.torch_error or "not installed", todo)
    return Finding("PyTorch", "ok", f"{facts.torch}, computes on {facts.device}")


def _threads(facts: Facts) -> Finding:
    told = f"{facts.threads} threads on {facts.cores} cores"
    if facts.threads > facts.cores:
        return Finding(
            "threads", "warning", told, f"Set OMP_NUM_THREADS={facts.cores}; more slow each other."
        )
    if facts.torch and facts.device == "cpu" and facts.threads < facts.cores / 2:
        return Finding(
            "threads", "warning", told, "Unset OMP_NUM_THREADS, or trainings use few of the cores."
        )
    return Finding("threads", "ok", told)


def _packages(facts: Facts) -> Iterator[Finding]:
    lacking = facts.lacking.get("", ())
    if lacking:
        todo = "Run pip install --upgrade lora-backdoor-lab in this environment."
        yield Finding("packages", "problem", f"not as the lab needs them: {', '.join(lacking)}", todo)
    else:
        yield Finding("packages", "ok", "all that the core needs")
    for extra, use in WORKSHOP_EXTRAS.items():
        lacking = facts.lacking.get(extra, ())
        if lacking:
            todo = f"Run pip install 'lora-backdoor-lab[{extra}]' for {use}."
            yield Finding(f"extra {extra}", "warning", f"missing: {', '.join(lacking)}", todo)
        else:
            yield Finding(f"extra {extra}", "ok", "there")


def _disk(facts: Facts) -> Finding:
    told = f"{facts.disk_free:.1f} GB free"
    if facts.disk_free < _DISK[0]:
        return Finding(
            "disk", "problem", told, f"Free {_DISK[0]:.0f} GB, or choose another runs folder by LAB_RUNS."
        )
    if facts.disk_free < _DISK[1]:
        return Finding("disk", "warning", told, "Enough for LoRA runs; full fine-tuning takes 90 MB a run.")
    return Finding("disk", "ok", told)


def _memory(facts: Facts) -> Finding:
    told = f"{facts.memory_free:.1f} of {facts.memory:.1f} GB free"
    if facts.memory < _MEMORY[0]:
        return Finding(
            "memory", "problem", told, f"Use a machine with {_MEMORY[1]:.0f} GB, or prepared runs only."
        )
    if facts.memory_free < _MEMORY[0]:
        return Finding(
            "memory", "warning", told, "Close other programs before you train; a training takes 1.5 GB."
        )
    return Finding("memory", "ok", told)


def _assets(facts: Facts) -> Iterator[Finding]:
    for name in WORKSHOP_ASSETS:
        yield _asset(name, facts.assets.get(name, "missing"), facts.offline, facts.cache)
    others = [
        name for name, state in facts.assets.items() if name not in WORKSHOP_ASSETS and state == "damaged"
    ]
    for name in others:
        yield _asset(name, "damaged", facts.offline, facts.cache)


def _asset(name: str, state: AssetState, offline: bool, cache: str) -> Finding:
    subject = f"asset {name}"
    if state == "whole":
        return Finding(subject, "ok", f"in {cache or 'the cache'}, hashes right")
    if offline:
        todo = "Copy the cache folder of a machine that has it (LAB_ASSETS names it), or unset LAB_OFFLINE."
        return Finding(subject, "problem", f"{state}, and LAB_OFFLINE forbids downloads", todo)
    if state == "damaged":
        todo = f"Run lab assets remove {name}, then lab assets fetch {name}."
        return Finding(subject, "problem", "in the cache, but not as it was pinned", todo)
    return Finding(
        subject, "warning", "not in the cache", f"Run lab assets fetch {name} while there is a network."
    )


def _runs(facts: Facts) -> Finding:
    if facts.runs_error:
        todo = "Choose a folder that you may write to, by --runs or LAB_RUNS."
        return Finding("runs folder", "problem", f"{facts.runs}: {facts.runs_error}", todo)
    return Finding("runs folder", "ok", f"{facts.runs} can be written")


def _ports(facts: Facts) -> Iterator[Finding]:
    for port, command in PORTS.items():
        if port in facts.busy_ports:
            yield Finding(f"port {port}", "warning", "taken", f"Start {command} with --port {port + 10}.")
        else:
            yield Finding(f"port {port}", "ok", f"free for {command}")


def _browser(facts: Facts) -> Finding:
    if not facts.browser:
        todo = "Install one, or open the printed address in a browser elsewhere."
        return Finding("browser", "warning", "none found", todo)
    return Finding("browser", "ok", "found")


def gather_facts(runs: str | Path | None = None) -> Facts:
    """Look at this machine. PyTorch is imported, which takes most of the time; nothing is downloaded.

    Args:
        runs: The runs folder, by the rule of `lab.paths.runs_dir`.
    """
    import psutil

    folder, memory = runs_dir(runs), psutil.virtual_memory()
    version, error, device, threads = _look_at_torch()
    return Facts(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        torch=version,
        torch_error=error,
        device=device,
        threads=threads,
        cores=psutil.cpu_count() or 1,
        lacking=lacking_requirements(),
        disk_free=shutil.disk_usage(nearest_folder(folder)).free / 1e9,
        memory_free=memory.available / 1e9,
        memory=memory.total / 1e9,
        assets={name: _asset_state(name) for name in ASSETS},
        offline=is_offline(),
        cache=str(cache_dir()),
        runs=str(folder),
        runs_error=_write_error(folder),
        busy_ports=tuple(port for port in PORTS if _is_busy(port)),
        browser=_has_browser(),
    )


def lacking_requirements() -> dict[str, tuple[str, ...]]:
    """By extra, "" for the core: the requirements of the installed lab that are not fulfilled here."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        asked = [Requirement(text) for text in requires("lora-backdoor-lab") or []]
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for requirement in asked:
        for extra in ("", *WORKSHOP_EXTRAS):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            if extra and not (requirement.marker and "extra" in str(requirement.marker)):
                continue
            try:
                fits = requirement.specifier.contains(version(requirement.name), prereleases=True)
            except PackageNotFoundError:
                fits = False
            if not fits:
                found.setdefault(extra, []).append(f"{requirement.name}{requirement.specifier}")
    return {extra: tuple(names) for extra, names in found.items()}


def _look_at_torch() -> tuple[str, str, str, int]:
    """Version, why it cannot be imported, device, threads."""
    try:
        import torch

        from lab.train.devices import resolve_device

        return str(torch.__version__), "", resolve_device().type, torch.get_num_threads()
    except (ImportError, OSError, RuntimeError) as error:  # a library that is missing, or for another machine
        return "", " ".join(str(error).split())[:160], "cpu", 0


def _asset_state(name: str) -> AssetState:
    """Whether an asset lies whole in the cache: its marker, sizes of files, and their pinned hashes."""
    from lab.assets.cache import is_cached
    from lab.assets.download import check_files

    asset = ASSETS[name]
    if not asset.cached_folder.is_dir():
        return "missing"
    if not is_cached(name):
        return "damaged"
    with contextlib.suppress(LabError):
        if not asset.convert:  # a converted asset holds other files than were pinned
            check_files(asset, asset.cached_folder)
        return "whole"
    return "damaged"


def _write_error(folder: Path) -> str:
    """Why nothing can be written there; "" where something can. A missing folder is not made."""
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)):
            return ""
    except OSError as error:
        return error.strerror or "cannot be written"


def _is_busy(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _has_browser() -> bool:
    import webbrowser

    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


__all__ = ["Facts", "Finding", "examine", "gather_facts"]
