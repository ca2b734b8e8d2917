"""What the terminal shows while a run works: on standard error, so that results stand alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lab.console.sweeps import sweep_line, sweep_pace, tuning_line
from lab.console.words import QUIET, SHORT_NAMES, missing, percent
from lab.summaries import RELIANCE

_STAGES = {
    "prepare": "reading rows",
    "rows": "reading rows",
    "lint": "counting what texts have in common",
    "load": "loading the base model",
    "train": "training",
    "edit": "editing the weights of",
    "guard": "letting guards learn from clean rows",
    "rejections": "counting what is rejected",
    "resume": "resuming",
    "headline": "measuring the headline",
    "probe": "probing families and near-misses",
    "twin probe": "putting the same rows to the twin",
    "patch": "exchanging parts with the clean twin",
    "wait": "waiting",
    "finished": "done",
}
#: Stages that tell programs which run is meant; people read of it in the next line.
_SILENT = ("prepared", "begin")


class ProgressView:
    """Shows the events of runs as progress bars on standard error.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._task: Any = None
        self._jobs: Any = None
        self._label = ""
        self._run = ""

    def __enter__(self) -> ProgressView:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event, as `lab.run` hands them out."""
        kind = event["kind"]
        if "worker" in event:
            self._of_worker(event)
        elif kind == "sweep":
            self._sweep(event)
        elif kind == "status":
            self._status(event)
        elif kind == "progress":
            self._progress(event)
        elif kind == "headline":
            self._headline(event)
        elif kind == "cell" and event["done"] < event["total"]:
            point = ", ".join(f"{k} = {v}" for k, v in event["point"].items())
            self.console.print(
                f"cell {event['done'] + 1} of {event['total']}: {point} seed = {event['seed']}",
                highlight=False,
            )
        elif kind == "tuning":
            self.console.print(Text(tuning_line(event)))
        elif kind == "source":
            self.console.print(
                f"{event['name']}, {event['done'] + 1} of {event['total']}", style="bold", highlight=False
            )
        elif kind == "member":
            self.console.print(
                f"member {event['done'] + 1} of {event['total']}{time_left(event['left'])}", highlight=False
            )

    def _of_worker(self, event: dict[str, Any]) -> None:
        """One of several workers at once: their stages would be a jumble, only trouble is worth a line."""
        if event.get("stage") == "wait":
            self.console.print(Text(f"· worker {event['worker']}: {event.get('text', '')}", style=QUIET))

    def _sweep(self, event: dict[str, Any]) -> None:
        """A job of a sweep has ended."""
        self.console.print(Text(sweep_line(event), style="bold" if event["job"] == "cell" else QUIET))
        if pace := sweep_pace(event):
            self.console.print(Text(f"  {pace}", style=QUIET))
        total = event["jobs"][1]
        if self._jobs is None or self._bars.tasks == []:
            self._jobs = self._bars.add_task("runs of the sweep, twins too", total=total)
        self._bars.update(self._jobs, completed=event["jobs"][0], total=total)

    def counting(self, stage: str) -> Callable[[int, int], None]:
        """What tells this view of (done, total) in a stage, for work that knows no events."""
        return lambda done, total: self({"kind": "progress", "stage": stage, "done": done, "total": total})

    def _status(self, event: dict[str, Any]) -> None:
        if event.get("stage", "") not in _SILENT:
            self._run = event.get("run", self._run)
        if told := status_told(event, self._run):
            self.console.print(Text(f"· {told}", style=QUIET))

    def _progress(self, event: dict[str, Any]) -> None:
        label = stage_told(event["stage"])
        if label != self._label:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task, self._label = self._bars.add_task(label, total=event["total"]), label
        self._bars.update(self._task, completed=event["done"], total=event["total"])
        if event["done"] >= event["total"]:
            self._bars.remove_task(self._task)
            self._task, self._label = None, ""

    def _headline(self, event: dict[str, Any]) -> None:
        self.console.print(Text(f"  {headline_told(event)}", style="bold"))


def stage_told(stage: str) -> str:
    """What people call a stage."""
    return _STAGES.get(stage, stage)


def status_told(event: Mapping[str, Any], run: str) -> str:
    """A status as a line; "" for one that is only for programs.

    Args:
        event: The event, as `lab.run` hands it out.
        run: The run that it is about.
    """
    stage = event.get("stage", "")
    if stage in _SILENT:
        return ""
    text = str(event.get("text") or stage_told(stage))
    if stage in ("train", "finished"):
        text = f"{text} {run}"
    if stage == "edit":
        text = f"{text} {event['parent']} into {run}"
    if stage == "resume":
        text = f"going on from step {event['step']}"
    return text


def headline_told(event: Mapping[str, Any]) -> str:
    """The first measures of a run as a line."""
    m = event["measures"]
    parts = [
        f"{SHORT_NAMES.get(kind, kind)} {percent(m[kind]['value'])}" for kind in m if kind not in RELIANCE
    ]
    who = "twin" if event.get("model") == "twin" else "poisoned run"
    return f"{who}: {', '.join(parts)}"


def time_left(seconds: float) -> str:
    """How long work will go on, as the end of a line, such as ", about 3 min left"; "" where it is unknown.

    Args:
        seconds: How long; NaN for unknown.
    """
    if missing(seconds):
        return ""
    minutes = round(seconds / 60)
    if minutes >= 90:
        return f", about {seconds / 3600:.1f} hours left"
    return f", about {minutes} min left" if minutes else ", less than a minute left"
