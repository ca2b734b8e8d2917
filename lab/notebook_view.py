"""What a notebook shows while a run works, and instead of a run's or an experiment's plain name.

The bar is an ordinary output that is updated, not a widget: it is there without any extension, it is kept in
the saved notebook as the last line that it showed, and a finished run that is only read draws none.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lab import page
from lab.console.progress import headline_told, stage_told, status_told, time_left
from lab.markup import escaped
from lab.page import Html

if TYPE_CHECKING:
    from lab.experiment import Experiment
    from lab.record import Run

#: Seconds between two drawings; the eye sees no more, and a notebook keeps up with it.
_PACE = 0.2
#: Lines of what happened that stay.
_KEPT = 6


class NotebookView:
    """Shows the events of runs as a bar in the cell's output; a context manager."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._lines: list[str] = []
        self._bar: tuple[str, int, int] | None = None
        self._began = self._drawn = 0.0
        self._run = ""

    def __enter__(self) -> NotebookView:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar = None
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._lines.append("stopped; run the cell again and it goes on from its last checkpoint")
        if self._handle is not None or self._lines:
            self._draw(now=True)

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event, as `lab.run` hands them out."""
        kind = event["kind"]
        if kind == "progress":
            self._progress(event)
        elif kind == "status":
            if event.get("stage") == "prepare":  # soon over, and all there is of a run that is only read
                return
            self._run = event.get("run", self._run)
            self._say(status_told(event, self._run))
        elif kind == "headline":
            self._say(headline_told(event))
        elif kind == "cell" and event["done"] < event["total"]:
            point = ", ".join(f"{k} = {v}" for k, v in event["point"].items())
            self._say(f"cell {event['done'] + 1} of {event['total']}: {point} seed = {event['seed']}")

    def __repr__(self) -> str:
        return "\n".join(self._lines[-_KEPT:])

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{escaped(line)}</div>" for line in self._lines[-_KEPT:])
        return f'<div role="status">{lines}{self._bar_html()}</div>'

    def _bar_html(self) -> str:
        if self._bar is None:
            return ""
        stage, done, total = self._bar
        spent = time.monotonic() - self._began
        left = time_left(spent / done * (total - done)) if done and spent > 2 else ""
        bar = f'<progress value="{done}" max="{total}" aria-label="{escaped(stage)}"></progress>'
        return f"<div>{bar} {escaped(stage)} {done:,} of {total:,}{escaped(left)}</div>"

    def _say(self, line: str) -> None:
        if line:
            self._lines.append(line)
            self._bar = None
            self._draw(now=True)

    def _progress(self, event: dict[str, Any]) -> None:
        stage = stage_told(event["stage"])
        if self._bar is None or self._bar[0] != stage:
            self._began = time.monotonic()
        done, total = int(event["done"]), int(event["total"])
        self._bar = None if done >= total else (stage, done, total)
        self._draw(now=self._bar is None)

    def _draw(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._drawn < _PACE:
            return
        from IPython.display import display

        self._drawn = time.monotonic()
        if self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)


def run_html(run: Run) -> str:
    """A run in a notebook: what was planted, and the headline beside the clean twin's."""
    from lab.cards import attack_sentence
    from lab.errors import LabError

    head = page.paragraph(Html(f"<strong>{escaped(run.id)}</strong> ({escaped(run.state)})"))
    try:
        parts = [page.paragraph(attack_sentence(run.experiment, run.rows)), _headline_table(run)]
    except (LabError, OSError, ValueError, KeyError) as error:  # a run that trains has no numbers yet
        parts = [page.paragraph(str(error))]
    return "\n".join([head, *parts])


def _headline_table(run: Run) -> Html:
    from lab.report_cells import rate_and_evidence
    from lab.summaries import HEADLINE
    from lab.tables import DIFFERENCES

    by_model = run.headline["measures"]
    own, twin = by_model.get("poisoned", {}), by_model.get("twin", {})
    lines = []
    for kind, name in HEADLINE.items():
        if kind in own:
            line = [name, rate_and_evidence(own[kind], kind in DIFFERENCES)]
            lines.append([*line, rate_and_evidence(twin.get(kind))] if twin else line)
    head = ["measure", "this run", "clean twin"] if twin else ["measure", "this run"]
    return page.table("Rates with their 95 % interval", head, lines, numbers=range(1, len(head)))


def experiment_html(experiment: Experiment) -> str:
    """An experiment in a notebook: what is not as by default, and everything folded away."""
    from lab.experiment import Experiment

    plain = Experiment().dotted()
    changed = {key: value for key, value in experiment.dotted().items() if plain.get(key) != value}
    lines = [[key, str(value), experiment.help_on(key)] for key, value in changed.items()]
    table = page.table("What is not as by default", ["key", "value", "what it is"], lines, numbers=())
    whole = page.folded("Everything, as TOML", page.preformatted(experiment.to_toml(), "the experiment"))
    return f"{table}\n{whole}"
