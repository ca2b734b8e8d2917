"""Widgets whose choice is in the address bar, unless it is the default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import links
import pickers
import streamlit as st


def switch(label: str, name: str, options: Mapping[str, str], default: str, *, hidden: bool = False) -> str:
    """One of a few choices, side by side.

    Args:
        label: What is chosen.
        name: The choice's name in links.
        options: What people read, by what is remembered.
        default: Where it starts.
        hidden: Whether the label is for screen readers only.
    """
    widget = f"switch.{name}"
    pickers.start_at(widget, name, default, options)
    chosen = st.segmented_control(
        label,
        list(options),
        key=widget,
        format_func=options.__getitem__,
        label_visibility="collapsed" if hidden else "visible",
        required=True,
    )
    pickers.keep(widget, name, chosen, default)
    return str(chosen)


def one_of(
    label: str, name: str, options: Sequence[Any], default: Any, said: Callable[[Any], str] = str, **more: Any
) -> Any:
    """One of a list.

    Args:
        label: What is chosen.
        name: The choice's name in links.
        options: What can be chosen, at least one; all text or all numbers.
        default: Where it starts; one of them.
        said: What people read of an option.
        **more: Further properties of the widget, such as `help`.
    """
    widget = f"one.{name}"
    pickers.start_at(widget, name, default, options)
    chosen = st.selectbox(label, options, key=widget, format_func=said, **more)
    pickers.keep(widget, name, chosen, default)
    return chosen


def several(label: str, name: str, options: Sequence[str], said: Callable[[str], str] = str) -> list[str]:
    """Any number of choices; none stands for all.

    Args:
        label: What is chosen.
        name: The choice's name in links.
        options: What can be chosen.
        said: What people read of an option.
    """
    widget = f"several.{name}"
    held = st.session_state.get(widget, links.choose(name).split(","))
    st.session_state[widget] = [option for option in held if option in options]
    chosen = st.multiselect(label, options, key=widget, format_func=said, placeholder="all")
    links.remember(**{name: ",".join(chosen)})
    return list(chosen)


def on_demand(name: str, titles: Mapping[str, str], *, icon: str, help: Mapping[str, str]) -> list[str]:
    """Buttons for what takes long and is not there yet.

    Args:
        name: The name in links of what was asked for.
        titles: What people read, by what is remembered.
        icon: Of every button.
        help: What each one does, by what is remembered.

    Returns:
        What was asked for so far, in that order.
    """
    shown = [one for one in links.choose(name).split(",") if one in titles]
    with st.container(horizontal=True):
        for one in [one for one in titles if one not in shown]:
            st.button(
                titles[one],
                key=f"demand.{name}.{one}",
                icon=icon,
                help=help[one],
                on_click=links.remember,
                kwargs={name: ",".join([*shown, one])},
            )
    return shown
