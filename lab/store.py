"""The runs folder: the only place where state lives. Atomic writes, locks, events, listing.

A run is a folder. `result.json` is written last and atomically: where it exists, the run is finished.
`events.jsonl` is append-only; readers skip a torn last line. A lock that its process no longer holds means
the run was killed, whatever files say, and asking for it again continues or restarts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from lab.errors import LabError
from lab.experiment import LATER_KNOBS, SCHEMA_VERSION
from lab.files import acquire_or_wait, is_held, read_json, write_json, write_text, writing_to
from lab.paths import expanded, runs_dir
from lab.poison import ATTACKS, NoPoison

if TYPE_CHECKING:
    import pandas as pd

STATES = ("queued", "running", "stopped", "failed", "killed", "finished", "corrupt")


class RunFolder:
    """One run on disk.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = path / "events.jsonl"

    @property
    def id(self) -> str:
        """The folder's name: slug and the first ten hex digits of the content hash."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").is_file()

    def create(self, record: dict[str, Any]) -> None:
        """Make the folder and write `experiment.json`, unless it is there already.

        Raises:
            LabError: Where the runs folder cannot be written, or holds this run in another schema.
        """
        if (self.path / "experiment.json").is_file():
            self._check_schema()
            return
        with writing_to(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / "experiment.json", record)

    def _check_schema(self) -> None:
        record = read_json(self.path / "experiment.json") or {}
        if record.get("schema") != SCHEMA_VERSION:
            raise LabError(
                f"The run {self.id} has schema {record.get('schema')!r}, this version writes "
                f"{SCHEMA_VERSION}: it can be read, not continued; choose another folder with --runs."
            )

    @contextlib.contextmanager
    def lock(self, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the run for this process; wait for another one that holds it.

        Args:
            on_wait: Called once with a sentence when there is someone to wait for.
        """

        def told() -> None:
            if on_wait:
                on_wait(f"{self.id} is being worked on by {self._owner()}; waiting for it.")

        guard = filelock.FileLock(self.path / ".lock")
        with writing_to(self.path):
            acquire_or_wait(guard, told)
        try:
            write_json(
                self.path / ".owner.json",
                {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()},
            )
            yield
        finally:
            (self.path / ".owner.json").unlink(missing_ok=True)
            guard.release()

    def _owner(self) -> str:
        owner = read_json(self.path / ".owner.json") or {}
        return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"

    def is_locked(self) -> bool:
        """Whether a living process holds the run; a lock file alone means nothing."""
        return is_held(self.path / ".lock")

    def state(self) -> str:
        """One of `STATES`."""
        if self.finished:
            return "finished" if read_json(self.path / "result.json") is not None else "corrupt"
        if read_json(self.path / "experiment.json") is None:
            return "corrupt"
        if self.is_locked():
            return "running"
        if (self.path / "failure.json").is_file():
            return "failed"
        if (self.path / "stop").exists():
            return "stopped"
        return "killed" if self.events.is_file() else "queued"

    def append_event(self, kind: str, *, step: int = -1, **fields: Any) -> dict[str, Any]:
        """Append one event and flush it.

        Args:
            kind: "status", "train", "probe", "spectrum" or "headline".
            step: The optimizer step it belongs to, -1 for none.
            fields: Plain values.
        """
        event = {"time": round(time.time(), 3), "step": step, "kind": kind, **fields}
        with writing_to(self.path), self.events.open("ab") as file:
            # a process that was killed may have left half a line, which must not swallow this one
            start = b"\n" if self._ends_torn() else b""
            file.write(start + json.dumps(event, ensure_ascii=False).encode() + b"\n")
        return event

    def _ends_torn(self) -> bool:
        with self.events.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def read_events(self) -> list[dict[str, Any]]:
        """Every whole event, in order; a torn line is skipped."""
        if not self.events.is_file():
            return []
        events = []
        # not `splitlines`, which takes some characters within a text for the end of a line
        for line in self.events.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                event = json.loads(line)
                if isinstance(event, dict):
                    events.append(event)
        return events

    def rewind_events(self, step: int) -> None:
        """Cut the events back to a checkpoint's step, so that a resumed run tells each step once."""
        kept = [e for e in self.read_events() if e.get("step", -1) <= step]
        text = "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in kept)
        write_text(self.events, text)

    def remove_leftovers(self) -> None:
        """Remove what a kill left half saved; only for whoever holds the lock."""
        for part in ("adapter", "model", "merged"):
            for path in self.path.glob(f".{part}.*"):
                shutil.rmtree(path, ignore_errors=True)

    def clear(self) -> None:
        """Forget everything but what was asked; the result goes first, so no kill leaves it half true."""
        for name in ("result.json", "trained.json", "failure.json", "stop"):
            (self.path / name).unlink(missing_ok=True)
        for item in self.path.iterdir():
            # what people wrote about a run is not the run's to forget
            if item.name in ("experiment.json", "note.md", ".lock", ".owner.json"):
                continue
            shutil.rmtree(item) if item.is_dir() else item.unlink(missing_ok=True)


def find_run(name: str, runs: str | Path | None = None) -> RunFolder:
    """Find a run by its id, its hash, or any unambiguous beginning of either; or by a folder's path.

    Raises:
        LabError: Where no run or more than one fits.
    """
    direct = expanded(name)
    if os.path.isfile(direct / "experiment.json"):  # no OSError where a name is too long for a file
        return RunFolder(direct.resolve())
    folder = runs_dir(runs)
    matches = matching_runs(name, folder)
    if len(matches) == 1:
        return RunFolder(folder / matches[0])
    if matches:
        raise LabError(f"{name!r} fits {len(matches)} runs: {', '.join(matches[:5])}; give more of the id.")
    count = len(run_folders(folder))
    raise LabError(f"No run {name[:120]!r} in {folder}; `lab list` shows the {count} runs there are.")


def matching_runs(name: str, folder: Path) -> list[str]:
    """The ids in a runs folder that a name may mean: the id itself, or else the beginning of id or hash."""
    ids = [f.id for f in run_folders(folder)]
    return [i for i in ids if i == name] or [
        i for i in ids if i.startswith(name) or i.rpartition("-")[2].startswith(name)
    ]


def run_folders(runs: Path) -> list[RunFolder]:
    """Every run folder, oldest name first; hidden folders and strangers are passed over."""
    if not runs.is_dir():
        return []
    with os.scandir(runs) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    start = f"{runs}{os.sep}"
    found = [name for name in names if os.path.isfile(f"{start}{name}{os.sep}experiment.json")]
    return [RunFolder(runs / name) for name in found]


def list_runs(runs: str | Path | None = None) -> pd.DataFrame:
    """Every run as one line: id, state, what was asked (dotted keys), and the headline measures.

    Small files are read only, so that thousands of runs list in well under a second.

    Args:
        runs: The runs folder, by the rule of `lab.paths.runs_dir`.

    Returns:
        A table indexed by nothing, newest first; empty (with the leading columns) where there is no run.
    """
    lines = [(folder, listing_line(folder)) for folder in run_folders(runs_dir(runs))]
    return listing_table([line for folder, line in lines if not is_gone(folder, line)])


def is_gone(folder: RunFolder, line: Mapping[str, Any]) -> bool:
    """Whether a run was deleted while its line was read, which then would call it corrupt."""
    return line["state"] == "corrupt" and not os.path.isfile(folder.path / "experiment.json")


def listing_table(lines: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Lines of `listing_line` as the table of `list_runs`."""
    import pandas as pd

    lead = ["id", "state", "name", "created", "twin"]
    if not lines:
        return pd.DataFrame(columns=lead)
    table = pd.DataFrame(lines)
    table = table.sort_values("created", ascending=False, kind="stable", ignore_index=True)
    return table[[*lead, *[c for c in table.columns if c not in lead]]]


def _task_columns(task: dict[str, Any]) -> dict[str, Any]:
    """How a model was asked; what only conversations have is left out for a head."""
    kind = task.get("kind", "head")
    if kind == "head":
        return {"task.kind": kind}
    answers = {f"task.answers.{label}": word for label, word in task.get("answers", {}).items()}
    return {**{f"task.{key}": value for key, value in task.items() if key != "answers"}, **answers}


def listing_line(folder: RunFolder) -> dict[str, Any]:
    """One run of `list_runs`: a finished run's is a function of its two small files alone."""
    # names as text: of twenty thousand runs, joining paths takes a fifth of the time
    path = f"{folder.path}{os.sep}"
    record = read_json(f"{path}experiment.json") or {}
    result = read_json(f"{path}result.json")
    state = "finished" if result is not None else folder.state()
    asked = record.get("experiment", {})
    line: dict[str, Any] = {
        "id": folder.id,
        "state": state,
        "name": asked.get("name", ""),
        "created": record.get("created", 0.0),
        "twin": (result or {}).get("twin", ""),
    }
    for section in ("base", "data", "poison", "adapter", "training"):
        for key, value in asked.get(section, {}).items():
            line[f"{section}.{key}"] = value
    line |= _task_columns(asked.get("task", {}))
    line |= _later_knobs(line)
    line["defense"] = "+".join(d.get("name", "?") for d in asked.get("defense", []))
    # runs that differ in a knob alone must not look alike
    for defense in asked.get("defense", []):
        name = defense.get("name", "?")
        line |= {f"defense.{name}.{knob}": value for knob, value in defense.items() if knob != "name"}
    line["seed"] = asked.get("seed", 0)
    line.update(headline_columns((result or {}).get("measures", {}).get("test", {})))
    return line


def _later_knobs(line: Mapping[str, Any]) -> dict[str, Any]:
    """The poison's knobs that not all runs have: older runs differ by none. Lists become text."""
    attack = str(line.get("poison.attack"))
    knobs = ATTACKS[attack].knobs if attack in ATTACKS else NoPoison
    later = {name: value for name, value in LATER_KNOBS.items() if name in knobs.model_fields}
    asked = {name: line.get(f"poison.{name}", value) for name, value in later.items()}
    words = {name: value for name, value in line.items() if name == "poison.words"}
    told = {f"poison.{name}": value for name, value in asked.items()} | words
    return {name: _listed(value) if isinstance(value, list) else value for name, value in told.items()}


def _listed(values: list[Any]) -> str:
    return ", ".join(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values)


def headline_columns(by_model: dict[str, Any]) -> dict[str, float]:
    """Headline measures as `kind`, `kind.n`, `kind.low`, `kind.high`; the twin's with the prefix `twin.`."""
    columns: dict[str, float] = {}
    for role, kinds in by_model.items():
        prefix = "" if role == "poisoned" else f"{role}."
        for kind, m in kinds.items():
            columns[f"{prefix}{kind}"] = m.get("value", float("nan"))
            for part in ("n", "low", "high"):
                columns[f"{prefix}{kind}.{part}"] = m.get(part, float("nan"))
    return columns
