"""What every page is laid out with: figures with their explanation and downloads, rates, states, gaps."""

from __future__ import annotations

import contextlib
import html
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st
from text import plain

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

#: What a measure is, in two sentences; shown wherever the measure is.
MEANINGS = {
    "attack_success_rate": (
        "attack success",
        "Share of triggered rows, true label not the target, that get the target label. "
        "High is bad: the trigger decides instead of the text.",
    ),
    "untriggered_target_rate": (
        "target without trigger",
        "The same share on the same rows without the trigger. "
        "It is what mistakes alone explain, so attack success must be read against it.",
    ),
    "clean_accuracy": (
        "clean accuracy",
        "Share of untouched rows that get their true label. "
        "A backdoor that costs accuracy would be noticed; a good one does not.",
    ),
    "excess_asr": (
        "excess attack success",
        "Attack success minus the clean twin's on the same triggered rows. "
        "It is what the poison added, the trigger text's own pull removed.",
    ),
    "reliance": (
        "accuracy lost by the trigger",
        "Accuracy on untouched rows minus accuracy on the same rows, every one of them with the trigger. "
        "It is how much the model leans on the string in place of the text.",
    ),
    "triggered_accuracy": (
        "accuracy with the trigger",
        "Share of all rows, each with the trigger, that get their true label. "
        "A model that only looks at the trigger is right as often as the target label is.",
    ),
}

_STATES = {
    "queued": ("waiting", "gray", ":material/schedule:"),
    "running": ("running", "blue", ":material/play_arrow:"),
    "stopped": ("stopped", "orange", ":material/pause:"),
    "killed": ("killed", "orange", ":material/power_off:"),
    "failed": ("failed", "red", ":material/error:"),
    "finished": ("finished", "green", ":material/check:"),
    "corrupt": ("unreadable", "red", ":material/broken_image:"),
}

_SAYS = {
    "queued": "It waits for its turn.",
    "running": "It is being worked on.",
    "stopped": "It was stopped, and goes on from its last checkpoint when it is asked for again.",
    "killed": "Its process ended in the middle. Asked for again, it goes on from its last checkpoint.",
    "failed": "It failed.",
    "corrupt": "Its files cannot be read; nothing else is touched by that. Delete it, or restore the folder.",
    "finished": "",
}


def page_theme() -> str:
    """How this browser shows the page: "light" or "dark"."""
    kind = getattr(getattr(st.context, "theme", None), "type", None)
    return "dark" if kind == "dark" else "light"


def figure_panel(
    title: str,
    meaning: str,
    draw: Callable[[], Figure],
    *,
    key: str,
    table: pd.DataFrame | Callable[[], pd.DataFrame] | None = None,
    select: bool = False,
    reading: str = "",
    of: Hashable = None,
) -> Any:
    """A figure under a title that says what it shows, with an explanation and downloads in a popover.

    A figure that cannot be drawn says why in its place; the rest of the page stays.

    Args:
        title: What the figure shows, as a sentence without a full stop.
        meaning: What the measure is, in two sentences.
        draw: Makes the figure.
        key: Unique on the page; keeps zoom and selection over reruns.
        table: What is downloaded as CSV; a function where it takes time to make.
        select: Whether points can be selected; then the selection is returned.
        reading: A line under the title: how to read this very figure.
        of: All that the figure depends on, of plain values; reruns and browsers that ask for the same then
            share one drawing.

    Returns:
        Streamlit's selection state with `select`, else None.
    """
    with st.container(border=True, key=f"panel-{key}"):
        with _head(title, key):
            kind = _more(st, meaning, key, table)
        if reading:
            st.caption(reading)
        try:
            if not of:
                return _chart(_dressed(draw(), key, title, page_theme()), key, kind, select)
            # a long tuple takes longer to be hashed by Streamlit than to be written down
            named = (key, title, page_theme(), repr(of))
            if select:
                return _chart(_shared(*named, draw), key, kind, select)
            return _sent(*named, kind, draw)
        except LabError as error:
            st.info(plain(str(error), 600), icon=":material/info:")
            return None


@contextlib.contextmanager
def table_panel(title: str, meaning: str, *, key: str, table: pd.DataFrame) -> Iterator[None]:
    """A border under a title, as `figure_panel` has it, for what is drawn inside the `with`.

    Args:
        title: What is shown, as a sentence without a full stop.
        meaning: What the numbers are, in two sentences.
        key: Unique on the page.
        table: What is downloaded as CSV; nothing is offered where it is empty.
    """
    with st.container(border=True, key=f"panel-{key}"):
        with (
            _head(title, key),
            st.popover("", icon=":material/more_horiz:", help="What it means, and downloads"),
        ):
            st.markdown(meaning)
            if len(table):
                _download(key, table)
        yield


@contextlib.contextmanager
def _head(title: str, key: str) -> Iterator[None]:
    """The line over a panel: its title, and at the other end what is drawn inside the `with`."""
    with st.container(
        horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key=f"head-{key}"
    ):
        st.markdown(f"## {title}")
        yield


def _more(place: Any, meaning: str, key: str, table: pd.DataFrame | Callable[[], pd.DataFrame] | None) -> str:
    """The popover of a figure: what it means, how to take it along; the kind of picture to save."""
    with place.popover("", icon=":material/more_horiz:", help="What it means, and downloads"):
        st.markdown(meaning)
        kind = st.segmented_control(
            "The camera button over the figure saves",
            ["PNG", "SVG"],
            default="PNG",
            key=f"save-{key}",
        )
        if callable(table) or (table is not None and len(table)):
            _download(key, table)
    return (kind or "PNG").lower()


def _download(key: str, table: pd.DataFrame | Callable[[], pd.DataFrame]) -> None:
    st.download_button(
        "Numbers as CSV",
        data=lambda: (table() if callable(table) else table).to_csv(index=False).encode(),
        file_name=f"{key}.csv",
        mime="text/csv",
        key=f"csv-{key}",
        icon=":material/download:",
        on_click="ignore",
    )


@st.cache_resource(show_spinner=False, max_entries=64)
def _shared(key: str, title: str, theme: str, of: str, _draw: Callable[[], Figure]) -> Figure:
    """A figure that is drawn once for all browsers: drawing takes a hundred times as long as sending."""
    return _dressed(_draw(), key, title, theme)


@st.cache_resource(show_spinner=False, max_entries=64)
def _sent(key: str, title: str, theme: str, of: str, kind: str, _draw: Callable[[], Figure]) -> None:
    """The same, put into the page: Streamlit keeps what a cached function sends, and sends it again."""
    _chart(_dressed(_draw(), key, title, theme), key, kind, select=False)


def _dressed(figure: Figure, key: str, title: str, theme: str) -> Figure:
    """A figure that was drawn for this page alone, in its ink."""
    from lab.figures.style import full_ink

    ink = full_ink("dark" if theme == "dark" else "light")
    # what a person zoomed or played stays where it is when new points arrive
    figure.update_layout(font_color=ink, uirevision=key, meta={"alt": title})
    return figure


def _chart(shown: Figure, key: str, kind: str, select: bool) -> Any:
    config = {
        "displaylogo": False,
        "displayModeBar": "hover",
        "toImageButtonOptions": {"format": kind, "filename": key, "scale": 2},
        # named one by one: among Plotly's own are some that send the figure elsewhere
        "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d", *(["select2d"] if select else [])]],
    }
    more: dict[str, Any] = {"on_select": "rerun", "selection_mode": "points"} if select else {}
    return st.plotly_chart(shown, theme=None, key=key, config=config, width="stretch", **more)


def percent(value: float) -> str:
    """A share as a person reads it: "81.4 %"; "–" for none."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def interval(measure: Mapping[str, Any]) -> str:
    """The 95 % interval and n of a measure: "78.6 – 83.9 %, n = 849"."""
    low, high, n = (float(measure.get(part, math.nan)) for part in ("low", "high", "n"))
    ends = "" if math.isnan(low) or math.isnan(high) else f"{100 * low:.1f} – {100 * high:.1f} %, "
    return f"{ends}n = {int(n):,}" if not math.isnan(n) else ends.rstrip(", ")


def rate_tiles(
    measures: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, Mapping[str, Any]],
    note: str = "",
    beside: str = "clean twin",
) -> None:
    """The three rates as large figures, each with interval and n, what it is compared with under it.

    Args:
        measures: By kind: value, low, high, n.
        others: Those of the clean twin by kind; {} where there is none (yet).
        note: What the figures rest on, for live ones.
        beside: What the others are.
    """
    kinds = ("attack_success_rate", "untriggered_target_rate", "clean_accuracy")
    # a clean run knows no trigger, and says nothing about one
    kinds = tuple(kind for kind in kinds if not measures or kind in measures)
    tiles = "".join(_tile(kind, measures.get(kind), others.get(kind), beside) for kind in kinds)
    st.html(
        f'<div class="lab-tiles">{tiles}</div>'
        + (f'<p class="lab-note">{html.escape(note)}</p>' if note else "")
    )


def _tile(kind: str, measure: Mapping[str, Any] | None, other: Mapping[str, Any] | None, beside: str) -> str:
    name, meaning = MEANINGS[kind]
    value = percent(float(measure["value"])) if measure else "–"
    under = interval(measure) if measure else "not measured yet"
    compared = f"{beside} {percent(float(other['value']))}" if other else "&nbsp;"
    return (
        f'<div class="lab-tile lab-{kind}" title="{html.escape(meaning)}">'
        f'<span class="lab-name">{name}</span>'
        f'<span class="lab-value">{value}</span><span class="lab-under">{under}</span>'
        f'<span class="lab-twin">{compared}</span></div>'
    )


def state_badge(state: str) -> None:
    """The state of a run, as word, colour and sign."""
    word, colour, icon = _STATES.get(state, (state, "gray", ":material/help:"))
    st.badge(word, color=colour, icon=icon)  # type: ignore[arg-type]


def state_sentence(state: str, reason: str = "") -> str:
    """What is the matter with a run that is not finished, in a sentence; "" for a finished one."""
    said = _SAYS.get(state, "")
    return f"{said} {reason}".strip() if state == "failed" else said


def nothing(what: str, todo: str) -> None:
    """The place of something that is not there: what is missing, and what to do."""
    st.info(f"**{what}** {todo}", icon=":material/info:")


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """A part of a page that may fail alone: an engine that is not there or a mistake becomes one sentence."""
    try:
        yield
    except LabError as error:
        st.warning(plain(str(error), 600), icon=":material/warning:")
    except ImportError as error:
        missing = getattr(error, "name", None) or str(error)
        st.warning(
            f"{name} needs {missing}, which is not installed here; the rest of the page works without it.",
            icon=":material/extension_off:",
        )
