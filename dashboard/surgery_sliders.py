"""The sliders of the operating table: which components of ΔW, how strong, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import links
import moves as move_texts
import pickers
import streamlit as st
from moves import Sliders

if TYPE_CHECKING:
    from lab.surgery import Surgery

#: From nothing over the trained scale to far beyond what rescaling reaches.
_SCALES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
_GROUPS = {
    "all-linear": "every adapted matrix",
    "attention": "attention",
    "mlp": "mlp",
    "query-value": "query and value",
}
_CHOICES = ("surgery.cut", "surgery.scale", "surgery.off", "surgery.where")


def render(opened: Surgery) -> Sliders:
    """Draw them for a run as it was opened, and keep where they stand in the link."""
    updates = opened.weights.updates
    # DoRA's components are those of the part that factors
    count = min(int(getattr(update, "inner", update).rank_bound) for update in updates.values())
    spots = move_texts.places(list(updates))
    # widgets keep what they hold under their key: a new turn makes new ones
    turn = f"{opened.run.id}.{count}.{st.session_state.get('surgery.turn', 0)}"
    drops, first, last = _components(count, turn)
    factor = _scale(turn)
    off = _off(spots, turn)
    where = _where(list(spots), turn)
    sliders = Sliders(
        count=count,
        first=first,
        last=last,
        drops=drops,
        factor=factor,
        where=where if where in _GROUPS else spots[where],
        off=tuple(dict.fromkeys(name for spot in off for name in spots[spot])),
    )
    links.remember(**{"surgery.cut": move_texts.cut_text(sliders)})
    return sliders


def reset() -> None:
    """Put them back to where they change nothing, at the next draw."""
    links.remember(**dict.fromkeys(_CHOICES, ""))
    st.session_state["surgery.turn"] = st.session_state.get("surgery.turn", 0) + 1


def _components(count: int, turn: str) -> tuple[bool, int, int]:
    """Keep or drop, and the range of components."""
    drops, first, last = move_texts.read_cut(links.choose("surgery.cut"), count)
    ways = {"keep": "Keep only", "drop": "Drop"}
    st.session_state.setdefault(f"way.{turn}", "drop" if drops else "keep")
    way = st.segmented_control(
        "Singular components of ΔW",
        list(ways),
        key=f"way.{turn}",
        format_func=ways.__getitem__,
        required=True,
        help="Component 0 is the direction that training changed most.",
    )
    if count < 2:
        return way == "drop", 0, 0
    if drops != (way == "drop"):
        # turning to "drop" begins with the largest alone, and not with everything
        first, last = 0, 0 if way == "drop" else count - 1
    st.session_state.setdefault(f"cut.{way}.{turn}", (first, last))
    low, high = st.slider(
        f"Components from 0, the largest, to {count - 1}", 0, count - 1, key=f"cut.{way}.{turn}"
    )
    return way == "drop", int(low), int(high)


def _scale(turn: str) -> float:
    st.session_state.setdefault(f"scale.{turn}", _closest(links.choose("surgery.scale")))
    factor = st.select_slider(
        "Scale of ΔW",
        _SCALES,
        key=f"scale.{turn}",
        format_func=lambda scale: f"× {scale:g}",
        help="1 is as trained, 0 takes the update away, above 1 exaggerates it.",
    )
    pickers.keep(f"scale.{turn}", "surgery.scale", f"{factor:g}", "1")
    return float(factor)


def _off(spots: dict[str, tuple[str, ...]], turn: str) -> list[str]:
    held = [name for name in links.choose("surgery.off").split(",") if name in spots]
    st.session_state.setdefault(f"off.{turn}", held)
    off = st.multiselect(
        "Take the update away from",
        list(spots),
        key=f"off.{turn}",
        placeholder="nothing",
        help="Kinds of matrix, and whole layers.",
    )
    links.remember(**{"surgery.off": ",".join(off)})
    return list(off)


def _where(spots: list[str], turn: str) -> str:
    options = [*_GROUPS, *spots]
    held = links.choose("surgery.where")
    st.session_state.setdefault(f"where.{turn}", held if held in options else options[0])
    where = st.selectbox(
        "Cut and scale only",
        options,
        key=f"where.{turn}",
        format_func=lambda name: _GROUPS.get(name, name),
    )
    pickers.keep(f"where.{turn}", "surgery.where", where, options[0])
    return str(where)


def _closest(text: str) -> float:
    """A slider's place for a scale of a link; 1 for what is no number."""
    try:
        wanted = float(text)
    except ValueError:
        return 1.0
    return min(_SCALES, key=lambda scale: abs(scale - wanted))
