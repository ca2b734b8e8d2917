"""Audits that run by themselves: `lab audit` in a process of its own, seen through files.

An audit is a folder, `runs/.audits/<id>/`; its id sorts by time. `request.json` says what was asked,
`events.jsonl` how far it is, and in the end there is a `card.json` or a `failure.json` with one sentence.
Whoever works on it holds its lock, and whoever wants it stopped leaves a file `stop`. What people brought
lies in `upload/` and is deleted when the audit ends.

The dashboard imports this; it needs no torch.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from lab.audit.uploaded import Upload, keep_adapter, keep_texts
from lab.detached import start_detached
from lab.errors import LabError
from lab.files import read_json, write_json, writing_to
from lab.paths import expanded, runs_dir
from lab.store import RunFolder

if TYPE_CHECKING:
    from lab.audit.card import AuditCard

STATES = ("running", "finished", "failed", "stopped", "killed")
#: Ended audits that are kept: cards are small, and a list of more is not read.
KEPT = 20
#: Seconds that a process has to begin, where another dashboard started it and nothing else tells of it.
_STARTING = 90.0
_ID = re.compile(r"[0-9a-f]{16}-[0-9a-f]{6}")
_KILLED = "Its process ended in the middle; perhaps there is too little memory. Ask again."

#: The audits that this process started; what lives is said by the locks.
_started: dict[Path, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class AuditRequest:
    """What is asked.

    Attributes:
        adapter: Its path; "" where its files are brought.
        base: What `lab audit --base` takes; "" for what the adapter names.
        battery: The battery of prefixes.
        references: Paths of clean adapters; or "auto:3" alone, to train three.
        labels: Label names in the order of its outputs; of a language model, the words that it answers.
        system: What `lab audit --system` takes; None for the adapter's run's, or the lab's usual one.
        seed: Of the drawn rows.
    """

    adapter: str = ""
    base: str = ""
    battery: str = "broad"
    references: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    system: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class AuditJob:
    """One audit, as it stands.

    Attributes:
        id: Sorts by the time of asking.
        path: Its folder.
        name: What the adapter is called.
        created: When it was asked, in seconds since 1970.
        state: One of `STATES`.
        stages: Stages that were begun, in order, each with what is done in it.
        done: How far the last stage is, of `total`.
        total: How much the last stage has to do; 0 where it does not say.
        left: Seconds that it will take by what it took so far; NaN where nothing says.
        reason: Why there is no card, in one sentence.
        exit_code: What `lab audit` ended with, where it failed.
    """

    id: str
    path: Path
    name: str = ""
    created: float = 0.0
    state: str = "running"
    stages: tuple[tuple[str, str], ...] = ()
    done: int = 0
    total: int = 0
    left: float = math.nan
    reason: str = ""
    exit_code: int = 0


def audits_dir(runs: str | Path | None = None) -> Path:
    """The folder of the audits; it need not exist."""
    return runs_dir(runs) / ".audits"


def start_audit(
    request: AuditRequest,
    *,
    runs: str | Path | None = None,
    upload: Upload | None = None,
    texts: tuple[str, bytes] | None = None,
) -> AuditJob:
    """Start an audit in a process that outlives this one; one runs at a time.

    Args:
        request: What is asked.
        runs: The runs folder, by the rule of `lab.paths.runs_dir`.
        upload: The adapter's files by name, where it was brought.
        texts: Name and content of a file of texts of its task; None for the task's own.

    Raises:
        LabError: Another audit runs, or what was brought is refused; nothing of it is kept then.
    """
    folder = audits_dir(runs)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder):
        _tidy(folder)
        path = folder / _new_id()
        try:
            _begin(path, request, upload, texts)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
    return read_audit(path.name, runs)


def list_audits(runs: str | Path | None = None) -> list[AuditJob]:
    """Every audit, newest first."""
    return [_read(path) for path in _folders(audits_dir(runs))]


def read_audit(id: str, runs: str | Path | None = None) -> AuditJob:
    """One audit.

    Raises:
        LabError: There is none of this id.
    """
    path = audits_dir(runs) / id
    if not _ID.fullmatch(id) or not (path / "request.json").is_file():
        raise LabError(f"No audit {id[:60]!r} in this runs folder; the {KEPT} newest are kept.")
    return _read(path)


def read_card(job: AuditJob) -> AuditCard:
    """The card of a finished audit.

    Raises:
        LabError: There is none, or its file is not whole.
    """
    from lab.audit.card import AuditCard

    try:
        return AuditCard.model_validate_json((job.path / "card.json").read_bytes())
    except (OSError, ValueError):
        raise LabError(f"The card of the audit {job.id} is missing or cannot be read.") from None


def stop_audit(id: str, runs: str | Path | None = None) -> None:
    """Ask an audit to end; it does within seconds, and leaves no card.

    Raises:
        LabError: There is no such audit.
    """
    job = read_audit(id, runs)
    if job.state == "running":
        with writing_to(job.path):
            (job.path / "stop").touch()


def remove_audit(id: str, runs: str | Path | None = None) -> None:
    """Delete an audit that has ended, with its card.

    Raises:
        LabError: There is no such audit, or it still runs.
    """
    job = read_audit(id, runs)
    if job.state == "running":
        raise LabError(f"The audit {id} still runs; stop it first.")
    shutil.rmtree(job.path, ignore_errors=True)
    _started.pop(job.path, None)


def _tidy(folder: Path) -> None:
    """Delete the oldest ended audits, and what a process that died has left; only behind the door."""
    ended = [path for path in _folders(folder) if not _is_alive(path)]
    for path in ended:
        shutil.rmtree(path / "upload", ignore_errors=True)
    unbegun = [p for p in folder.glob("*-*") if _ID.fullmatch(p.name) and not (p / "request.json").exists()]
    for path in [*ended[KEPT - 1 :], *unbegun]:
        shutil.rmtree(path, ignore_errors=True)


def _begin(path: Path, request: AuditRequest, upload: Upload | None, texts: tuple[str, bytes] | None) -> None:
    held = path / "upload"
    with writing_to(path):
        held.mkdir(parents=True)
    name, rows = Path(request.adapter).name, ""
    if upload is not None:
        kept = keep_adapter(upload, held)
        request, name = replace(request, adapter=str(kept)), kept.relative_to(held).parts[0]
    if not request.adapter:
        raise LabError("No adapter was given: a folder, a zip, its two files, or a run.")
    if texts is not None:
        rows = str(keep_texts(*texts, held))
    asked = {"rows": rows, "name": name.removesuffix(".zip"), "created": round(time.time(), 3)}
    write_json(path / "request.json", asdict(request) | asked)
    # what it unpacks lies with what was brought, and goes with it whatever happens
    scratch = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(held))
    _started[path] = start_detached(
        _words(request, rows, path), folder=path, log=path / "log.txt", environment=_thread_share() | scratch
    )


def _words(request: AuditRequest, rows: str, path: Path) -> list[str]:
    """The command; with `=`, so that no value is read as an option."""
    words = [f"--base={request.base}", f"--rows={rows}", f"--battery={request.battery}"]
    words += [f"--seed={request.seed}", f"--runs={path.parents[1]}", f"--job={path}", "--json"]
    words += [f"--labels={','.join(request.labels)}"]
    words += [] if request.system is None else [f"--system={request.system}"]
    words += [f"--reference={reference}" for reference in request.references]
    return ["audit", *words, "--", str(expanded(request.adapter).absolute())]


def _thread_share() -> dict[str, str]:
    """One share of the cores is left to whatever trains; what the user says of threads holds."""
    from lab.work_queue import slot_count, thread_share

    return {k: os.environ.get(k, v) for k, v in thread_share(slot_count() + 1).items()}


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the door while one begins: two browsers may press at once.

    Raises:
        LabError: Another audit runs.
    """
    door = filelock.FileLock(folder / ".door")
    try:
        door.acquire(timeout=5)
    except (filelock.Timeout, OSError):
        raise LabError("Another audit is being started; ask again in a moment.") from None
    try:
        if any(_is_alive(path) for path in _folders(folder)):
            raise LabError("Another audit runs; one runs at a time. Wait for it, or stop it.")
        yield
    finally:
        door.release()


def _folders(folder: Path) -> list[Path]:
    return sorted(
        (p for p in folder.glob("*-*") if _ID.fullmatch(p.name) and (p / "request.json").is_file()),
        reverse=True,
    )


def _is_alive(path: Path) -> bool:
    """Whether a process works on an audit, or is on its way to it."""
    if RunFolder(path).is_locked():
        return True
    child = _started.get(path)
    if child is not None:
        return child.poll() is None
    begun = any((path / name).exists() for name in ("events.jsonl", "failure.json", "card.json", "stop"))
    with contextlib.suppress(OSError):
        return not begun and time.time() - (path / "request.json").stat().st_mtime < _STARTING
    return False


def _read(path: Path) -> AuditJob:
    is_alive = _is_alive(path)  # before the files: what ends meanwhile has written them
    asked = read_json(path / "request.json")
    asked = asked if isinstance(asked, dict) else {}
    created = asked.get("created")
    job = AuditJob(
        path.name,
        path,
        name=str(asked.get("name", "")),
        created=float(created) if isinstance(created, int | float) else 0.0,
    )
    if (path / "card.json").is_file():
        return replace(job, state="finished")
    failure = read_json(path / "failure.json")
    if isinstance(failure, dict):
        code = failure.get("exit_code")
        reason, code = str(failure.get("reason", "")), code if isinstance(code, int) else 1
        return replace(job, state="failed", reason=reason, exit_code=code)
    if is_alive:
        return _with_progress(job)
    if (path / "stop").exists():
        return replace(job, state="stopped", reason="It was stopped.")
    return replace(job, state="killed", reason=_KILLED)


def _with_progress(job: AuditJob) -> AuditJob:
    stages: list[tuple[str, str]] = []
    done, total, left = 0, 0, math.nan
    for event in RunFolder(job.path).read_events():
        if event.get("kind") == "status":
            stages.append((str(event.get("stage")), str(event.get("text"))))
            done, total, left = 0, 0, math.nan
        elif event.get("kind") == "progress":
            with contextlib.suppress(TypeError, ValueError):
                done, total = int(event.get("done", 0)), int(event.get("total", 0))
                left = math.nan  # where the event does not say
                left = float(event.get("left", math.nan))
    return replace(job, stages=tuple(stages), done=done, total=total, left=left)


def _new_id() -> str:
    return f"{time.time_ns():016x}-{secrets.token_hex(3)}"


def reference_paths(names: Sequence[str], runs: str | Path | None = None) -> tuple[str, ...]:
    """What a request has as references: the folders of finished runs, and "auto:3" as it is.

    Raises:
        LabError: A name is no run of this folder, or asks for too many to be trained.
    """
    from lab.audit.reference_plans import reference_plan
    from lab.record import load_run

    return tuple(name if reference_plan(name) else str(load_run(name, runs).path) for name in names)
