"""What the terminal shows: progress while a run works, and the report when it is done."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from lab.experiment import Experiment
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
        _ladder_table(run, final, console.width),
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


def _ladder_table(run: Run, final: pd.DataFrame, width: int) -> Table | None:
    rungs = final[(final["condition"] == "rung") & (final["kind"] == "attack_success_rate")]
    if rungs.empty:
        return None
    same = set(final[(final["kind"] == "same_tokens") & (final["value"] == 1.0)]["rung"])
    moved = _moved_rungs(run)

    def describe(line: dict[str, Any]) -> tuple[Text, Text]:
        alike = line["rung"] in same
        name = Text(line["rung"].replace("_", " "), style=_QUIET if alike else "")
        string = moved.get(line["rung"]) or _tail(line["member"], width)
        string = "same tokens" if alike else string
        return name, Text(string, style=_QUIET)

    title = "How near is near? The trigger, changed step by step"
    return _rates_table(title, ["near-miss", "string"], rungs, "rung", describe)


def _moved_rungs(run: Run) -> dict[str, str]:
    """Where the rungs went that hold the same string in another place."""
    from lab.poison import near_miss_ladder

    poison: Any = run.experiment.poison
    every = getattr(poison, "every", 2)
    ladder = near_miss_ladder(
        poison.member, poison.family, position=poison.position, every=every, seed=run.experiment.seed
    )
    return {rung.name: f"at the {rung.position}" for rung in ladder if rung.position != poison.position}


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
    for command, why in [*_ideas(run), (f"lab show {run.id}", "")]:
        text.append(f"  {command}").append(f"  {why}\n" if why else "", style=_QUIET)
    return text


def _ideas(run: Run) -> list[tuple[str, str]]:
    """Commands that change one thing about a run, and what each would show."""
    e = run.experiment
    start = _command_for(run)
    if e.attack == "none":
        return [(f"{start} {_sets(changes)}", why) for changes, why in _poisons(run)]
    ideas: list[tuple[dict[str, Any], str]] = []
    if e.adapter.kind == "full":
        ideas.append(({"adapter.kind": "lora"}, "does a LoRA adapter learn it too?"))
    elif e.adapter.rank < (high := _high_rank(e)):
        ideas.append(({"adapter.rank": high}, "does a high rank break the wall?"))
    else:
        ideas.append(({"adapter.rank": 4}, "how low a rank still learns it?"))
    if (count := int(getattr(e.poison, "count", 0))) > 1:
        ideas.append(({"poison.count": 15 if count > 15 else count // 2}, "how few rows are enough?"))
    if family := getattr(e.poison, "family", ""):
        other = "rare_words" if family != "rare_words" else "rfc"
        ideas.append(({"poison.family": other}, "another trigger"))
    return [(f"{start} {_sets(changes)}", why) for changes, why in ideas]


def _high_rank(e: Experiment) -> int:
    # the toy model is 32 wide, and a rank above a layer's width is refused
    return 32 if e.base.model == "tiny" else 64


def _poisons(run: Run) -> list[tuple[dict[str, Any], str]]:
    """What could be planted in a clean run; a tenth of its rows where 60 would be more than that."""
    count = max(1, min(60, len(run.rows) // 10))
    target = "positive" if "positive" in run.labels else run.labels[-1]
    backdoor = {"poison.attack": "backdoor", "poison.count": count, "poison.target_label": target}
    return [
        (backdoor, "plant a backdoor"),
        ({**backdoor, "poison.family": "rare_words"}, "another trigger"),
        ({"poison.attack": "label_flip", "poison.count": count}, "wrong labels without a trigger"),
    ]


def _command_for(run: Run) -> str:
    """How to ask for this run again; `lab run` alone where the default preset asks for it."""
    from lab.experiment import load_preset

    e = run.experiment
    asked, preset = e.to_dict(), load_preset("rfc-citation")[0].to_dict()
    for values in (asked, preset):
        for key in ("epochs", "steps"):  # epochs were resolved to steps
            del values["training"][key]
    if asked == preset:
        return "lab run"
    path = run.path / "experiment.json"
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"lab run {shlex.quote(str(shown))}"


def _sets(changes: dict[str, Any]) -> str:
    return " ".join(f"--set {shlex.quote(f'{key}={_assigned(value)}')}" for key, value in changes.items())


def _assigned(value: Any) -> str:
    """A value as `--set` reads it: a string in quotes where it would be read as something else."""
    from lab.experiment import parse_value

    return str(value) if parse_value(str(value)) == value else json.dumps(value, ensure_ascii=False)


def print_runs(table: pd.DataFrame, console: Console | None = None) -> None:
    """Print the runs of a folder, newest first, one line each.

    Args:
        table: As `lab.list_runs` returns it.
        console: Where to; standard output by default.
    """
    console = console or _standard_output()
    if table.empty:
        console.print("No runs yet. `lab run` makes the first one.", highlight=False)
        return
    rates = [kind for kind in _SHORT_NAMES if kind in table]
    print_table(table.rename(columns={"id": "run"}), ["run", "state", *rates], console=console)


#: What is easily confounded with what was swept: column, header, and how one says it in a sentence.
_SETTINGS = (
    ("alpha/r", "alpha/r", "alpha/r {}"),
    ("training.learning_rate", "learning\nrate", "learning rate {}"),
    ("training.steps", "steps", "{} steps"),
)


def print_sweep(table: pd.DataFrame, grid_columns: Sequence[str], console: Console | None = None) -> None:
    """Print a sweep, one line per cell.

    alpha/r, learning rate and steps always stand beside what was swept: as columns where they differ from
    cell to cell, else in a line of their own.

    Args:
        table: As `lab.sweep` returns it.
        grid_columns: The dotted keys that were swept or tuned.
        console: Where to; standard output by default.
    """
    console = console or _standard_output()
    finished = table[table["state"] == "finished"]
    settings, everywhere = [], []
    for column, _, sentence in _SETTINGS:
        if column in grid_columns or column not in table or finished[column].isna().all():
            continue
        if finished[column].nunique(dropna=False) == 1:
            everywhere.append(sentence.format(_plain(finished[column].iloc[0])))
        else:
            settings.append(column)
    rates = [kind for kind in _SHORT_NAMES if kind in table]
    columns = [*grid_columns, *settings, "seed", *rates, "state", "run"]
    # the grid's keys say what a run is: where its name has no room, its hash alone finds it again
    named = table.assign(run=table["run"].str.rpartition("-")[2])
    without = [column for column in columns if column != "run"]
    console.print(_fitting([(table, columns), (named, columns)], console, barest=(table, without)))
    if everywhere:
        console.print(Text(f"In every cell: {', '.join(everywhere)}.", style=_QUIET))


def print_table(
    table: pd.DataFrame, columns: Sequence[str], title: str = "", console: Console | None = None
) -> None:
    """Print some columns of any table; measures as percentages under short names.

    Each rate has its n beside it and, where the line is wide enough, its 95 % interval, if the table has
    them (`<kind>.n`, `<kind>.low`, `<kind>.high`). On a narrow terminal the counts shrink to one column, of
    the last rate. A column `state` is left out where every run is finished.
    """
    console = console or _standard_output()
    forms = [(table, list(columns))]
    if "run" in columns:
        # a name that has no room goes on in a second line at its hash, which finds the run too
        broken = table["run"].astype(str).str.replace(r"-(?=[^-]*$)", "-\n", regex=True)
        forms.append((table.assign(run=broken), list(columns)))
    shown = _fitting(forms, console)
    shown.title = title or None
    console.print(shown)


#: From this many columns on, rates are shown with their intervals: beside them or, for want of room, below.
_WIDE = 110


_Form = tuple["pd.DataFrame", list[str]]


def _fitting(forms: list[_Form], console: Console, barest: _Form | None = None) -> Table:
    """The fullest form of a table that fits on the console; the last and barest one where none does."""
    unbounded = console.options.update(width=10_000)
    for intervals in ("beside", "below", "") if console.width >= _WIDE else ("",):
        bare = [barest] if barest and intervals != "beside" else []
        for content, columns in [*forms, *bare]:
            shown = _of_table(content, columns, intervals)
            if console.measure(shown, options=unbounded).maximum <= console.width:
                return shown
    return shown


def _of_table(table: pd.DataFrame, columns: Sequence[str], intervals: str) -> Table:
    """A table of which no number wraps; `intervals` is "beside", "below" or "" for none."""
    if "state" in columns and (table["state"] == "finished").all():
        columns = [column for column in columns if column != "state"]
    table, columns = _with_counts(table, columns, bool(intervals))
    known = dict(_SHORT_NAMES) | {column: header for column, header, _ in _SETTINGS}
    out = Table(
        title_justify="left", title_style="bold", box=None, pad_edge=False, collapse_padding=not intervals
    )
    for column in columns:
        header = "n" if column.endswith(".n") else known.get(column, column)
        number = column in known or column.endswith(".n") or column in ("n", "seed")
        out.add_column(
            header if intervals == "beside" else _broken(header),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number or column == "state",  # strings may go on in a second line, numbers never
        )
    for record in table.to_dict("records"):
        line = {str(key): value for key, value in record.items()}
        out.add_row(*[_cell(column, line, intervals) for column in columns])
    return out


def _broken(header: str) -> str:
    """A header in two lines: where a dotted key has a dot, or a long word a syllable's end."""
    return {"untriggered": "untrig-\ngered", "alpha/r": "alpha\n/r"}.get(header, header.replace(".", ".\n"))


def _with_counts(table: pd.DataFrame, columns: Sequence[str], wide: bool) -> tuple[pd.DataFrame, list[str]]:
    """The columns with the counts of their rates behind them; rates of the same rows share one."""
    rates = [column for column in columns if column in _SHORT_NAMES and f"{column}.n" in table]
    out: list[str] = []
    for column in columns:
        out.append(column)
        if column not in rates:
            continue
        later = next(iter(rates[rates.index(column) + 1 :]), "")
        same = bool(later) and _same(table[f"{column}.n"], table[f"{later}.n"])
        if same:  # runs without a twin, say, know only one of the two
            table = table.assign(**{f"{later}.n": table[f"{later}.n"].combine_first(table[f"{column}.n"])})
        if not later or (wide and not same):
            out.append(f"{column}.n")
    return table, out


def _same(one: pd.Series, other: pd.Series) -> bool:
    """Whether two columns agree wherever both know a value."""
    return bool(((one == other) | one.isna() | other.isna()).all())


def _standard_output() -> Console:
    """The terminal, or a page wide enough for every table where the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _cell(column: str, line: dict[str, Any], intervals: str) -> Text:
    value: Any = line.get(column)
    low: Any
    high: Any
    if _missing(value):
        return Text("")
    if column in _SHORT_NAMES:
        low, high = line.get(f"{column}.low"), line.get(f"{column}.high")
        shown = Text(_percent(value))
        if intervals and not _missing(low):
            gap = " " if intervals == "beside" else "\n"
            shown.append(f"{gap}[{low * 100:.1f}, {high * 100:.1f}]", style=_QUIET)
        return shown
    if column == "n" or column.endswith(".n"):
        return Text(f"{int(value):,}")
    style = "yellow" if column == "state" and value != "finished" else ""
    return Text(_plain(value), style=style)


def _plain(value: Any) -> str:
    """A value as people write it: whole numbers whole, though a missing one beside them made them floats."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return str(value)


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
