"""The sweeps of this runs folder: one that is followed, its cells as they fill a map, and how to stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import access
import compare_figures
import links
import panels
import readers
import streamlit as st
import sweep_editor
from text import plain

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from lab.sweeps import SweepState

#: Seconds between two looks at a sweep that runs.
_EVERY = 2.0
_LISTED = 30
_SAYS = {
    "waiting": "is about to begin",
    "running": "is being run",
    "finished": "is done",
    "failed": "is done, but some cells failed",
    "stopped": "was stopped; it goes on where it was",
    "killed": "lost its process; it goes on where it was",
}
#: Cells may still fill while it is in one of these.
_LIVE = ("waiting", "running")


def render() -> None:
    """Draw the sweep that the address bar names, else the newest; and the editor of a new one."""
    from lab.sweeps import list_sweeps

    sweeps = list_sweeps(readers.runs_folder())[:_LISTED]
    with st.expander("**A new sweep**: a grid of settings × seeds", expanded=not sweeps):
        sweep_editor.render()
    if not sweeps:
        st.caption(
            "No sweep has been run here yet. Start one above, or in a terminal: "
            "`lab sweep rfc-citation --over adapter.rank=1,4,16`."
        )
        return
    ids = [sweep.id for sweep in sweeps]
    wanted = links.choose("sweep")
    labels = {sweep.id: _label(sweep) for sweep in sweeps}
    chosen = st.selectbox(
        "Sweep",
        ids,
        index=ids.index(wanted) if wanted in ids else 0,
        key=f"sweep.chosen-{wanted}",
        format_func=labels.__getitem__,
    )
    if chosen != wanted:
        links.remember(sweep=str(chosen))
    sweep = next(s for s in sweeps if s.id == chosen)
    follow = st.fragment(_render_sweep, run_every=_EVERY if sweep.state in _LIVE else None)
    follow(sweep.id, sweep.state)


def _label(sweep: SweepState) -> str:
    keys = " × ".join(_said(key) for key in sweep.asked.get("over", {})) or "seeds alone"
    return plain(f"{keys}, {len(sweep.cells)} cells, {sweep.state} ({sweep.id})", 120).replace("\\", "")


def _said(key: str) -> str:
    from lab.run_settings import column_name

    return column_name(key)


def _render_sweep(id: str, before: str) -> None:
    """The state of a sweep and its map; when its state has changed, the whole page is drawn anew."""
    from lab.sweeps import read_sweep

    try:
        sweep = read_sweep(id, readers.runs_folder())
    except LabError as error:
        st.warning(plain(str(error), 300))
        return
    if sweep.state != before:
        st.rerun()
    with panels.part("How far it is"):
        _render_state(sweep)
    with panels.part("Its cells"):
        _render_map(sweep)


def _render_state(sweep: SweepState) -> None:
    done, total = sweep.jobs
    finished = sum(cell["state"] == "finished" for cell in sweep.cells)
    text = f"It {_state_said(sweep)}: {finished} of {len(sweep.cells)} cells"
    if sweep.state == "running":
        text += f"; {sweep.stage}, {done} of {total} jobs"
        text += f", {sweep.per_minute:.1f} a minute" if sweep.per_minute == sweep.per_minute else ""
        text += f", about {sweep.left / 60:.0f} minutes left" if sweep.left == sweep.left else ""
    st.progress(finished / max(1, len(sweep.cells)))
    st.markdown(text + ".")
    if sweep.best:
        point = ", ".join(f"{_said(k)} {v}" for k, v in sweep.best.get("point", {}).items())
        name = panels.MEANINGS.get(str(sweep.best.get("measure")), (str(sweep.best.get("measure")), ""))[0]
        until_now = "" if sweep.state == "finished" else " so far"
        st.caption(f"Highest {plain(name)}{until_now} {sweep.best['value']:.1%}: {plain(point, 160)}.")
    if sweep.reason:
        st.error(plain(sweep.reason, 300), icon=":material/error:")
    for tuning in sweep.tunings[:5]:
        st.warning(plain(_without_some(tuning), 300), icon=":material/error:")
    failed = [cell for cell in sweep.cells if cell["state"] == "failed"]
    for cell in failed[:5]:
        st.warning(f"{plain(_point(cell), 160)}: {plain(str(cell['reason']), 300)}", icon=":material/error:")
    _render_moves(sweep)


def _state_said(sweep: SweepState) -> str:
    if sweep.reason:
        return "broke off; it goes on where it was"
    if sweep.state == "failed" and not any(cell["state"] == "failed" for cell in sweep.cells):
        return "is done, but some candidates of a tuning failed"
    return _SAYS.get(sweep.state, sweep.state)


def _render_moves(sweep: SweepState) -> None:
    from lab.sweeps import go_on_sweep, stop_sweep

    locked = not access.may_write()
    if sweep.state in _LIVE:
        is_early = sweep.state == "waiting"  # nobody would hear it
        if st.button(
            "Cancel",
            icon=":material/stop:",
            disabled=locked or is_early,
            help="It can be stopped as soon as it has begun." if is_early else None,
            key=f"sweep.stop-{sweep.id}",
        ):
            stop_sweep(sweep.id, readers.runs_folder())
            st.toast("It stops after the step that is under way; nothing of it is lost.")
    elif sweep.state != "finished" and st.button(
        "Go on", icon=":material/play_arrow:", disabled=locked, key=f"sweep.on-{sweep.id}"
    ):
        go_on_sweep(sweep.id, readers.runs_folder())
        st.rerun()


def _without_some(tuning: dict[str, Any]) -> str:
    """What is said of a point that was tuned without some of its candidates."""
    point = ", ".join(f"{_said(k)} {v}" for k, v in tuning["point"].items())
    return f"{point}{': ' if point else ''}{tuning['text']}"


def _point(cell: dict[str, Any]) -> str:
    return ", ".join([*(f"{_said(k)} {v}" for k, v in cell["point"].items()), f"seed {cell['seed']}"])


def _render_map(sweep: SweepState) -> None:
    """A heat map over the first two keys, cells without a result empty; with one key, or none, a table."""
    table = cells_table(sweep, readers.listing().table)
    axes = [key for key in sweep.asked.get("over", {}) if key in table and table[key].map(str).nunique() > 1]
    measures = [kind for kind in compare_figures.MEASURES if kind in table and table[kind].notna().any()]
    if not measures:
        st.caption("No cell is measured yet.")
        return
    value = compare_figures.pick("Measure", "sweep_v", measures, "excess_asr")
    if len(axes) >= 2:
        x, y = axes[1], axes[0]
    elif axes:
        x, y = axes[0], "arm" if "arm" in table else "seed"
    else:
        x, y = "seed", "arm" if "arm" in table else "preset"
        table["preset"] = "all"
    panels.figure_panel(
        f"{panels.MEANINGS[value][0].capitalize()} by {plain(_said(x))} and {plain(_said(y))}",
        panels.MEANINGS[value][1],
        lambda: _rate_map(table, x, y, value),
        key=f"sweep-map-{sweep.id}",
        table=table,
        reading="Cells fill as they finish; seeds of one cell are averaged.",
        of=(readers.digest(table.astype(str)), x, y, value),
    )
    waiting = sum(cell["state"] in ("waiting", "running") for cell in sweep.cells)
    if waiting:
        st.caption(f"{waiting} cells have no result yet.")


def cells_table(sweep: SweepState, listing: pd.DataFrame) -> pd.DataFrame:
    """A line per cell: its point and seed as asked, and the measures of its run where that is finished."""
    import pandas as pd

    lines = [
        {**cell["point"], "seed": cell["seed"], "run": cell["run"], "state": cell["state"]}
        for cell in sweep.cells
    ]
    cells = pd.DataFrame(lines, columns=None if lines else ["seed", "run", "state"])
    kinds = [
        column
        for column in listing
        if str(column).removesuffix(".n").removesuffix(".low").removesuffix(".high")
        in compare_figures.MEASURES
    ]
    if "id" not in listing:
        return cells
    return cells.merge(listing[["id", *kinds]].rename(columns={"id": "run"}), on="run", how="left")


def _rate_map(table: pd.DataFrame, x: str, y: str, value: str) -> Figure:
    from lab import figures

    return figures.rate_map(table, x=x, y=y, value=value)
