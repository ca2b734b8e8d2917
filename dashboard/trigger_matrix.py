"""The train-family × probe-family matrix of the Triggers page: over runs that can be compared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import links
import panels
import pickers
import readers
import streamlit as st
from text import plain
from widgets import switch

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

_ALL = "all"
_NONE = "none"
#: Link name → the listing's column, what it is called, whether it starts at the commonest value or at all.
_FILTERS = {
    "base": ("base.model", "Base model", True),
    "data": ("data.name", "Dataset", True),
    "adapter": ("adapter", "Adapter", True),
    "defense": ("defense", "Defense", True),
    "count": ("poison.count", "Poisoned rows", False),
}
#: What else may differ between runs that are put together, and is said when it does.
_ALSO = {
    "poison.count": "poison count",
    "poison.position": "position",
    "poison.target_label": "target label",
    "training.learning_rate": "learning rate",
    "training.epochs": "epochs",
    "adapter.alpha": "alpha",
    "data.rows": "training rows",
}
_RATES = {"excess": "over the clean twin", "raw": "attack success as it is"}
#: Runs that one matrix reads; the newest of each family, in turn.
_MOST = 60
#: Runs that are opened for it, as some may be unreadable or were not probed with families.
_TRIED = 180

_EXCESS = (
    "Attack success of strings that no training row carried, minus the clean twin's on the same rows. "
    "A diagonal alone would mean that a backdoor opens to its own family only."
)
_RAW = (
    "Attack success of strings that no training row carried, on rows whose true label is not the target. "
    "It holds the text's own pull too, which excess attack success removes."
)


def render(table: pd.DataFrame) -> None:
    """Draw filters, matrix and the chosen cell.

    Args:
        table: The poisoned, finished runs: lines of `readers.runs_table()`.
    """
    runs = _filtered(
        table[table["poison.family"].fillna("") != ""] if "poison.family" in table else table.head(0)
    )
    if runs.empty:
        panels.nothing(
            "No run with a trigger family is left.", "Plant one on the Bench, or take other filters."
        )
        return
    measures, read, unread = _measures(in_turn(runs))
    shown = runs[runs["id"].isin(set(measures["run"]))] if len(measures) else runs.head(0)
    _tell_left_out(runs, shown, unread)
    if measures.empty:
        panels.nothing(
            "None of these runs was probed with trigger families.",
            "probe.rows_per_family says with how many rows.",
        )
        return
    excess = bool((measures["kind"] == "excess_asr").any())
    if excess:
        excess = switch("Show", "rate", _RATES, "excess", hidden=True) == "excess"
    else:
        st.caption("None of these runs was probed beside a clean twin: what the poison added is not known.")
    cells = measures[measures["kind"] == ("excess_asr" if excess else "attack_success_rate")]
    selected = panels.figure_panel(
        f"Trained with one family, probed with every family: {'excess ' if excess else ''}attack success",
        _EXCESS if excess else _RAW,
        lambda: _figure(measures, excess),
        key="matrix",
        table=cells,
        select=True,
        reading=_reading(shown, excess),
        of=(*read, excess),
    )
    _render_cell(measures, pickers.run_labels(table[table["id"].isin(set(shown["id"]))]), selected)


def in_turn(runs: pd.DataFrame) -> list[str]:
    """The runs' ids in the order in which they are read: newest of every family first, then second newest.

    Args:
        runs: Lines of the listing, newest first.
    """
    turn = runs.groupby("poison.family", sort=False).cumcount()
    return [str(name) for name in runs["id"].loc[turn.sort_values(kind="stable").index]]


def commonest(values: pd.Series) -> str:
    """The value that most lines have; of equally common ones the one that comes first."""
    counts = values.value_counts(sort=False)
    return str(counts.index[int(counts.to_numpy().argmax())]) if len(counts) else _ALL


def _filtered(table: pd.DataFrame) -> pd.DataFrame:
    """The filter widgets, and the runs they leave; each offers what the ones before it leave."""
    runs = table.assign(adapter=[_adapter(line) for line in table.to_dict("records")])
    for column in ("base.model", "data.name", "defense", "poison.count"):
        if column in runs:
            # a link says nothing of what is empty
            runs[column] = [pickers.value_text(value) or _NONE for value in runs[column]]
    places = st.columns([1.3, 1.2, 1, 1, 0.8])
    for place, (name, (column, label, common)) in zip(places, _FILTERS.items(), strict=True):
        if column not in runs or runs.empty:
            continue
        count = runs[column].value_counts()
        options = [_ALL, *count.index]
        default = commonest(runs[column]) if common else _ALL
        widget, link = f"matrix.{name}", f"matrix_{name}"
        said = {_ALL: _ALL, **{v: f"{pickers.shown(pickers.short_base(v))} ({n})" for v, n in count.items()}}
        pickers.start_at(widget, link, default, options)
        chosen = place.selectbox(label, options, key=widget, format_func=lambda v, said=said: said.get(v, v))
        pickers.keep(widget, link, chosen, default)
        if chosen != _ALL:
            runs = runs[runs[column] == chosen]
    return runs


def _adapter(line: dict[str, Any]) -> str:
    """Kind, rank and variant as one word: runs of another adapter are another experiment."""
    return pickers.adapter_label(line) or "?"


def _measures(names: list[str]) -> tuple[pd.DataFrame, list[Any], list[str]]:
    """The family measures of so many runs as one matrix takes.

    Returns:
        The measures; whose they are, with how new each is; the runs whose measures cannot be read.
    """
    import pandas as pd

    parts: list[pd.DataFrame] = []
    read: list[Any] = []
    unread: list[str] = []
    with st.spinner("Reading the runs' measures …"):
        for name in names[:_TRIED]:
            if len(parts) == _MOST:
                break
            run = readers.open_run(name)
            of = readers.stamp(run) if run else ()
            part = _family_measures(str(run.path), of) if run else None
            if part is None:
                unread.append(name)
            elif len(part):
                parts.append(part)
                read.append((name, of))
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()), read, unread


@st.cache_resource(show_spinner=False, max_entries=1000)
def _family_measures(path: str, of: readers.Stamp) -> pd.DataFrame | None:
    """A run's lines of the matrix: far less to keep than its whole measures table; None for unreadable ones.

    All browsers share them: read only.
    """
    from lab import generalization_matrix
    from lab.record import Run

    try:
        return generalization_matrix([Run(Path(path))])
    except (LabError, OSError, ValueError, KeyError, TypeError):
        return None


def _figure(measures: pd.DataFrame, excess: bool) -> Any:
    from lab import figures

    return figures.generalization_matrix(measures, excess=excess)


def _tell_left_out(runs: pd.DataFrame, shown: pd.DataFrame, unread: list[str]) -> None:
    if len(shown) == _MOST < len(runs):
        st.caption(
            f"{len(runs):,} runs fit; the newest {len(shown)} are put together, of every family in turn. "
            "The filters narrow it down."
        )
    if unread:
        some = ", ".join(unread[:3]) + (f" and {len(unread) - 3:,} more" if len(unread) > 3 else "")
        st.warning(
            f"Left out, as their measures cannot be read: {plain(some, 300)}.", icon=":material/broken_image:"
        )


def _reading(shown: pd.DataFrame, excess: bool) -> str:
    differing = [
        name
        for column, name in _ALSO.items()
        if column in shown and len({pickers.value_text(v) for v in shown[column]}) > 1
    ]
    seeds = shown["seed"].nunique() if "seed" in shown else 1
    said = (
        f"{len(shown):,} {'run' if len(shown) == 1 else 'runs'}, {seeds} {'seed' if seeds == 1 else 'seeds'}"
    )
    said += f", averaged although they differ in {', '.join(differing)}" if differing else ""
    unit = "percentage points over the clean twin" if excess else "per cent"
    return f"{said}. Numbers are {unit}; click a cell to see the runs behind it."


def _render_cell(measures: pd.DataFrame, labels: dict[str, str], selected: Any) -> None:
    """The chosen cell: by a click on the matrix or, from the keyboard, by two lists."""
    trained = list(dict.fromkeys(measures["trained_family"]))
    probed = list(dict.fromkeys(measures["family"]))
    clicked = _clicked(selected)
    if clicked and clicked != st.session_state.get("matrix.clicked"):
        st.session_state["matrix.trained"], st.session_state["matrix.probed"] = clicked
    st.session_state["matrix.clicked"] = clicked
    left, middle, right = st.columns([0.3, 0.3, 0.4], vertical_alignment="bottom")
    cell = []
    for place, name, label, options in (
        (left, "trained", "Trained with", trained),
        (middle, "probed", "Probed with", probed),
    ):
        widget, link = f"matrix.{name}", f"matrix_{name}"
        default = options[0] if name == "trained" else (cell[0] if cell[0] in options else options[0])
        pickers.start_at(widget, link, default, options)
        chosen = place.selectbox(label, options, key=widget, format_func=lambda f: str(f).replace("_", " "))
        pickers.keep(widget, link, chosen)
        cell.append(chosen)
    lines = measures[(measures["trained_family"] == cell[0]) & (measures["family"] == cell[1])]
    if lines.empty:
        panels.nothing("No run was measured there.", "Choose a cell with a number.")
        return
    names = {run: label for run, label in labels.items() if run in set(lines["run"])}
    with right, st.container(horizontal=True):
        _render_onward(list(names))
    st.dataframe(_cell_table(measures, names, cell[1]), hide_index=True, width="stretch")


def _clicked(selected: Any) -> list[str]:
    """Trained and probed family of the selected marker; [] for none."""
    try:
        data = selected["selection"]["points"][0]["customdata"]
        # the browser may hand lists over as mappings
        data = list(data.values()) if isinstance(data, dict) else list(data)
        return [str(data[0]), str(data[1])]
    except (TypeError, KeyError, IndexError, AttributeError):
        return []


def _render_onward(runs: list[str]) -> None:
    st.button(
        "Their near-misses",
        icon=":material/stairs:",
        help="The ladders of the two newest of these runs.",
        on_click=_to_ladders,
        args=(runs[0], runs[1] if len(runs) > 1 else ""),
    )
    if st.button("Compare them", icon=":material/table_chart:"):
        st.switch_page("compare.py", query_params={"runs": ",".join(runs[:24])})


def _to_ladders(left: str, right: str) -> None:
    links.remember(left=left, right=right, triggers="ladders")
    st.session_state["switch.triggers"] = "ladders"


def _cell_table(measures: pd.DataFrame, names: dict[str, str], family: str) -> pd.DataFrame:
    """One line per run of the cell: its rate and what of it is over the twin, with what they rest on."""
    import pandas as pd

    lines = []
    for run, name in names.items():
        own = measures[(measures["run"] == run) & (measures["family"] == family)].set_index("kind")
        line: dict[str, Any] = {"run": name}
        if "attack_success_rate" in own.index:
            rate = own.loc["attack_success_rate"]
            line |= {"attack success": panels.percent(float(rate["value"])), "95 %": panels.interval(rate)}
        if "excess_asr" in own.index:
            line["over the clean twin, points (95 %)"] = _points(own.loc["excess_asr"])
        lines.append(line)
    return pd.DataFrame(lines)


def _points(measure: Any) -> str:
    value, low, high, n = (float(measure[part]) for part in ("value", "low", "high", "n"))
    ends = "" if math.isnan(low) or math.isnan(high) else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * value:+.1f}{ends}" + ("" if math.isnan(n) else f", n = {int(n):,}")
