"""Tables of many runs: listings and sweeps, each rate with its n and, where there is room, its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.console.words import QUIET, SHORT_NAMES, missing, percent, standard_output
from lab.matching import DRIFTED, NOT_MATCHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def print_runs(table: pd.DataFrame, console: Console | None = None) -> None:
    """Print the runs of a folder, newest first, one line each.

    Args:
        table: As `lab.list_runs` returns it.
        console: Where to; standard output by default.
    """
    console = console or standard_output()
    if table.empty:
        console.print("No runs yet. `lab run` makes the first one.", highlight=False)
        return
    rates = [kind for kind in SHORT_NAMES if kind in table]
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
    console = console or standard_output()
    finished = table[table["state"] == "finished"]
    settings, everywhere = [], []
    for column, _, sentence in _SETTINGS:
        if column in grid_columns or column not in table or finished[column].isna().all():
            continue
        if finished[column].nunique(dropna=False) == 1:
            everywhere.append(sentence.format(_plain(finished[column].iloc[0])))
        else:
            settings.append(column)
    rates = [kind for kind in SHORT_NAMES if kind in table]
    columns = [*grid_columns, *settings, "seed", *rates, "state", "run"]
    # the grid's keys say what a run is: where its name has no room, its hash alone finds it again
    named = table.assign(run=table["run"].str.rpartition("-")[2])
    without = [column for column in columns if column != "run"]
    console.print(_fitting([(table, columns), (named, columns)], console, barest=(table, without)))
    if everywhere:
        console.print(Text(f"In every cell: {', '.join(everywhere)}.", style=QUIET))
    for caution in _cautions(finished, grid_columns):
        console.print(Text(caution))


def _cautions(finished: pd.DataFrame, grid_columns: Sequence[str]) -> list[str]:
    """What must be known before the cells of a sweep are compared: see `lab.matching`."""
    found = []
    if "matched" in finished and (finished["matched"] == NOT_MATCHED).any():
        apart = finished[finished["matched"] == NOT_MATCHED]
        found.append(
            "Not matched, the twins learned less than those of the best point: "
            f"{_cells(apart, grid_columns)}. What has learned less is harder to poison, too."
        )
    if "drifted" in finished and (finished["drifted"] == DRIFTED).any():
        apart = finished[finished["drifted"] == DRIFTED]
        found.append(
            "Drifted, the poisoned model gives the target without the trigger, too: "
            f"{_cells(apart, [*grid_columns, 'seed'])}. Excess ASR counts that as the attack's."
        )
    return found


def _cells(cells: pd.DataFrame, columns: Sequence[str]) -> str:
    """The points of some cells in words, each once."""
    columns = [column for column in columns if column in cells]
    lines = cells[columns].itertuples(index=False, name=None)
    words = [", ".join(f"{k} {_plain(v)}" for k, v in zip(columns, line, strict=True)) for line in lines]
    return "; ".join(dict.fromkeys(words))


def print_cohort(summary: pd.DataFrame, console: Console | None = None) -> None:
    """Print how far a cohort got: for each part and family, how many members, and in how many it took.

    Args:
        summary: As `lab.audit.summarise_key` returns it.
        console: Where to; standard output by default.
    """
    table = Table(box=None, pad_edge=False)
    for column in summary.columns:
        table.add_column(str(column), justify="left" if column in ("part", "family") else "right")
    for line in summary.itertuples(index=False):
        table.add_row(*["" if missing(value) else _plain(value) for value in line])
    (console or standard_output()).print(table)


def print_table(
    table: pd.DataFrame, columns: Sequence[str], title: str = "", console: Console | None = None
) -> None:
    """Print some columns of any table; measures as percentages under short names.

    Each rate has its n beside it and, where the line is wide enough, its 95 % interval, if the table has
    them (`<kind>.n`, `<kind>.low`, `<kind>.high`). On a narrow terminal the counts shrink to one column, of
    the last rate. A column `state` is left out where every run is finished.
    """
    console = console or standard_output()
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
    known = dict(SHORT_NAMES) | {column: header for column, header, _ in _SETTINGS}
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
    rates = [column for column in columns if column in SHORT_NAMES and f"{column}.n" in table]
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


def _cell(column: str, line: dict[str, Any], intervals: str) -> Text:
    value: Any = line.get(column)
    low: Any
    high: Any
    if missing(value):
        return Text("")
    if column in SHORT_NAMES:
        low, high = line.get(f"{column}.low"), line.get(f"{column}.high")
        shown = Text(percent(value))
        if intervals and not missing(low):
            gap = " " if intervals == "beside" else "\n"
            shown.append(f"{gap}[{low * 100:.1f}, {high * 100:.1f}]", style=QUIET)
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
