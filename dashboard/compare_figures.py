"""The figures over many runs; each returns the run that was clicked, "" for none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import links
import panels
import readers
import streamlit as st
from text import plain
from widgets import one_of

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from lab.comparison import Listing
    from lab.record import Run

MEASURES = (
    "attack_success_rate", "excess_asr", "untriggered_target_rate", "clean_accuracy", "reliance",
    "triggered_accuracy",
)  # fmt: skip
#: Curves of so many experiments are drawn, and fewer before anything is selected.
_MOST_CURVES = 6
_FEW_CURVES = 2
#: So many points are drawn; more would be a cloud, and slow.
_MOST_POINTS = 500
#: Among so many runs (or experiments) they are looked for.
_MOST_LOOKED_AT = 40
_CURVES = (
    "Each point is a look at fixed validation rows during training, with its 95 % interval, or that over "
    "seeds, as a band. Thin lines are the clean twin: what the same training does without poison."
)


def curves(picked: Listing, grouped: bool) -> str:
    """The training curves of the first few runs, or experiments with their seeds averaged."""
    from lab.comparison import run_title

    table = picked.table
    most = _MOST_CURVES if links.chosen_runs() else _FEW_CURVES
    looked = ((part, _measures(part)) for part in _experiments(picked, grouped))
    drawn = list(itertools.islice(((part, found) for part, found in looked if found), most))
    columns = st.columns(2 if len(drawn) > 1 else 1, gap="medium")
    for i, (part, (names, stamps)) in enumerate(drawn):
        line = part.iloc[0].to_dict()
        title = run_title({**line, "seeds": _seeds(part), "runs": len(part)} if grouped else line)
        with columns[i % len(columns)]:
            panels.figure_panel(
                plain(title, 80),
                _CURVES,
                lambda names=names: _curves_figure(names),
                key=f"curves-{names[0]}-{len(names)}",
                of=(names, stamps),
            )
    if not drawn:
        panels.nothing(
            "None of these runs was looked at while it trained.", "Select others, or take filters back."
        )
    elif len(table) > sum(len(part) for part, _ in drawn):
        st.caption(f"The newest {len(drawn)}; select rows in the table to see others.")
    return ""


def _experiments(picked: Listing, grouped: bool) -> Iterator[pd.DataFrame]:
    """The lines of the first few runs, one by one, or of the first few experiments, their seeds together."""
    table = picked.table
    if grouped:
        groups = picked.groups
        for number in range(min(int(groups.max()) + 1, _MOST_LOOKED_AT)):
            yield table[groups == number]
    else:
        for place in range(min(len(table), _MOST_LOOKED_AT)):
            yield table.iloc[place : place + 1]


def heat_map(picked: Listing, grouped: bool) -> str:
    """A measure over two settings, runs of one cell averaged."""
    from lab.run_settings import column_name

    keys = [key for key in picked.asked.numeric if key != "seed"]
    measures = _measured(picked.table)
    if len(keys) < 2 or not measures:
        panels.nothing(
            "A map needs runs that differ in two numbers, such as rank and poison rows, and are measured.",
            f"These differ in {', '.join(plain(column_name(k)) for k in keys) or 'none'}.",
        )
        return ""
    first, second, third = st.columns(3)
    with first:
        x = pick("Across", "map_x", keys, "poison.count")
    with second:
        y = pick("Down", "map_y", [key for key in keys if key != x], "adapter.rank")
    with third:
        value = pick("Measure", "map_v", measures, "attack_success_rate")
    table = _narrow(picked.arms, [x, y, value])
    return _clicked(
        panels.figure_panel(
            f"{_name(value).capitalize()} by {plain(column_name(x))} and {plain(column_name(y))}",
            panels.MEANINGS[value][1],
            lambda: _rate_map(table, x, y, value),
            key="rate-map",
            table=table,
            select=True,
            reading=_mixed(picked, [x, y]),
            of=(readers.digest(table), x, y, value),
        ),
        picked.table,
    )


def dose(picked: Listing, grouped: bool) -> str:
    """A measure over one setting, a line for each value of another."""
    from lab.run_settings import column_name

    picked = _newest_measured(picked)
    table = picked.arms
    keys = [key for key in picked.asked.differing if key != "seed" and key in table]
    numbers = [key for key in picked.asked.numeric if key in keys]
    measures = _measured(picked.table)
    if not keys or not measures:
        panels.nothing("A dose needs finished runs that differ in a setting.", "Select more of them.")
        return ""
    first, second, third = st.columns(3)
    with first:
        x = pick("Dose", "dose_x", [*numbers, *(k for k in keys if k not in numbers)], "poison.count")
    with second:
        y = pick("Response", "dose_y", measures, "attack_success_rate")
    with third:
        group = pick("A line for each", "dose_g", ["", *(k for k in keys if k != x)], "")
    table = _narrow(table, [x, y, group])
    lines = table.astype({x: str}) if x not in numbers and table[x].notna().all() else table
    return _clicked(
        panels.figure_panel(
            f"How {_name(y)} moves with {plain(column_name(x))}",
            panels.MEANINGS[y][1],
            lambda: _dose_response(lines, x, y, group),
            key="dose-response",
            table=table,
            select=True,
            reading=_mixed(picked, [x, group]),
            of=(readers.digest(lines), x, y, group),
        ),
        picked.table,
    )


def frontier(picked: Listing, grouped: bool) -> str:
    """What each defense takes from the attack, and what it costs."""
    picked = _newest_measured(picked)
    table = picked.arms
    rates = [kind for kind in ("excess_asr", "attack_success_rate") if kind in _measured(picked.table)]
    if not rates:
        panels.nothing("No poisoned run of these is measured.", "Select finished runs with a backdoor.")
        return ""
    with st.columns(3)[0]:
        rate = pick("Attack measured as", "frontier_v", rates, "excess_asr")
    measured = table.dropna(subset=[rate, "clean_accuracy"])
    most = measured["trigger"].value_counts().head(4).index
    told = f" The {len(most)} most frequent triggers." if measured["trigger"].nunique() > len(most) else ""
    measured = _narrow(measured[measured["trigger"].isin(most)], ["arm", "trigger", rate, "clean_accuracy"])
    return _clicked(
        panels.figure_panel(
            "What a defense takes from the attack, and what it costs in accuracy",
            f"{panels.MEANINGS[rate][1]} Down is safer, right is more accurate; the corner is both.",
            lambda: _frontier(measured, rate),
            key="defense-frontier",
            table=_narrow(table, ["arm", "trigger", rate, "clean_accuracy"]),
            select=True,
            reading=_mixed(picked, ["defense", "poison.family", "poison.member", *_ARM_KEYS]) + told,
            of=(readers.digest(measured), rate),
        ),
        picked.table,
    )


_ARM_KEYS = ("adapter.kind", "adapter.variant", "adapter.init")
DRAW: dict[str, Callable[[Listing, bool], str]] = {
    "curves": curves,
    "map": heat_map,
    "dose": dose,
    "frontier": frontier,
}


def _rate_map(table: pd.DataFrame, x: str, y: str, value: str) -> Figure:
    from lab import figures

    return figures.rate_map(table, x=x, y=y, value=value)


def _dose_response(table: pd.DataFrame, x: str, y: str, group: str) -> Figure:
    from lab import figures

    return figures.dose_response(table, x=x, y=y, group=group or None)


def _frontier(table: pd.DataFrame, rate: str) -> Figure:
    from lab import figures

    return figures.defense_frontier(table, rate=rate)


def _curves_figure(names: tuple[str, ...]) -> Figure:
    import pandas as pd

    from lab import figures

    parts = [found for name in names if (found := _looks(name)) is not None]
    return figures.training_curves(pd.concat(parts, ignore_index=True))


def _measures(part: pd.DataFrame) -> tuple[tuple[str, ...], tuple[readers.Stamp, ...]] | None:
    """Those of some runs that were looked at while they trained, with how new they are; None for none."""
    found = [(name, readers.stamp(run)) for name in part["id"] if (run := _looked_at(name)) is not None]
    return (tuple(name for name, _ in found), tuple(stamp for _, stamp in found)) if found else None


def _looked_at(name: str) -> Run | None:
    run = readers.open_run(name)
    return run if run is not None and readers.events(run, "probe") else None


def _looks(name: str) -> pd.DataFrame | None:
    """What was measured of a run while it trained, and at the end; its twin's beside it."""
    run = readers.open_run(name)
    if run is None:
        return None
    found = readers.try_table(run, "measures")
    found = found if found is not None else readers.try_table(run, "curves")
    return found if found is None else found[~found["condition"].isin(["family", "rung"])]


def _newest_measured(picked: Listing) -> Listing:
    """As many measured runs as a figure of points can show, said where that is not all."""
    measured = picked.table[picked.table[_measured(picked.table)].notna().any(axis=1)]
    if len(measured) > _MOST_POINTS:
        st.caption(
            f"The newest {_MOST_POINTS} of {len(measured):,} measured runs; filter or select to draw others."
        )
    return picked.of(measured.head(_MOST_POINTS))


def _measured(table: pd.DataFrame) -> list[str]:
    return [kind for kind in MEASURES if kind in table and table[kind].notna().any()]


def _seeds(part: pd.DataFrame) -> str:
    return ", ".join(str(s) for s in sorted(part["seed"]))


def _name(kind: str) -> str:
    return panels.MEANINGS[kind][0]


def pick(label: str, name: str, options: Sequence[str], default: str) -> str:
    """A choice that the link remembers; the first option where the default is none of them."""
    start = default if default in options else options[0]
    return str(one_of(label, name, options, start, _said))


def _said(option: str) -> str:
    from lab.run_settings import column_name

    if option in panels.MEANINGS:
        return _name(option)
    return column_name(option) if option else "nothing: all in one"


def _mixed(picked: Listing, used: Sequence[str]) -> str:
    """What else differs between the runs that the figure puts together, which it cannot show."""
    from lab.run_settings import column_name

    finished = picked.asked.of(picked.table[picked.table["state"] == "finished"])
    skipped = {*used, "seed", "poison.attack"}
    skipped |= {"poison.member"} if "poison.family" in used else set()
    rest = [column_name(key) for key in finished.differing if key not in skipped]
    return f"Mind that these runs differ in {plain(', '.join(rest), 200)} as well." if rest else ""


def _narrow(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """What a figure is made of, for the download."""
    wanted = ["run", *keys, *(f"{k}.{end}" for k in keys for end in ("low", "high", "n")), "seed", "alpha/r"]
    return table[[key for key in dict.fromkeys(wanted) if key in table]]


def _clicked(selection: Any, table: pd.DataFrame) -> str:
    """The run of the point that was clicked: the first id that it carries."""
    points = selection.selection.points if selection is not None else []
    names = set(table["id"]) if points else set()
    for point in points:
        data = point.get("customdata") or []
        for piece in data.values() if isinstance(data, dict) else data:
            for name in str(piece).split(","):
                if name.strip() in names:
                    return name.strip()
    return ""
