"""Compare: many runs as a table of what differs, as figures over them, and one of them looked into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import compare_figures
import links
import panels
import readers
import run_detail
import run_table
import streamlit as st
import sweep_board
from text import plain
from widgets import switch

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

    from lab.comparison import Listing

#: What is drawn of the runs, in the order of the switch.
_VIEWS = {
    "curves": "Training curves",
    "map": "Heat map",
    "dose": "Dose–response",
    "frontier": "Defense frontier",
    "run": "One run",
}
#: A report holds every figure of each of its runs; more make a file that no mail takes.
_MOST_REPORTED = 12
#: Runs that "One run" offers by name; the table reaches the others.
_MOST_OFFERED = 50


def main() -> None:
    """Draw the page."""
    st.markdown("# Compare runs")
    # what is searched, sorted and selected leaves the page around it as it is
    st.fragment(_render_runs)()
    st.divider()
    st.markdown("## Sweeps")
    with panels.part("The sweeps"):
        sweep_board.render()


def _render_runs() -> None:
    with panels.part("The list of runs"):
        listing = readers.listing()
        if not len(listing):
            _render_empty()
            return
        _follow_clicks(listing.table)
        shown, grouped = _render_filters(listing)
        if not len(shown):
            panels.nothing("No run fits these filters.", "Take one of them back.")
            return
        chosen = run_table.render(shown, grouped)
        _follow_selection(chosen)
        picked = shown.of(shown.table[shown.table["id"].isin(chosen)]) if chosen else shown
        _render_exports(shown.table, picked.table, bool(chosen))
        # another figure, or another axis of it, leaves the table as it is: half of the work at 2,000 lines
        st.fragment(_render_views)(chosen, picked, listing.table, grouped)


def _render_views(chosen: Sequence[str], picked: Listing, table: pd.DataFrame, grouped: bool) -> None:
    with panels.part("What is drawn of the runs"):
        view = _render_switch(chosen, len(picked))
        if view == "run":
            _render_run(picked.table, table)
        else:
            _draw(view, picked, grouped)


def _render_empty() -> None:
    panels.nothing(
        "There is no run to compare yet.",
        "Train one on the Bench, or in a terminal: `lab run rfc-citation`.",
    )


def _render_filters(listing: Listing) -> tuple[Listing, bool]:
    """The filters; the runs that fit, in the chosen order, and whether seeds are averaged."""
    search, more, flags = st.columns([0.36, 0.16, 0.48], vertical_alignment="center")
    text = search.text_input(
        "Search",
        key=_kept("q", ""),
        placeholder="words in name, trigger, defense, state …",
        icon=":material/search:",
        label_visibility="collapsed",
    )
    choices = _render_choices(listing.table, more)
    with (
        flags,
        st.container(horizontal=True, horizontal_alignment="left", vertical_alignment="center", gap="medium"),
    ):
        poisoned = st.toggle("only poisoned", key=_kept("poisoned", False))
        twins = st.toggle(
            "hide twins", key=_kept("notwins", False), help="Runs that others name as their clean twin."
        )
        grouped = st.toggle(
            "average seeds",
            key=_kept("seeds", False),
            help="One line, and one curve with a band, for runs that differ in their seed alone.",
        )
    links.remember(
        q=text,
        poisoned="1" if poisoned else "",
        notwins="1" if twins else "",
        seeds="1" if grouped else "",
        **{column: ";".join(values) for column, values in choices.items()},
    )
    columns = {run_table.FILTERS[name]: values for name, values in choices.items()}
    return listing.filtered(text, columns, only_poisoned=poisoned, hide_twins=twins), grouped


def _render_choices(table: pd.DataFrame, place: Any) -> dict[str, list[str]]:
    """The multi-selects; by their names in the link what is chosen."""
    from lab.comparison import choice_text
    from lab.run_settings import column_name

    held = {name: _listed(name) for name in run_table.FILTERS}
    count = sum(bool(values) for values in held.values())
    chosen: dict[str, list[str]] = {}
    with place.popover(
        f"Filters ({count})" if count else "Filters", icon=":material/filter_list:", width="stretch"
    ):
        for name, column in run_table.FILTERS.items():
            found = table[column].unique() if column in table else []
            options = sorted({choice_text(v) for v in found} | set(held[name]), key=_in_order)
            key = f"compare.{name}"
            if key not in st.session_state:
                st.session_state[key] = held[name]
            values = st.multiselect(
                column_name(column).capitalize() if name != "preset" else "Preset or name",
                options,
                key=key,
                format_func=lambda v: plain(v, 60).replace("\\", ""),
                placeholder="any",
            )
            chosen[name] = [str(v) for v in values]
    return chosen


def _in_order(text: str) -> tuple[bool, float, str]:
    """Numbers by size, before words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _listed(name: str) -> list[str]:
    """What of a multi-select is chosen: the widget's own, else the link's."""
    if f"compare.{name}" in st.session_state:
        return list(st.session_state[f"compare.{name}"])
    return [v for v in links.choose(name).split(";") if v]


def _kept(name: str, default: str | bool) -> str:
    """The key of a widget that starts from the link."""
    key = f"compare.{name}"
    if key not in st.session_state:
        held = links.choose(name)
        st.session_state[key] = held == "1" if isinstance(default, bool) else held or default
    return key


def _follow_clicks(table: pd.DataFrame) -> None:
    """Go where the last click in a figure led, before the widgets that show it are drawn."""
    name = st.session_state.pop("compare.go", "")
    if name and name in set(table["id"]):
        links.remember(run=name, show="run")


def _follow_selection(chosen: Sequence[str]) -> None:
    """One row newly selected is looked into; more of them are compared."""
    before = st.session_state.get("compare.rows")
    st.session_state["compare.rows"] = tuple(chosen)
    if before is None or tuple(chosen) == before:
        return
    links.remember_runs(chosen)
    view = links.choose("show", "curves") or "curves"
    if len(chosen) == 1:
        st.session_state["compare.go_back"] = view
        links.remember(run=chosen[0], show="run")
    elif len(before) == 1 and view == "run":
        back = st.session_state.get("compare.go_back", "curves")
        links.remember(show="curves" if back == "run" else back)


def _render_switch(chosen: Sequence[str], count: int) -> str:
    view = switch("What to draw", "show", _VIEWS, "curves", hidden=True)
    if view != "run":
        of = (
            f"the {count:,} selected runs"
            if chosen
            else f"all {count:,} runs of the table; select rows to draw fewer"
        )
        clicks = " A click on a point or cell looks into its (newest) run." if view != "curves" else ""
        st.caption(f"Of {of}.{clicks}")
    return view


def _draw(view: str, picked: Listing, grouped: bool) -> None:
    with panels.part(_VIEWS[view]):
        clicked = compare_figures.DRAW[view](picked, grouped)
        before = st.session_state.get("compare.clicked")
        st.session_state["compare.clicked"] = clicked
        if clicked and clicked != before:
            st.session_state["compare.go"] = clicked
            st.rerun()


def _render_run(picked: pd.DataFrame, table: pd.DataFrame) -> None:
    from lab.comparison import run_title

    wanted = links.choose("run")
    lines = {str(line["id"]): line for line in picked.head(_MOST_OFFERED).to_dict("records")}
    if wanted in set(table["id"]) and wanted not in lines:
        lines = {wanted: table[table["id"] == wanted].to_dict("records")[0], **lines}
    names = list(lines)
    chosen = st.selectbox(
        "Run",
        names,
        index=names.index(wanted) if wanted in names else 0,
        key=f"compare.run-{hash((tuple(names), wanted))}",
        format_func=lambda name: f"{plain(run_title(lines[name]), 90)} ({plain(name[-10:])})".replace(
            "\\", ""
        ),
        label_visibility="collapsed",
    )
    if chosen != wanted:
        links.remember(run=str(chosen))
    run_detail.render(str(chosen), table)


def _render_exports(shown: pd.DataFrame, picked: pd.DataFrame, selected: bool) -> None:
    from lab.comparison import safe_csv

    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Table as CSV",
            data=lambda: safe_csv(shown),
            file_name="runs.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
            help=f"All {len(shown):,} runs that fit the filters, with every column.",
        )
        finished = [str(i) for i in picked.loc[picked["state"] == "finished", "id"]] if selected else []
        _render_report(finished)


def _render_report(names: Sequence[str]) -> None:
    """Make the report when asked for, and only then offer it: it takes a second or two a run."""
    names = tuple(names)
    fits = 0 < len(names) <= _MOST_REPORTED
    why = (
        f"Select 1 to {_MOST_REPORTED} finished runs in the table."
        if not fits
        else "One HTML file that works offline."
    )
    if st.button("Make a report", icon=":material/summarize:", disabled=not fits, help=why):
        with st.spinner("Drawing every figure …", show_time=True), panels.part("The report"):
            st.session_state["compare.report"] = (names, _report(names))
    made = st.session_state.get("compare.report")
    if made and made[0] == names:
        st.download_button(
            f"Report of {len(names)} run{'s' if len(names) > 1 else ''}",
            data=made[1],
            file_name="report.html",
            mime="text/html",
            icon=":material/download:",
            type="primary",
            on_click="ignore",
        )


def _report(names: Sequence[str]) -> bytes:
    from lab.report import report_html

    runs = [run for run in map(readers.open_run, names) if run is not None]
    try:
        return report_html(runs).encode()
    except (OSError, KeyError, ValueError) as error:
        raise LabError(
            f"The report cannot be made: a file of these runs is missing or torn ({error})."
        ) from None


main()
