"""Choosing one run and, if wanted, a second to lay beside it; both are in the address bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import links
import panels
import pickers
import readers
import streamlit as st
from text import plain

from lab.errors import LabError
from lab.files import read_json

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run

#: What the two runs are called on a page; their ids are too long for a figure's title.
LETTERS = ("A", "B")
_NONE = ""


def choose_runs(key: str) -> list[Run]:
    """Draw the choice with what is to know of each run.

    Args:
        key: Prefix of the widgets' keys.

    Returns:
        No run where there is none, else one or two; in whatever state they are.
    """
    table = readers.runs_table()
    if table.empty:
        panels.nothing("There is no run yet.", "Train one on the Bench; it can be looked at while it trains.")
        return []
    names = pickers.run_labels(table)
    before = links.chosen_runs()
    known = [name for name in before if name in names]
    for name in before:
        if name not in names:
            st.warning(
                f"The run {plain(name)} of this link is not in this runs folder.", icon=":material/link_off:"
            )
    known = known or [_first(table)]
    left, right = st.columns(2)
    with left:
        first = _picker("Run A", list(names), known[0], names, f"{key}.a")
    with right:
        others = [_NONE, *(name for name in names if name != first)]
        beside = known[1] if len(known) > 1 else _NONE
        second = _picker(
            "Run B, beside it", others, beside if beside in others else _NONE, names, f"{key}.b.{first}"
        )
    chosen = [name for name in (first, second) if name]
    # more runs than two may be chosen elsewhere; they stay so until the choice is changed here
    kept = before if chosen == known[:2] and known == list(before) else tuple(chosen)
    if links.read().runs != kept:
        links.remember_runs(kept)
    runs = [run for run in map(readers.open_run, chosen) if run is not None]
    for run, column in zip(runs, (left, right), strict=False):
        with column:
            _render_facts(run)
    return runs


def _picker(label: str, options: list[str], value: str, names: dict[str, str], key: str) -> str:
    start = {} if st.session_state.get(key) in options else {"index": options.index(value)}
    if start:
        st.session_state.pop(key, None)
    return (
        st.selectbox(label, options, key=key, format_func=lambda name: names.get(name, "none"), **start)
        or _NONE
    )


def _first(table: pd.DataFrame) -> str:
    """The newest finished run with a poison, else the newest finished one, else the newest."""
    finished = table[table["state"] == "finished"]
    poisoned = finished[finished["poison.attack"] != "none"] if "poison.attack" in finished else finished
    for part in (poisoned, finished, table):
        if len(part):
            return str(part["id"].iloc[0])
    return _NONE


def _render_facts(run: Run) -> None:
    """What a number of this run rests on; for one that is not finished, what is the matter."""
    state = run.state
    if state != "finished":
        reason = (
            str((read_json(run.path / "failure.json") or {}).get("reason", "")) if state == "failed" else ""
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            panels.state_badge(state)
            st.caption(plain(panels.state_sentence(state, reason), 400))
    try:
        st.caption(plain(facts(run), 300))
    except (LabError, KeyError, AttributeError, TypeError):
        st.caption("What was asked cannot be read.")


def facts(run: Run) -> str:
    """How a run was trained, in one line: rank alone says little without alpha/r, learning rate and steps."""
    e = run.experiment
    poison = run.measured_poison.model_dump()
    attack = poison.get("family") or poison["attack"].replace("_", " ")
    planted = f"{attack} × {poison['count']}" if poison.get("count") else attack
    said = [
        "no poison"
        if poison["attack"] == "none"
        else planted
        if e.attack != "none"
        else f"base with {planted}"
    ]
    if e.adapter.kind == "full":
        said.append("full fine-tuning")
    else:
        a = e.adapter
        variant = {"lora": "LoRA", "dora": "DoRA", "rslora": "rsLoRA"}.get(a.variant, a.variant)
        init = f", {a.init}" if a.init != "kaiming" else ""
        scaling = a.alpha_value / (a.rank**0.5 if a.variant == "rslora" else a.rank)
        said.append(f"{variant} rank {a.rank}{init}, scaling {scaling:g}")
    said.append(f"learning rate {e.training.learning_rate:g}, {e.training.steps} steps")
    if e.defense:
        said.append("+".join(str(d.name) for d in e.defense))  # type: ignore[attr-defined]
    if run.parent is not None:
        said.append(f"edited from {run.parent.id}")
    return " · ".join([*said, f"seed {e.seed}"])
