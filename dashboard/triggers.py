"""Triggers: what else fires a backdoor, how near is near, and a place to try any text."""

from __future__ import annotations

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
    from plotly.graph_objects import Figure

_SECTIONS = {"matrix": "Matrix", "ladders": "Near-misses", "playground": "Playground"}

_LADDER = (
    "Attack success of strings ever less like the trigger, on rows whose true label is not the target. "
    "The small mark is the clean twin on the same rows: the text's own pull."
)
_PLACES = {
    "start": "at the start of the text",
    "end": "at the end of the text",
    "random": "at a random place",
    "sentences": "after sentences",
}
#: A matrix of 27 families cannot be squeezed into a telephone, nor can a text's tokens: they scroll sideways.
_CSS = """
<style>
:is(.st-key-panel-matrix, .st-key-panel-attention) {overflow-x: auto;}
.st-key-matrix {min-width: 60rem;} .st-key-attention {min-width: 44rem;}
</style>
"""
#: Runs that are looked through for a ladder, so that a store of thousands opens at once.
_LOOKED_AT = 12


def main() -> None:
    """Draw the page."""
    st.html(_CSS)
    st.markdown("# What fires the backdoor, and what does not")
    with panels.part("The list of runs"):
        table = readers.runs_table()
        poisoned = poisoned_runs(table)
        if poisoned.empty:
            _render_none(table)
            return
        section = switch("What to look at", "triggers", _SECTIONS, "matrix", hidden=True)
        with panels.part(_SECTIONS[section]):
            if section == "matrix":
                import trigger_matrix

                trigger_matrix.render(poisoned)
            elif section == "ladders":
                _render_ladders(poisoned)
            else:
                import playground

                playground.render(poisoned)
        _render_others(table)


def poisoned_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Finished runs that were measured with a trigger: their own, or that of the base they start from."""
    if table.empty or "poison.attack" not in table.columns:
        return table.head(0)
    own = table["poison.attack"].fillna("none") != "none"
    if "attack_success_rate" in table.columns:
        own |= table["attack_success_rate"].notna()
    return table[(table["state"] == "finished") & own]


def _render_none(table: pd.DataFrame) -> None:
    others = table["state"].value_counts() if len(table) else {}
    if len(table):
        said = ", ".join(f"{count} {plain(state)}" for state, count in others.items())
        panels.nothing(
            "There is no finished run with a trigger yet.", f"The store holds {len(table):,} runs: {said}."
        )
    else:
        panels.nothing("There is no run yet.", "Plant a backdoor on the Bench; it takes about two minutes.")
    if st.button("To the Bench", icon=":material/science:"):
        st.switch_page("bench.py")


def _render_others(table: pd.DataFrame) -> None:
    """What of the store this page cannot use, and why."""
    rest = table[table["state"] != "finished"]["state"].value_counts()
    if not len(rest):
        return
    broken = int(rest.get("corrupt", 0))
    said = ", ".join(f"{count:,} {plain(state)}" for state, count in rest.items())
    more = " What cannot be read is left alone; Compare names it." if broken else ""
    st.caption(f"Only finished runs are shown; {int(rest.sum()):,} are not: {said}.{more}")


def _render_ladders(table: pd.DataFrame) -> None:
    """Two runs' ladders side by side, one where there is one."""
    chosen = [run for run in links.chosen_runs() if run in set(table["id"])]
    newest = chosen[:2] if len(chosen) > 1 else [*chosen, *_with_ladders(table, 2, chosen)][:2]
    if not newest:
        panels.nothing(
            "None of the newest runs has a near-miss ladder.",
            "A run has one when its trigger is a member of a family and probe.rows_per_rung is above 0.",
        )
    newest = newest or [str(table["id"].iloc[0])]
    names = pickers.run_labels(table)
    places = st.columns(2, gap="medium") if len(table) > 1 else [st.container()]
    sides = (("left", "Run", newest[0]), ("right", "Beside it", newest[-1]))
    figures: list[tuple[str, Figure | None, str]] = []
    for place, (key, label, default) in zip(places, sides, strict=False):
        with place:
            # beside a run stands another one, unless a person wants it twice
            other = next((run for run in newest if run not in {run for run, *_ in figures}), default)
            run = pickers.pick_run(label, table, key, other, names)
            figures.append((run, *_ladder(run)))
    for place, side, (run, figure, why) in zip(places, sides, figures, strict=False):
        with place:
            if figure is None:
                panels.nothing("This run has no near-miss ladder.", plain(why, 400))
                continue
            measures = readers.try_table(readers.open_run(run), "measures")  # type: ignore[arg-type]
            panels.figure_panel(
                f"Near-misses of {_trigger(run)}",
                _LADDER,
                lambda figure=figure: figure,
                key=f"ladder-{side[0]}",
                table=None if measures is None else measures[measures["condition"] == "rung"],
                reading=f"{plain(names.get(run, run), 120)}. {_place_said(run)}",
            )


def _with_ladders(table: pd.DataFrame, count: int, but: list[str]) -> list[str]:
    """The newest runs that have a ladder, at most so many."""
    found: list[str] = []
    for name in [str(name) for name in table["id"].head(_LOOKED_AT) if name not in but]:
        run = readers.open_run(name)
        if len(found) < count and run is not None and _has_ladder(name, readers.stamp(run)):
            found.append(name)
    return found


@st.cache_data(show_spinner=False, max_entries=500)
def _has_ladder(name: str, of: readers.Stamp) -> bool:
    return _ladder(name)[0] is not None


def _ladder(name: str) -> tuple[Figure | None, str]:
    """A run's ladder; None and why where there is none."""
    from lab import figures

    run = readers.open_run(name)
    try:
        if run is None:
            raise LabError("It is not in this store any more.")
        measures = readers.table(run, "measures")
        rungs = measures[measures["condition"] == "rung"]
        if rungs.empty:
            return None, "No near-miss of its trigger was probed."
        return figures.near_miss_ladder(rungs), ""
    except LabError as error:
        return None, str(error)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"Its measures cannot be read ({type(error).__name__})."


def _trigger(name: str) -> str:
    """The trigger in quotes, for a title."""
    member = str(getattr(_poison(name), "member", ""))
    return f"“{plain(member, 36)}”" if member not in ("", "any") else "its triggers"


def _place_said(name: str) -> str:
    """Where the trigger was planted; "" where it cannot be said."""
    place = _PLACES.get(str(getattr(_poison(name), "position", "")), "")
    return f"Planted {place}." if place else ""


def _poison(name: str) -> Any:
    run = readers.open_run(name)
    try:
        return run.measured_poison if run else None
    except (LabError, KeyError, TypeError):
        return None


main()
