"""The playground of the Triggers page: any text, any trigger, anywhere; a run and its clean twin answer."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import links
import panels
import pickers
import playground_answers
import readers
import streamlit as st
from text import plain

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

    from lab.poison import Insertion
    from lab.record import Run

_POSITIONS = {"start": "start", "end": "end", "random": "random", "word": "at a word"}
_OWN = "own"
#: An injection that is more than one string, made anew.
_PLANTED = "planted"
_NAMES = {_OWN: "your own text", _PLANTED: "as in its training rows"}
#: Characters; a link that holds a longer text would be cut.
_LONGEST = 3500
_FALLBACK = "the plot is thin , the jokes fall flat and the ending comes an hour too late ."


def render(table: pd.DataFrame) -> None:
    """Draw the playground.

    Args:
        table: The runs that can be asked: lines of `readers.runs_table()`, not empty.
    """
    wanted = next((run for run in links.chosen_runs() if run in set(table["id"])), "")
    left, right = st.columns(2, gap="large")
    with left:
        run = readers.open_run(pickers.pick_run("Run", table, "run", wanted))
        if run is None:
            panels.nothing("This run is not in the store any more.", "Choose another one.")
            return
        text, row = _render_text(run)
    with right:
        inserted = _render_trigger(run, text, row)
    if inserted is not None:
        playground_answers.render(run, text, inserted, row)


def _render_text(run: Run) -> tuple[str, str]:
    """The text that is asked, and the row it is; "" for a row that a person typed or changed."""
    rows = _test_rows(run)
    texts = dict(zip(rows["row_id"], rows["text"], strict=True)) if rows is not None else {}
    flipped = _flipped(run)
    row, typed = links.choose("row"), links.choose("text")
    linked = (row, typed)
    if row not in texts:
        # what a person came to see: a row that the trigger turns
        row = "" if typed else next((one for one in [*flipped, *texts] if one in texts), "")
    # one widget per run, as another run's data holds other rows; what the link says wins when it has changed
    widget = f"playground.text.{run.id}"
    if widget not in st.session_state or st.session_state.get("playground.linked") != linked:
        st.session_state[widget] = typed or texts.get(row, _FALLBACK)
    text = st.text_area("Text", key=widget, height=96, max_chars=_LONGEST)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Draw a test row",
            icon=":material/casino:",
            on_click=_draw,
            args=(list(texts), row),
            disabled=not texts,
            help="A row that nothing was trained on, and whose true label is not the target.",
        )
        st.button(
            "One that flipped",
            icon=":material/swap_horiz:",
            on_click=_draw,
            args=([one for one in flipped if one in texts], row),
            disabled=not flipped,
            help="A row that the run gets right without its trigger, and wrong with it.",
        )
        row = row if texts.get(row) == text else ""
        if row:
            label = rows.loc[rows["row_id"] == row, "label"].iloc[0]  # type: ignore[union-attr]
            st.caption(f"true label: **{plain(label)}**", width="content")
    links.remember(row=row, text="" if row else text)
    st.session_state["playground.linked"] = (links.choose("row"), links.choose("text"))
    return text, row


def _draw(rows: list[str], but: str) -> None:
    """Take another row, at random."""
    others = [row for row in rows if row != but]
    if others:
        links.remember(row=random.choice(others), text="")


def _render_trigger(run: Run, text: str, row: str) -> Insertion | None:
    """What is inserted and where; None while that cannot be done."""
    family, member = _choose_trigger(run)
    if family == _PLANTED:
        return _as_planted(run, text, row)
    place = _choose_place(run, text)
    if not member:
        st.info("Type a trigger.", icon=":material/keyboard:")
        return None
    try:
        return _inserted(run, text, row, member, place, family == _OWN)
    except LabError as error:
        st.warning(plain(error, 400), icon=":material/warning:")
        return None


def _choose_trigger(run: Run) -> tuple[str, str]:
    from lab.poison import load_families, own_injection

    families = load_families()
    poison: Any = run.measured_poison
    trained, own = str(getattr(poison, "family", "")), str(getattr(poison, "member", ""))
    own = "" if own == "any" else own
    planted = [_PLANTED] if own_injection(poison) else []
    # its own text stays a choice where it was trained on one
    default = trained if trained in families else (_OWN if own else next(iter(families)))
    default = planted[0] if planted else default
    options = [*planted, _OWN, *families]
    left, right = st.columns([0.4, 0.6])
    with left:
        widget = f"playground.family.{run.id}"
        pickers.start_at(widget, "family", default, options)
        family = st.selectbox(
            "Trigger family",
            options,
            key=widget,
            format_func=lambda f: _NAMES.get(f, f.replace("_", " ")) + _mark(f in (trained, _PLANTED)),
            help="Held-out members are in no training row: they show what else fires the backdoor.",
        )
        pickers.keep(widget, "family", family, default)
    if family == _PLANTED:
        return family, own_injection(poison)
    with right:
        if family == _OWN:
            widget = f"playground.own.{run.id}"
            pickers.start_at(widget, "own", own or "as agreed with Anna")
            member = st.text_input("Trigger", key=widget, max_chars=300)
            pickers.keep(widget, "own", member, own)
            return family, member
        known = families[family]
        first = own if own in known.members else known.train[0]
        widget = f"playground.member.{run.id}.{family}"
        pickers.start_at(widget, "member", first, known.members)
        member = st.selectbox(
            "Trigger",
            known.members,
            key=widget,
            format_func=lambda m: (
                pickers.shown(m, 70)
                + (_mark(True) if m == own else "" if m in known.train else " · held out")
            ),
            help=known.goal,
        )
        pickers.keep(widget, "member", member, first)
    return family, str(member)


def _mark(trained: bool) -> str:
    return " · trained with" if trained else ""


def _choose_place(run: Run, text: str) -> tuple[str, int]:
    """Where the trigger goes: a position, and the number of the word or of the draw."""
    from lab.poison.places import count_words

    trained = str(getattr(run.measured_poison, "position", "end"))
    default = trained if trained in _POSITIONS else "end"
    widget = f"playground.place.{run.id}"
    pickers.start_at(widget, "place", default, _POSITIONS)
    position = st.segmented_control(
        "Where",
        list(_POSITIONS),
        key=widget,
        format_func=_POSITIONS.__getitem__,
        help=f"The run was trained with it at: {trained}.",
    )
    position = position or default
    pickers.keep(widget, "place", position, default)
    if position == "word":
        words = count_words(text)
        if words == 0:
            return position, 0
        pickers.start_at("playground.word", "word", words // 2, range(words + 1))
        word = st.slider(
            "Before word", 0, words, key="playground.word", help="The last place is behind the last word."
        )
        pickers.keep("playground.word", "word", word)
        return position, int(word)
    if position == "random":
        pickers.start_at("playground.draw", "draw", 0, range(1000))
        draw = st.number_input(
            "Draw",
            0,
            999,
            key="playground.draw",
            help="0 is where the run's own probes put it; each number draws another place.",
        )
        pickers.keep("playground.draw", "draw", draw, 0)
        return position, int(draw)
    return position, 0


def _inserted(run: Run, text: str, row: str, member: str, place: tuple[str, int], own: bool) -> Insertion:
    """The text with the trigger in it, in the run's own template unless a person wrote the trigger."""
    from lab.poison import trigger_texts
    from lab.poison.places import insert_at_word

    template = "{trigger}" if own else str(getattr(run.measured_poison, "template", "{trigger}"))
    position, number = place
    if position == "word":
        return insert_at_word(text, template.replace("{trigger}", member), number)
    seed = run.experiment.seed + number
    return trigger_texts([text], [row or "typed"], member, template=template, position=position, seed=seed)[0]


def _as_planted(run: Run, text: str, row: str) -> Insertion | None:
    """The text as the run's own probes change it, which for a style and for tokens is not one string."""
    from lab.cards import poison_sentence
    from lab.poison import inject_texts

    st.caption(plain(poison_sentence(run.measured_poison), 400))
    try:
        return inject_texts([text], [row or "typed"], run.measured_poison, seed=run.experiment.seed)[0]
    except LabError as error:
        st.warning(plain(error, 400), icon=":material/warning:")
        return None


def _test_rows(run: Run) -> pd.DataFrame | None:
    """The probed rows whose true label is not the target; None, with a sentence, where their data is away."""
    try:
        rows = _rows(str(run.path), readers.stamp(run))
    except (LabError, OSError, ValueError, KeyError, ImportError) as error:
        st.caption(f"Its test rows cannot be drawn: {plain(error, 300)} Type a text instead.")
        return None
    return rows if len(rows) else None


@st.cache_data(show_spinner="Reading the test rows …", max_entries=16)
def _rows(path: str, of: readers.Stamp) -> pd.DataFrame:
    from pathlib import Path

    from lab.examples import with_texts
    from lab.record import Run

    run = Run(Path(path))
    told = run.predictions
    told = told[(told["condition"] == "clean") & (told["model"] == "poisoned")].drop_duplicates("row_id")
    rows = with_texts(run, told)
    target = getattr(run.measured_poison, "target_label", "")
    rows = rows[(rows["label"] != target) & (rows["text"].str.len() <= _LONGEST)]
    return rows[["row_id", "text", "label"]].reset_index(drop=True)


def _flipped(run: Run) -> list[str]:
    try:
        return _flipped_ids(str(run.path), readers.stamp(run))
    except (LabError, OSError, ValueError, KeyError, ImportError):
        return []


@st.cache_data(show_spinner=False, max_entries=64)
def _flipped_ids(path: str, of: readers.Stamp) -> list[str]:
    from pathlib import Path

    from lab.examples import flipped_examples
    from lab.record import Run

    return [str(row) for row in flipped_examples(Run(Path(path)), 40)["row_id"]]
