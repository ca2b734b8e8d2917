"""The table of runs: only what differs, rates with their intervals, rows to select."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import links
import panels
import streamlit as st
from text import plain
from widgets import one_of

if TYPE_CHECKING:
    import pandas as pd

    from lab.comparison import Listing

#: The filters, by their names in the link, with the listing's column of each.
FILTERS = {
    "state": "state",
    "preset": "name",
    "family": "poison.family",
    "rank": "adapter.rank",
    "defense": "defense",
    "base": "base.model",
}
#: Lines that are sent to the browser at once; a page of them is scrolled, more are paged.
MOST = 200
_MEASURES = ("attack_success_rate", "untriggered_target_rate", "clean_accuracy", "excess_asr")
_SORTS = ("newest first", *_MEASURES)
#: What a run's title is made of.
_TITLED = (
    "id", "base.model", "poison.attack", "poison.family", "poison.count", "adapter.kind", "adapter.rank",
    "adapter.variant", "adapter.init", "defense", "seed", "seeds", "runs",
)  # fmt: skip
_STATES = {"queued": "waiting", "corrupt": "unreadable"}
#: Said of all runs in the line over the table; what else they have in common is one click away.
_SAID = (
    "base.model", "data.name", "data.rows", "poison.family", "poison.count", "adapter.kind", "adapter.rank",
    "alpha/r", "training.learning_rate", "training.steps", "defense", "seed",
)  # fmt: skip


def render(shown: Listing, grouped: bool) -> list[str]:
    """Draw the table.

    Args:
        shown: The runs that fit the filters, newest first.
        grouped: Whether runs that differ in their seed alone are one line.

    Returns:
        The ids of the selected runs; [] for none.
    """
    differing = [key for key in shown.asked.differing if not (grouped and key == "seed")]
    _render_constants(shown)
    lines = _page(shown, grouped)
    columns = _columns(lines, lines if grouped else shown.asked.of(lines).table, differing)
    ids = [str(line).split(",") for line in (lines["run"] if grouped else lines["id"])]
    held = set(st.session_state.get("compare.rows") or links.chosen_runs())
    rows = [i for i, names in enumerate(ids) if held & set(names)]
    state: Any = st.dataframe(
        columns,
        hide_index=True,
        height=min(38 + 35 * max(len(columns), 2), 318),
        row_height=35,
        placeholder="–",
        column_config=_config(columns, differing),
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": rows}},
        # another key for other lines: a selection is of places, not of runs
        key=f"compare-table-{hash((tuple(lines['id']), grouped))}",
        alt="The runs, one line each, with what differs between them and their rates",
    )
    return [name for row in state.selection.rows if row < len(ids) for name in ids[row]]


def _render_constants(shown: Listing) -> None:
    """What all runs have in common, in a line; the rest of it in a popover."""
    from lab.run_settings import setting_text

    constants = {key: value for key, value in shown.asked.constant.items() if value != ""}
    said = [setting_text(key, constants[key]) for key in _SAID if key in constants]
    said += [f"{name} on n = {n:,} rows" for name, n in _counts(shown.table).items()]
    rest = [setting_text(key, value) for key, value in constants.items() if key not in _SAID]
    place, more = st.columns([0.86, 0.14], vertical_alignment="center")
    how = "all" if len(shown) > 1 else "it"
    place.caption(
        f"**{len(shown):,} run{'s' if len(shown) > 1 else ''}** · {how}: {plain(', '.join(said), 400)}"
    )
    if rest:
        with more.popover(f"and {len(rest)} more", type="tertiary", help="What else they have in common"):
            st.caption("  \n".join(plain(text, 120) for text in rest))


def _counts(shown: pd.DataFrame) -> dict[str, int]:
    """The number of rows that a rate rests on, for rates where it is the same in all runs."""
    found = {}
    for kind in ("attack_success_rate", "clean_accuracy"):  # the other two rest on the rows of the first
        counts = shown[f"{kind}.n"].dropna().unique() if f"{kind}.n" in shown else []
        if len(counts) == 1:
            found[panels.MEANINGS[kind][0]] = int(counts[0])
    return found


def _page(shown: Listing, grouped: bool) -> pd.DataFrame:
    """The lines to show now: sorted, averaged if asked for, and at most `MOST` of them."""
    count = int(shown.groups.max()) + 1 if grouped else len(shown)
    sort, page = _SORTS[0], 1
    if count > MOST:
        sorts = [s for s in _SORTS if s in shown.table or s == _SORTS[0]]
        sort, page = _render_paging(sorts, -(-count // MOST))
    if sort != _SORTS[0]:
        shown = shown.of(shown.table.sort_values(sort, ascending=False, kind="stable"))
    first, last = (page - 1) * MOST, page * MOST
    return shown.averaged(range(first, last)) if grouped else shown.table.iloc[first:last]


def _render_paging(sorts: Sequence[str], pages: int) -> tuple[str, int]:
    """The order of all lines, and which page of so many of them is shown."""
    left, right, _ = st.columns([0.25, 0.2, 0.55], vertical_alignment="bottom")
    with left:
        sort = one_of("Sort all by", "sort", sorts, sorts[0], _measure_name)
    held = links.choose("page", "1")
    start = min(int(held), pages) if held.isdecimal() and int(held) else 1
    page = int(right.number_input(f"Page of {pages}", 1, pages, start, key=f"compare.page-{pages}"))
    links.remember(page=str(page) if page > 1 else "")
    return str(sort), page


def _columns(lines: pd.DataFrame, asked: pd.DataFrame, differing: list[str]) -> pd.DataFrame:
    """The lines as people read them, a column for each thing that differs."""
    import pandas as pd

    from lab.comparison import run_title

    told = [key for key in _TITLED if key in lines]
    columns: dict[str, Any] = {"run": [run_title(line) for line in lines[told].to_dict("records")]}
    columns["state"] = [_STATES.get(state, state) for state in lines["state"]]
    for kind in _MEASURES[:-1]:
        if kind in lines and lines[kind].notna().any():
            columns[kind] = _rates(lines, kind)
    for key in differing:
        if key in asked:
            columns[key] = asked[key].to_numpy()
    if "excess_asr" in lines and lines["excess_asr"].notna().any():
        columns["excess_asr"] = _rates(lines, "excess_asr")
    if lines["name"].nunique() > 1:
        columns["name"] = lines["name"].to_numpy()
    columns["created"] = pd.to_datetime(lines["created"].to_numpy(), unit="s", errors="coerce")
    columns["id"] = lines["id"].to_numpy()
    return pd.DataFrame(columns)


def _rates(lines: pd.DataFrame, kind: str) -> list[str | None]:
    """Rates with their intervals: "81.4 % [78.6, 83.9]"; figures of equal width sort as text, too."""
    form, unit = ("+6.1f", " ") if kind == "excess_asr" else ("5.1f", " % ")
    ends = [
        lines[f"{kind}.{end}"] if f"{kind}.{end}" in lines else lines[kind] * float("nan")
        for end in ("low", "high")
    ]
    counts = lines[f"{kind}.n"] if f"{kind}.n" in lines else lines[kind] * float("nan")
    # a count that is the same for all is said once, over the table
    tell = counts.nunique() > 1
    runs = lines[f"{kind}.runs"] if f"{kind}.runs" in lines else lines[kind] * float("nan")
    said: list[str | None] = []
    for value, low, high, n, count in zip(lines[kind], *ends, counts, runs, strict=True):
        interval = f"[{100 * low:.1f}, {100 * high:.1f}]" if low == low and high == high else ""
        if not interval and count > 1:
            interval = f"{int(count)} seeds"
        if tell and n == n:
            interval += f" n={int(n)}"
        said.append(f"{100 * value:{form}}{unit}{interval}".rstrip() if value == value else None)
    return said


def _measure_name(kind: str) -> str:
    return panels.MEANINGS[kind][0] if kind in panels.MEANINGS else kind


def _config(columns: pd.DataFrame, differing: list[str]) -> dict[str, Any]:
    from lab.run_settings import column_name

    config: dict[str, Any] = {
        "run": st.column_config.TextColumn(
            "run", pinned=True, width=240, help="What was planted, where, and the seed."
        ),
        "state": st.column_config.TextColumn(
            width=130 if columns["state"].str.contains(",").any() else 85,
            help="Finished runs have measures; the others say why not.",
        ),
        "name": st.column_config.TextColumn("preset or name", width=130),
        "created": st.column_config.DatetimeColumn("asked for", format="YYYY-MM-DD HH:mm", width=130),
        "id": st.column_config.TextColumn("id", help="The run's folder; `lab show` takes it."),
    }
    for kind in _MEASURES:
        name, meaning = panels.MEANINGS[kind]
        ends = "In brackets the 95 % interval, over rows, or over seeds where they are averaged."
        points = " In percentage points." if kind == "excess_asr" else ""
        width = 205 if kind in columns and columns[kind].astype(str).str.contains(" n=").any() else 158
        config[kind] = st.column_config.TextColumn(name, width=width, help=f"{meaning}{points} {ends}")
    for key in differing:
        numeric = columns[key].dtype.kind in "if" if key in columns else False
        make = st.column_config.NumberColumn if numeric else st.column_config.TextColumn
        config[key] = make(column_name(key), help=f"`{key}`", **({"format": "%g"} if numeric else {}))
    return config
