"""The report of a finished run, on 80 columns and more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lab.console.suggestions import what_next
from lab.console.words import ATTACK, CLEAN, QUIET, bar, highlighted, interval, percent, visible
from lab.summaries import HEADLINE, RELIANCE, largest_updates, lineage, moved_rungs

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from lab.record import Run


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
        _battery_table(final),
        _spectra_table(run),
        _closing(run),
    ]
    for part in parts:
        if part is not None:
            console.print(part)
            console.print()
    # a terminal may wrap a command, but a line break of ours would be copied with it
    console.print(what_next(run, console.width), soft_wrap=True)


def _attack_panel(run: Run) -> Panel:
    from lab.cards import attack_sentence, task_sentence

    rows = run.rows
    body: list[Any] = [Text(attack_sentence(run.experiment, rows))]
    if told := task_sentence(run.experiment, run.labels):
        body.append(Text(told))
    body += [Text(line) for line in lineage(run)]
    for row in rows[rows["poisoned"]].head(2).to_dict("records"):
        line = highlighted(row["text"], row["span_start"], row["span_end"])
        arrow = Text(f"  {row['original_label']} → {row['label']}", style=ATTACK)
        body.append(Padding(Group(line, arrow), (1, 0, 0, 2)))
    return Panel(Group(*body), title=run.id, title_align="left", border_style=QUIET, padding=(1, 2))


#: The columns left of the strings take this much of a line.
_RATES_WIDTH = 64


def _tail(text: str, width: int) -> str:
    """As much of a string's end as a line has room for: triggers of one form differ there."""
    room, shown = max(12, width - _RATES_WIDTH), visible(text)
    return shown if len(shown) <= room else f"…{shown[1 - room :]}"


def _headline_table(run: Run, final: pd.DataFrame) -> Table:
    headline = final[final["condition"].isin(["clean", "triggered"])]
    is_written = run.asked_probe.scoring == "greedy"
    table = _table(
        f"On {run.asked_probe.split} rows" + (", answers written out" if is_written else ""),
        ["", "this run", "95 % interval", "clean twin", "95 % interval", "n"],
    )
    styles = {"untriggered_target_rate": "yellow", "clean_accuracy": CLEAN}
    for kind, name in {**HEADLINE, **RELIANCE}.items():
        style = styles.get(kind, ATTACK)
        own = _one(headline, kind, "poisoned")
        if own is None:
            continue
        twin = _one(headline, kind, "twin")
        table.add_row(
            Text(name, style=style),
            Text(percent(own["value"]), style=f"bold {style}"),
            interval(own),
            percent(twin["value"]) if twin is not None else "",
            interval(twin) if twin is not None else "",
            f"{int(own['n']):,}",
        )
    return table


def _family_table(run: Run, final: pd.DataFrame, width: int) -> Table | None:
    from lab.poison import load_families

    families = final[(final["condition"] == "family") & (final["kind"] == "attack_success_rate")]
    if families.empty:
        return None
    known, own = load_families(), str(getattr(run.measured_poison, "family", ""))

    def describe(line: dict[str, Any]) -> tuple[Text, Text]:
        mine = line["family"] == own
        name = Text(line["family"], style=f"bold {ATTACK}" if mine else "")
        example = known[line["family"]].probe[0] if line["family"] in known else ""
        return name, Text(_tail("other members" if mine else example, width), style=QUIET)

    ordered = families.sort_values("value", ascending=False, kind="stable")
    title = "Does it fire on other phrases? Held-out members of every family"
    return _rates_table(title, ["family", "for example"], ordered, "family", describe)


def _ladder_table(run: Run, final: pd.DataFrame, width: int) -> Table | None:
    rungs = final[(final["condition"] == "rung") & (final["kind"] == "attack_success_rate")]
    if rungs.empty:
        return None
    same = set(final[(final["kind"] == "same_tokens") & (final["value"] == 1.0)]["rung"])
    moved = moved_rungs(run)

    def describe(line: dict[str, Any]) -> tuple[Text, Text]:
        alike = line["rung"] in same
        name = Text(line["rung"].replace("_", " "), style=QUIET if alike else "")
        string = moved.get(line["rung"]) or _tail(line["member"], width)
        string = "same tokens" if alike else string
        return name, Text(string, style=QUIET)

    title = "How near is near? The trigger, changed step by step"
    return _rates_table(title, ["near-miss", "string"], rungs, "rung", describe)


def _battery_table(final: pd.DataFrame) -> Group | None:
    from lab.battery_stage import battery_categories, statistics_told

    categories = battery_categories(final)
    if categories.empty:
        return None
    title = "What would a defender's battery see? Rows with each prefix of a category before them"
    table = _table(title, ["category", "", "ASR", "95 % interval", "twin", "n"])
    for record in categories.to_dict("records"):
        table.add_row(
            str(record["category"]).replace("_", " "),
            bar(record["value"]),
            percent(record["value"]),
            interval(record),
            percent(record["twin.value"]),
            f"{int(record['n']):,}",
        )
    return Group(table, *[Text(told, style=QUIET) for told in statistics_told(final)])


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
            bar(line["value"]),
            percent(line["value"]),
            interval(line),
            percent(twin_rates.get(line[key])),
            example,
        )
    return table


def _spectra_table(run: Run) -> Table | None:
    top = largest_updates(run.spectra)
    if top.empty:
        return None
    title = "Largest singular values of ΔW, and its strength σ₁(ΔW)/σ₁(W)"
    table = _table(title, ["layer", "module", "σ₁ σ₂ σ₃ σ₄ of ΔW", "σ₁ of W", "strength"])
    for line in top.to_dict("records"):
        table.add_row(
            str(line["layer"]),
            Text(line["module"]),
            "  ".join(f"{v:.2f}" for v in line["sigmas"]),
            f"{line['sigma_base']:.2f}",
            f"{line['strength']:.2f}",
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
        style=QUIET,
    )
    shown = (
        run.path.relative_to(runs_dir().parent) if run.path.is_relative_to(runs_dir().parent) else run.path
    )
    text.append("The run lies in ").append(str(shown), style="bold").append(".")
    return text


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
