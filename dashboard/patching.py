"""Where a backdoor sits: parts of a run's model and of its clean twin's exchanged, and both asked again.

A map takes from seconds to minutes, so nothing is loaded before a button is pressed. It is asked row by row:
what is known stays known when the page is left, and other sessions get their turn in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import models
import panels
import readers
import run_choice
import streamlit as st
from widgets import on_demand, switch

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe import PatchedPair
    from lab.record import Run

_ROWS = {"30": "30", "60": "60", "100": "100"}
_WIDTHS = {"0": "by depth", "1": "1", "2": "2", "4": "4"}
#: Beyond so many layers windows lie side by side, and no longer overlap: each costs a question to the model.
_OVERLAP_UP_TO = 12
_METHODS = {"activations": "Exchange activations", "weights": "Exchange weights"}
_TITLES = {
    "activations": "Where the backdoor passes: activations exchanged with the clean twin's",
    "weights": "Where the backdoor is written: weights exchanged with the clean twin's",
}
_HELP = {
    "activations": "Asks a model once per cell; sees what passes through a part.",
    "weights": "Asks a model once per cell; sees what the matrices of a part do themselves.",
}
_EFFECT = (
    "0 means that the patched model reaches the target as often as the clean twin, 1 as often as the "
    "poisoned model. In the upper map a low value says that the backdoor needs this part; in the lower one a "
    "high value says that this part alone brings it. "
)
_MEANINGS = {
    "activations": _EFFECT
    + "What the modules give out is replaced at every token, so an effect can lie behind the place where the "
    "weights differ. Each model keeps its own classifier head.",
    "weights": _EFFECT
    + "Only the matrices named are exchanged, so an effect lies where the weights differ. Matrices that were "
    "not trained show none.",
}


def render(runs: Sequence[Run]) -> None:
    """Draw the section for one of the chosen runs."""
    run = runs[0]
    if len(runs) > 1:
        letters = dict(zip(run_choice.LETTERS, runs, strict=False))
        names = {letter: f"Run {letter}" for letter in letters}
        run = letters[switch("Look into", "where.run", names, run_choice.LETTERS[0])]
    st.caption(
        "Parts of the model are exchanged with its clean twin's, and the same triggered **validation rows** "
        "are asked again. The runs on disk stay as they are."
    )
    st.fragment(_render_maps)(run)


def _render_maps(run: Run) -> None:
    with panels.part("Where it sits"):
        if run.twin is None:
            panels.nothing(
                "This run has no clean twin to exchange parts with.",
                "Take a poisoned run that was trained with its twin.",
            )
            return
        left, right = st.columns(2)
        with left:
            rows = int(switch("Triggered rows to ask", "where.rows", _ROWS, "30"))
        with right:
            width = int(switch("Layers in a window", "where.width", _WIDTHS, "0"))
        shown = on_demand("where.shown", _METHODS, icon=":material/swap_horiz:", help=_HELP)
        for method in shown:
            with panels.part("The map"):
                _render_map(run, method, rows, width)


def _render_map(run: Run, method: str, rows: int, width: int) -> None:
    from lab.figures import patching_map

    pair = models.patched_pair(run.id, rows)
    table = _ask(run, pair, method, rows, width)
    panels.figure_panel(
        _TITLES[method],
        _MEANINGS[method],
        lambda: patching_map(table),
        key=f"where-{method}-{run.id}",
        table=table,
        reading=f"On {pair.texts} triggered validation rows; point at a cell for its rate and interval.",
    )


def _ask(run: Run, pair: PatchedPair, method: str, rows: int, width: int) -> pd.DataFrame:
    """The table of a whole map, row by row of it."""
    import pandas as pd

    from lab.probe.patching import DIRECTIONS

    asked = [(direction, name) for direction in DIRECTIONS for name in pair.rows(method)]
    parts, bar = [], st.progress(0.0, "Asking the models …")
    try:
        for number, (direction, name) in enumerate(asked):
            bar.progress(number / len(asked), f"{name}, {direction} …")
            with models.at_work():
                parts.append(_line(run.id, readers.stamp(run), method, direction, name, rows, width, pair))
    finally:
        bar.empty()
    # each row of the map brings the line of the unpatched model along
    return pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)


@st.cache_data(show_spinner=False, max_entries=1000)
def _line(
    name: str,
    of: readers.Stamp,
    method: str,
    direction: str,
    projection: str,
    rows: int,
    width: int,
    _pair: PatchedPair,
) -> pd.DataFrame:
    from lab.probe.patching import default_width

    layers = len(_pair.layers)
    stride = 1 if layers <= _OVERLAP_UP_TO else width or default_width(layers)
    return _pair.table(method, projections=[projection], directions=[direction], width=width, stride=stride)
