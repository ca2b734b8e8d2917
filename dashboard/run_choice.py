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
    listing = readers.listing()
    if not len(listing):
        panels.nothing("There is no run yet.", "Train one on the Bench; it can be looked at while it trains.")
        return []
    names = pickers.listing_labels(listing)
    before = links.chosen_runs()
    pickers.tell_strangers([name for name in before if name not in names], names)
    known = [name for name in before if name in names] or [_first(listing.table)]
    left, right = st.columns(2)
    with left:
        first = pickers.select("Run A", names, f"{key}.a", known[0])
    with right:
        others = {_NONE: "none", **{name: label for name, label in names.items() if name != first}}
        beside = known[1] if len(known) > 1 else _NONE
        second = pickers.select("Run B, beside it", others, f"{key}.b.{first}", beside)
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
