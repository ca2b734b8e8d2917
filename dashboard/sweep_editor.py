"""A grid of settings, put together and started as a sweep."""

from __future__ import annotations

import math
from typing import Any

import access
import links
import live
import panels
import readers
import streamlit as st
from text import plain

from lab.errors import LabError

#: What is swept most often, with values that show something on two cores.
_AXES = {
    "adapter.rank": "1, 4, 16, 64",
    "poison.count": "10, 20, 40, 80",
    "adapter.alpha": "8, 16, 32",
    "adapter.init_variance": "0.0001, 0.333, 2.0",
    "training.learning_rate": "0.0003, 0.001, 0.003",
    "training.epochs": "1, 2, 4",
    "data.rows": "400, 800, 1600",
    "poison.rate": "0.1, 0.2, 0.3, 0.4",
    "poison.text_proportion": "0.05, 0.1, 0.25, 1.0",
    "poison.family": "rfc, iso, rare_words",
    "poison.position": "start, random, end",
}
_NONE = ""
#: A page starts no more cells than a night has time for; the command line does.
_MOST_CELLS = 500


def render() -> None:
    """Draw the editor; where *Start* is pressed, the sweep begins in a process of its own."""
    from lab.presets import preset_names

    names = preset_names()
    first, second = st.columns([0.6, 0.4], vertical_alignment="bottom")
    start = names.index("rfc-citation")
    preset = first.selectbox("Every cell starts from", names, index=start, key="sweep.preset")
    seeds = second.number_input(
        "Seeds", 1, 20, 3, key="sweep.seeds", help="0, 1, … for every point of the grid."
    )
    over = {**_axis("First axis", "x", "adapter.rank"), **_axis("Second axis", "y", "poison.count")}
    quick = st.toggle(
        "headline only",
        value=True,
        key="sweep.quick",
        help="Leaves out families and near-misses, which take longer than the training.",
    )
    asked = {"probe.scope": "headline", "probe.snapshots": 0} if quick else {}
    with panels.part("What it takes"):
        _render_start(str(preset), asked, over, int(seeds))


def _axis(label: str, name: str, default: str) -> dict[str, list[Any]]:
    """A key and its values; {} for no axis."""
    from lab.run_settings import column_name

    left, right = st.columns([0.4, 0.6], vertical_alignment="bottom")
    options = [_NONE, *_AXES]
    key = left.selectbox(
        label,
        options,
        index=options.index(default),
        key=f"sweep.{name}.key",
        format_func=lambda k: column_name(k).capitalize() if k else "none",
    )
    if not key:
        return {}
    text = right.text_input("Values, with commas", _AXES[key], key=f"sweep.{name}.{key}", max_chars=300)
    return {str(key): values_of(text, str(key))}


def values_of(text: str, key: str) -> list[Any]:
    """Values with commas between them, as the command line reads them; words need no quotes."""
    from lab.experiment import parse_value

    return [parse_value(piece.strip(), key) for piece in text.split(",") if piece.strip()]


def _render_start(preset: str, asked: dict[str, Any], over: dict[str, list[Any]], seeds: int) -> None:
    from lab.estimates import estimate_seconds
    from lab.presets import load_experiment
    from lab.sweeps import grid_points, start_sweep

    experiment = load_experiment(preset).with_(**asked)
    cells = math.prod(len(values) for values in over.values()) * seeds
    if not all(over.values()):
        raise LabError("An axis has no value; write some with commas between them, or choose no axis.")
    if cells > _MOST_CELLS:
        raise LabError(f"The grid has {cells:,} cells; this page starts {_MOST_CELLS} at most.")
    for point in grid_points(over):  # a value that no cell could have is told before anything is started
        experiment.with_(**point)
    estimate = estimate_seconds(experiment, readers.runs_folder())
    st.caption(
        f"{cells} cells, each with its clean twin unless another cell shares it: at most about "
        f"{live.minutes(cells * estimate.seconds)} on this machine, {plain(estimate.basis, 160)}. What is "
        f"finished already is read."
    )
    if st.button(
        "Start the sweep",
        type="primary",
        icon=":material/grid_on:",
        disabled=not access.may_write(),
        key="sweep.start",
    ):
        sweep = start_sweep(experiment, over, seeds=seeds, runs=readers.runs_folder())
        links.remember(sweep=sweep)
        st.rerun()
