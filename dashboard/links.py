"""The whole choice in the address bar: the only place that reads or writes query parameters.

`?runs=a,b&preset=p&set=adapter.rank%3D4&…`: runs that are looked at, a preset and what is changed of it (as
`lab run --set` takes it), and each page's own choices under names of their own. A link comes from anywhere,
so whatever cannot be understood is left out and never raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lab.assignments import format_assignments
from lab.errors import LabError
from lab.experiment import parse_assignments

_RESERVED = ("runs", "preset", "set")
#: Longer addresses are cut by proxies and chat programs.
_LONGEST = 4000
_MOST_RUNS = 24


@dataclass(frozen=True)
class Link:
    """What a link says.

    Attributes:
        runs: Ids of the runs that are looked at.
        preset: The preset that the Bench starts from.
        changes: Dotted keys that differ from the preset, with their values.
        view: A page's own choices, as text.
    """

    runs: tuple[str, ...] = ()
    preset: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    view: Mapping[str, str] = field(default_factory=dict)


def to_params(link: Link) -> dict[str, str | list[str]]:
    """A link as query parameters; what says nothing is left out."""
    params: dict[str, str | list[str]] = {}
    if link.runs:
        params["runs"] = ",".join(link.runs)
    if link.preset:
        params["preset"] = link.preset
    if link.changes:
        params["set"] = format_assignments(link.changes)
    params |= {key: value for key, value in link.view.items() if value and key not in _RESERVED}
    return params


def from_params(params: Mapping[str, Sequence[str]]) -> Link:
    """The link of query parameters; the inverse of `to_params`, and deaf to what makes no sense.

    Args:
        params: Every value of every parameter.
    """
    last = {key: values[-1] for key, values in params.items() if values}
    runs = (name.strip() for name in last.get("runs", "").split(","))
    changes: dict[str, Any] = {}
    for piece in params.get("set", ()):
        try:
            changes |= parse_assignments([piece])
        except LabError:
            continue
    view = {key: value for key, value in last.items() if key not in _RESERVED and len(value) < _LONGEST}
    return Link(
        runs=tuple(dict.fromkeys(name for name in runs if _is_id(name)))[:_MOST_RUNS],
        preset=last.get("preset", ""),
        changes=changes,
        view={key: value for key, value in view.items() if value},
    )


def _is_id(name: str) -> bool:
    """Whether this can be the name of a run's folder, and no path that leads out of the runs folder."""
    return bool(name) and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)


def read() -> Link:
    """What the address bar says now."""
    import streamlit as st

    return from_params({key: st.query_params.get_all(key) for key in st.query_params})


def write(link: Link) -> None:
    """Put a choice into the address bar, if it is not there already."""
    import streamlit as st

    wanted = to_params(link)
    present = {key: st.query_params.get_all(key) for key in st.query_params}
    if present != {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}:
        st.query_params.from_dict(wanted)


def choose(key: str, default: str = "") -> str:
    """What a page's own choice is: the address bar's, else what this session chose last, else the default."""
    import streamlit as st

    return read().view.get(key) or str(st.session_state.get(f"chosen.{key}", default))


def remember(**choices: str) -> None:
    """Keep a page's own choices for this session and in the address bar; "" forgets one."""
    import streamlit as st

    link = read()
    for key, value in choices.items():
        st.session_state[f"chosen.{key}"] = value
    write(replace(link, view={**link.view, **choices}))


def chosen_runs() -> tuple[str, ...]:
    """The runs that are looked at: the address bar's, else those this session looked at last."""
    import streamlit as st

    return read().runs or tuple(st.session_state.get("chosen_runs", ()))


def remember_runs(runs: Sequence[str]) -> None:
    """Keep the runs that are looked at, for this session and in the address bar."""
    import streamlit as st

    st.session_state["chosen_runs"] = tuple(runs)
    write(replace(read(), runs=tuple(runs)))
