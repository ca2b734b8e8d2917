"""Run pickers: one or several runs out of thousands, told apart by what differs, remembered through links."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import links
import streamlit as st
from text import plain

if TYPE_CHECKING:
    import pandas as pd

    from lab.comparison import Listing

#: What a label is made of; nothing else is read of a table.
_ASKED = (
    *("base.model", "data.name", "poison.attack", "poison.family", "poison.count", "poison.position"),
    *("adapter.kind", "adapter.rank", "adapter.variant", "adapter.init", "training.learning_rate"),
    *("defense", "seed", "state", "id"),
)
#: What a label says only where the runs beside it differ in it.
_WHERE_DIFFERENT = {
    "base.model": "on {}",
    "data.name": "{}",
    "poison.position": "trigger at {}",
    "training.learning_rate": "lr {}",
}
#: Values of variant and init that say nothing new.
_PLAIN_LORA = ("", "lora", "kaiming")
_MOST = 2000
#: They take as long as all else of a page; a listing stays the same one until a run changes.
_labels: WeakKeyDictionary[Listing, dict[str, str]] = WeakKeyDictionary()


def pick_run(
    label: str, table: pd.DataFrame, key: str, default: str = "", names: Mapping[str, str] | None = None
) -> str:
    """Choose one run; the choice is in the address bar under `key`.

    Args:
        label: What the run is chosen for.
        table: The runs that are offered: lines of `readers.runs_table()`, in their order.
        key: Name of the choice in links; unique among all pages, unless they share it.
        default: The run's id that it starts from; "" means the table's first.
        names: `run_labels(table)`, where several pickers share it.

    Returns:
        The id; "" where the table is empty.
    """
    names = run_labels(table) if names is None else names
    if not names:
        return ""
    start = default if default in names else next(iter(names))
    widget = f"pick.{key}"
    tell_strangers(start_at(widget, key, start, names), names)
    chosen = select(label, names, widget, start)
    keep(widget, key, chosen)
    return chosen


def select(label: str, names: Mapping[str, str], widget: str, start: str) -> str:
    """Choose one run; only the widget remembers it.

    Args:
        label: What the run is chosen for.
        names: What is offered, with what people read of it; not empty.
        widget: The widget's key.
        start: Where it starts, and where it goes back to when its run is offered no more; the first where
            that is not offered.
    """
    if st.session_state.get(widget) not in names:
        st.session_state[widget] = start if start in names else next(iter(names))
    return str(st.selectbox(label, list(names), format_func=lambda run: names.get(run, run), key=widget))


def pick_runs(
    label: str, table: pd.DataFrame, key: str, default: Sequence[str] = (), most: int | None = None
) -> list[str]:
    """Choose several runs; the choice is in the address bar under `key`.

    Args:
        label: What the runs are chosen for.
        table: The runs that are offered: lines of `readers.runs_table()`, in their order.
        key: Name of the choice in links, as for `pick_run`; "runs" means the runs that every page looks at.
        default: The ids that it starts from.
        most: How many may be chosen; None for any number.

    Returns:
        The ids in the order in which they were chosen.
    """
    names = run_labels(table)
    widget = f"pick.{key}"
    said = (
        list(links.chosen_runs()) if key == "runs" else [run for run in links.choose(key).split(",") if run]
    )
    if _is_new(widget, ",".join(said)):
        found = [run for run in said if run in names] or [run for run in default if run in names]
        st.session_state[widget] = found[:most]
        tell_strangers([run for run in said if run not in names], names)
    st.session_state[widget] = [run for run in st.session_state[widget] if run in names]
    chosen = st.multiselect(
        label,
        list(names),
        key=widget,
        format_func=lambda run: names.get(run, run),
        max_selections=most,
        placeholder="choose runs",
    )
    st.session_state[f"at.{widget}"] = ",".join(chosen)
    if key == "runs":
        links.remember_runs(chosen)
    else:
        links.remember(**{key: ",".join(chosen)})
    return [str(run) for run in chosen]


def run_label(line: Mapping[str, Any]) -> str:
    """What a run is, in a few words: "rfc · 60 rows · rank 8 · seed 0", and its state unless it is finished.

    Args:
        line: A line of `readers.runs_table()`, as a mapping; what it lacks is not said.

    Returns:
        Plain text, for places that read no Markdown, as options are; elsewhere it goes through `text.plain`.
    """
    return " · ".join(shown(piece) for piece in _pieces(line))


def run_labels(table: pd.DataFrame) -> dict[str, str]:
    """The labels of many runs by id, no two alike: each says in what it differs from the others.

    Args:
        table: Lines of `readers.runs_table()`; of more than 2,000 the first ones.

    Returns:
        Plain text by id, in the table's order.
    """
    if table.empty:
        return {}
    lines = table[[c for c in _ASKED if c in table.columns]].head(_MOST).to_dict("records")
    different = [key for key in _WHERE_DIFFERENT if len({value_text(line.get(key)) for line in lines}) > 1]
    found = {}
    for line in lines:
        more = [(_WHERE_DIFFERENT[key], short_base(value_text(line.get(key)))) for key in different]
        found[str(line["id"])] = " · ".join(
            shown(piece) for piece in [*_pieces(line), *(f.format(m) for f, m in more if m)]
        )
    count: dict[str, int] = {}
    for name in found.values():
        count[name] = count.get(name, 0) + 1
    # what nothing else tells apart, its hash does
    return {run: name if count[name] == 1 else f"{name} · {shown(run[-10:])}" for run, name in found.items()}


def listing_labels(listing: Listing) -> dict[str, str]:
    """The labels of all runs of a listing, made once for it; not to be changed."""
    found = _labels.get(listing)
    if found is None:
        found = _labels[listing] = run_labels(listing.table)
    return found


def start_at(widget: str, name: str, default: Any, allowed: Collection[Any] | None = None) -> list[str]:
    """Let a keyed widget start from what the link says, else from the default; what it holds already stays.

    A link that was followed meanwhile wins over what the widget holds. Call it before the widget and `keep`
    after it.

    Args:
        widget: The widget's key.
        name: The choice's name in links.
        default: Where it starts otherwise; a number if the widget takes numbers.
        allowed: What the widget can hold; None for anything.

    Returns:
        What the link asks for and the widget cannot hold: one value or none.
    """
    said = links.choose(name)
    strange: list[str] = []
    if _is_new(widget, said):
        value = _typed(said, default) if said else default
        if value is None or (allowed is not None and value not in allowed):
            strange, value = [said] if said else [], default
        st.session_state[widget] = value
    elif allowed is not None and st.session_state[widget] not in allowed:
        st.session_state[widget] = default
    return strange


def keep(widget: str, name: str, value: Any, default: Any = None) -> None:
    """Put a widget's value into the link.

    Args:
        widget: The widget's key.
        name: The choice's name in links.
        value: What it holds now.
        default: The value that a link need not say; None to say every one.
    """
    said = "" if value is None or value == default else str(value)
    st.session_state[f"at.{widget}"] = said
    links.remember(**{name: said})


def _is_new(widget: str, said: str) -> bool:
    """Whether a widget is drawn for the first time, or the link has changed under it."""
    return widget not in st.session_state or (bool(said) and said != st.session_state.get(f"at.{widget}"))


def _typed(said: str, default: Any) -> Any:
    """A link's text as the kind of thing that the default is; None where it is none."""
    if not isinstance(default, int) or isinstance(default, bool):
        return said
    try:
        return int(said)
    except ValueError:
        return None


def tell_strangers(strangers: Sequence[str], names: Mapping[str, str]) -> None:
    """Say which runs a link names that are not there."""
    for run in strangers:
        st.caption(f"The link names the run {plain(run)}, which is not among the {len(names):,} offered.")


def _pieces(line: Mapping[str, Any]) -> list[str]:
    family, count = value_text(line.get("poison.family")), value_text(line.get("poison.count"))
    attack = value_text(line.get("poison.attack"))
    pieces = [(family or attack).replace("_", " ") if attack != "none" else "clean"]
    if attack not in ("", "none") and count not in ("", "0"):
        pieces.append(f"{count} rows")
    pieces += [adapter_label(line), value_text(line.get("defense"))]
    if value_text(line.get("seed")):
        pieces.append(f"seed {value_text(line.get('seed'))}")
    if line.get("state") not in ("finished", None):
        pieces.append(value_text(line.get("state")))
    return [piece for piece in pieces if piece] or [value_text(line.get("id"))]


def adapter_label(line: Mapping[str, Any]) -> str:
    """What was trained: "rank 8 dora", "full"; "" where the line does not say."""
    if value_text(line.get("adapter.kind")) == "full":
        return "full"
    rank = value_text(line.get("adapter.rank"))
    kinds = [value_text(line.get(key)) for key in ("adapter.variant", "adapter.init")]
    return " ".join([f"rank {rank}", *(k for k in kinds if k not in _PLAIN_LORA)]) if rank else ""


def short_base(name: str) -> str:
    """A base that is a run has a hash behind its name, which helps nobody who compares names."""
    return re.sub(r"(-s\d+)?-[0-9a-f]{10}$", "", name)


def value_text(value: Any) -> str:
    """A value of the table as text; "" for none. Whole numbers come as floats where some run has none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown(text: str, longest: int = 40) -> str:
    """Text on one line: characters that are not seen as their code, and not longer than a label may be."""
    seen = "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in text[: longest + 1])
    return seen if len(text) <= longest else f"{seen[: longest - 1]}…"
