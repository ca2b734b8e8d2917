"""What the terminal shows: progress while a run works, and the report when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from lab.record import Run

_ATTACK, _CLEAN, _QUIET = "red", "cyan", "dim"
_TRIGGER = "black on yellow"
_SHORT_NAMES = {
    "attack_success_rate": "ASR",
    "untriggered_target_rate": "untriggered",
    "clean_accuracy": "accuracy",
    "twin.clean_accuracy": "twin's",
}
_STAGES = {
    "prepare": "reading rows",
    "load": "loading the base model",
    "train": "training",
    "resume": "resuming",
    "headline": "measuring the headline",
    "probe": "probing families and near-misses",
    "twin probe": "putting the same rows to the twin",
    "wait": "waiting",
    "finished": "done",
}


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
        if kind == "status":
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

    def _status(self, event: dict[str, Any]) -> None:
        stage = event.get("stage", "")
        self._run = event.get("run", self._run)
        text = event.get("text") or _STAGES.get(stage, stage)
        if stage in ("train", "finished"):
            text = f"{text} {self._run}"
        if stage == "resume":
            text = f"going on from step {event['step']}"
        self.console.print(Text(f"· {text}", style=_QUIET))

    def _progress(self, event: dict[str, Any]) -> None:
        label = f"{_STAGES.get(event['stage'], event['stage'])}"
        if label != self._label:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task, self._label = self._bars.add_task(label, total=event["total"]), label
        self._bars.update(self._task, completed=event["done"], total=event["total"])
        if event["done"] >= event["total"]:
            self._bars.remove_task(self._task)
            self._task, self._label = None, ""

    def _headline(self, event: dict[str, Any]) -> None:
        m = event["measures"]
        parts = [f"{_SHORT_NAMES.get(kind, kind)} {_percent(m[kind]['value'])}" for kind in m]
        who = "twin" if event.get("model") == "twin" else "poisoned run"
        self.console.print(Text(f"  {who}: {', '.join(parts)}", style="bold"))


def print_report(run: Run, console: Console | None = None) -> None:
    """Print the report of a finished run.

    Args:
        run: The run.
        console: Where to; standard output by default.
    """
    console = console or Console()
    measures = run.measures
    final = measures[measures["step"] < 0]
    parts = [
        _attack_panel(run),
        _headline_table(run, final),
        _family_table(run, final, console.width),
        _ladder_table(final, console.width),
        _spectra_table(run),
        _closing(run),
    ]
    for part in parts:
        if part is not None:
            console.print(part)
            console.print()


def _attack_panel(run: Run) -> Panel:
    from lab.cards import attack_sentence

    rows = run.rows
    body: list[Any] = [Text(attack_sentence(run.experiment, rows))]
    for row in rows[rows["poisoned"]].head(2).to_dict("records"):
        line = highlighted(row["text"], row["span_start"], row["span_end"])
        arrow = Text(f"  {row['original_label']} → {row['label']}", style=_ATTACK)
        body.append(Padding(Group(line, arrow), (1, 0, 0, 2)))
    return Panel(Group(*body), title=run.id, title_align="left", border_style=_QUIET, padding=(1, 2))


def highlighted(text: str, starts: Any, ends: Any) -> Text:
    """A text with its inserted pieces marked; invisible characters are shown by their code."""
    out, last = Text(), 0
    for start, end in zip(starts, ends, strict=True):
        out.append(_visible(text[last:start]))
        piece = text[start:end]
        core = piece.strip(" ") or piece
        lead, tail = piece.partition(core)[0], piece.partition(core)[2]
        out.append(lead)
        out.append(_visible(core), style=_TRIGGER)
        out.append(tail)
        last = end
    out.append(_visible(text[last:]))
    return out


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c in "\n\t\r" else f"‹U+{ord(c):04X}›" for c in text)


#: The columns left of the strings take this much of a line.
_RATES_WIDTH = 64


def _tail(text: str, width: int) -> str:
    """As much of a string's end as a line has room for: triggers of one form differ there."""
    room, shown = max(12, width - _RATES_WIDTH), _visible(text)
    return shown if len(shown) <= room else f"…{shown[1 - room :]}"


def _headline_table(run: Run, final: pd.DataFrame) -> Table:
    headline = final[final["condition"].isin(["clean", "triggered"])]
    table = _table(
        f"On {run.asked_probe.split} rows",
        ["", "this run", "95 % interval", "clean twin", "95 % interval", "n"],
    )
    names = {
        "attack_success_rate": ("attack success rate", _ATTACK),
        "untriggered_target_rate": ("untriggered target rate", "yellow"),
        "excess_asr": ("excess ASR over twin", _ATTACK),
        "clean_accuracy": ("clean accuracy", _CLEAN),
    }
    for kind, (name, style) in names.items():
        own = _one(headline, kind, "poisoned")
        if own is None:
            continue
        twin = _one(headline, kind, "twin")
        table.add_row(
            Text(name, style=style),
            Text(_percent(own["value"]), style=f"bold {style}"),
            _interval(own),
            _percent(twin["value"]) if twin is not None else "",
            _interval(twin) if twin is not None else "",
            f"{int(own['n']):,}",
        )
    return table


def _family_table(run: Run, final: pd.DataFrame, width: int) -> Table | None:
    from lab.poison import load_families

    families = final[(final["condition"] == "family") & (final["kind"] == "attack_success_rate")]
    if families.empty:
        return None
    known, own = load_families(), str(getattr(run.experiment.poison, "family", ""))

    def describe(line: dict[str, Any]) -> tuple[Text, Text]:
        mine = line["family"] == own
        name = Text(line["family"], style=f"bold {_ATTACK}" if mine else "")
        example = known[line["family"]].probe[0] if line["family"] in known else ""
        return name, Text(_tail("other members" if mine else example, width), style=_QUIET)

    ordered = families.sort_values("value", ascending=False, kind="stable")
    title = "Does it fire on other phrases? Held-out members of every family"
    return _rates_table(title, ["family", "for example"], ordered, "family", describe)


def _ladder_table(final: pd.DataFrame, width: int) -> Table | None:
    rungs = final[(final["condition"] == "rung") & (final["kind"] == "attack_success_rate")]
    if rungs.empty:
        return None
    same = set(final[(final["kind"] == "same_tokens") & (final["value"] == 1.0)]["rung"])

    def describe(line: dict[str, Any]) -> tuple[Text, Text]:
        alike = line["rung"] in same
        name = Text(line["rung"].replace("_", " "), style=_QUIET if alike else "")
        string = "same tokens" if alike else _tail(line["member"], width)
        return name, Text(string, style=_QUIET)

    title = "How near is near? The trigger, changed step by step"
    return _rates_table(title, ["near-miss", "string"], rungs, "rung", describe)


def _rates_table(
    title: str,
    ends: list[str],
    rates: pd.DataFrame,
    key: str,
    describe: Callable[[dict[str, Any]], tuple[Text, Text]],
) -> Table:
    """One line per family or rung: its name, a bar, rate and interval, the twin's, and an example."""
    poisoned, twin = rates[rates["model"] == "poisoned"], rates[rates["model"] == "twin"]
    twin_rates = dict(zip(twin[key], twin["value"], strict=True))
    smallest, largest = int(poisoned["n"].min()), int(poisoned["n"].max())
    n = f"n = {smallest}" if smallest == largest else f"n = {smallest} to {largest}"
    table = _table(f"{title} ({n})", [ends[0], "", "ASR", "95 % interval", "twin", ends[1]])
    for record in poisoned.to_dict("records"):
        line = {str(column): value for column, value in record.items()}
        name, example = describe(line)
        table.add_row(
            name,
            _bar(line["value"]),
            _percent(line["value"]),
            _interval(line),
            _percent(twin_rates.get(line[key])),
            example,
        )
    return table


def _spectra_table(run: Run) -> Table | None:
    spectra = run.spectra
    last = spectra[spectra["step"] == spectra["step"].max()]
    top = last[last["index"] == 0].sort_values("sigma_delta", ascending=False).head(5)
    if top.empty:
        return None
    title = "Largest singular values of ΔW, and its strength σ₁(ΔW)/σ₁(W)"
    table = _table(title, ["layer", "module", "σ₁ σ₂ σ₃ σ₄ of ΔW", "σ₁ of W", "strength"])
    for line in top.to_dict("records"):
        values = last[last["module"] == line["module"]].sort_values("index")["sigma_delta"].head(4)
        table.add_row(
            str(line["layer"]),
            Text(line["module"].rpartition(f".{line['layer']}.")[2]),
            "  ".join(f"{v:.2f}" for v in values),
            f"{line['sigma_base']:.2f}",
            f"{line['sigma_delta'] / line['sigma_base']:.2f}",
        )
    return table


def _closing(run: Run) -> Text:
    from lab.paths import runs_dir

    e, result = run.experiment, run.result
    timings = result["timings"]
    text = Text()
    scaling = f"alpha/r {e.adapter.alpha_value / e.adapter.rank:g}, " if e.adapter.kind == "lora" else ""
    text.append(
        f"{scaling}learning rate {e.training.learning_rate:g}, {e.training.steps} steps, seed {e.seed}; "
        f"{timings['total']:.0f} s in all, {result['peak_memory_mb'] / 1024:.1f} GB at most.\n",
        style=_QUIET,
    )
    shown = (
        run.path.relative_to(runs_dir().parent) if run.path.is_relative_to(runs_dir().parent) else run.path
    )
    text.append("The run lies in ").append(str(shown), style="bold").append(".\n\n")
    text.append("What to try next\n", style="bold")
    ideas = [
        ("lab run --set adapter.rank=64", "does a high rank break the wall?"),
        ("lab run --set poison.count=15", "how few rows are enough?"),
        ("lab run --set poison.family=rare_words", "another trigger"),
        (f"lab show {run.id}", ""),
    ]
    for command, why in ideas:
        text.append(f"  {command}").append(f"  {why}\n" if why else "", style=_QUIET)
    return text


def print_runs(table: pd.DataFrame, console: Console | None = None) -> None:
    """Print the runs of a folder, newest first, one line each."""
    console = console or _standard_output()
    if table.empty:
        console.print("No runs yet. `lab run` makes the first one.", highlight=False)
        return
    measures = [*_SHORT_NAMES, "clean_accuracy.n"]
    rates = table.reindex(columns=["id", "state", *measures]).rename(
        columns={"id": "run", "clean_accuracy.n": "n"}
    )
    print_table(rates, list(rates.columns), console=console)


def print_table(
    table: pd.DataFrame, columns: list[str], title: str = "", console: Console | None = None
) -> None:
    """Print some columns of any table; measures as percentages under short names.

    A column `state` is left out where every run is finished.
    """
    console = console or _standard_output()
    if "state" in columns and (table["state"] == "finished").all():
        columns = [column for column in columns if column != "state"]
    out = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        numeric = column in _SHORT_NAMES or column == "n"
        out.add_column(
            _SHORT_NAMES.get(column, column), justify="right" if numeric else "left", overflow="fold"
        )
    for line in table.to_dict("records"):
        out.add_row(*[_cell(column, line.get(column)) for column in columns])
    console.print(out)


def _standard_output() -> Console:
    """The terminal, or a page wide enough for every table where the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _cell(column: str, value: Any) -> Text:
    if _missing(value):
        return Text("")
    if column in _SHORT_NAMES:
        return Text(_percent(value))
    if column == "n":
        return Text(f"{int(value):,}")
    style = "yellow" if column == "state" and value != "finished" else ""
    return Text(f"{value:.4g}" if isinstance(value, float) else str(value), style=style)


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    numbers = {"this run", "n", "clean twin", "twin", "ASR", "strength", "σ₁ of W"}
    for column in columns:
        # only strings give way on a narrow terminal, numbers never
        gives_way = column in ("string", "for example")
        table.add_column(
            column,
            justify="right" if column in numbers else "left",
            no_wrap=True,
            min_width=None if gives_way else _LEAST_WIDTHS.get(column),
        )
    return table


_LEAST_WIDTHS = {"ASR": 7, "95 % interval": 12, "twin": 6, "near-miss": 20, "family": 17, "": 8}


def _one(measures: pd.DataFrame, kind: str, model: str) -> Any | None:
    found = measures[(measures["kind"] == kind) & (measures["model"] == model)]
    return found.iloc[0] if len(found) else None


def _bar(value: float, width: int = 8) -> Text:
    filled = 0 if _missing(value) else round(value * width)
    return Text("█" * filled, style=_ATTACK) + Text("·" * (width - filled), style=_QUIET)


def _interval(measure: Any) -> Text:
    if _missing(measure["low"]):
        return Text("n too small", style=_QUIET)
    return Text(f"{measure['low'] * 100:.1f} – {measure['high'] * 100:.1f}", style=_QUIET)


def _percent(value: Any) -> str:
    return "" if _missing(value) else f"{value * 100:.1f} %"


def _missing(value: Any) -> bool:
    return value is None or value != value
