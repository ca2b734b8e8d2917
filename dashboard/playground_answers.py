"""What the playground says of a text: both models' answers, the words they rest on, where a model looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import links
import models
import panels
import pickers
import readers
import streamlit as st
from text import plain, show_text
from widgets import switch

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

    from lab.poison import Insertion
    from lab.record import Run

_ROLES = {"poisoned": "poisoned model", "twin": "clean twin"}
_TEXTS = {"clean": "without the trigger", "triggered": "with the trigger"}
#: Words; hiding each of them in turn asks the model as often, and attention grows with their square.
_MOST_WORDS = 120

_ANSWERS = (
    "How sure each model is of each label, for the text as it is and with the trigger in it. "
    "Only what the poisoned model does and the clean twin does not is the poison's work."
)
_IMPORTANCE = (
    "How far the label's probability falls when a word is hidden, one word after the other. "
    "Words that stand in for each other may both show nothing, though the answer rests on them."
)
_ATTENTION = (
    "How much of each token's value a token takes in, by layer and head. "
    "Much attention goes to separators that carry little: it says where the model looks, not why it answers."
)


def render(run: Run, text: str, inserted: Insertion, row: str) -> None:
    """Draw the answers for a text, before and after the insertion.

    Args:
        run: The poisoned run.
        text: The text before.
        inserted: The text after, with the spans of what was inserted.
        row: The probed row that the text is; "" for any other text.
    """
    twin = _twin(run)
    asked = _render_ask(run, twin)
    answers, source = None, ""
    with panels.part("The answers"):
        if asked:
            answers = _answers(run, twin, text, inserted.text)
        elif row:
            answers = _recorded(run, row, inserted.text)
            source = "As recorded when the run was probed; no model was loaded."
    _render_texts(run, text, inserted, answers)
    if answers is not None and len(answers):
        _render_bars(answers, source)
    if asked:
        with panels.part("The look inside"):
            _render_inside(run, twin, text, inserted)


def _twin(run: Run) -> Run | None:
    """The clean twin, if it is in the store."""
    try:
        name = str(run.headline["twin"])
    except (LabError, KeyError, TypeError):
        return None
    return readers.open_run(name) if name else None


def _render_ask(run: Run, twin: Run | None) -> bool:
    """The button that loads the models, until it was pressed or the link says that it was."""
    asked = bool(links.choose("asked"))
    if not asked:
        left, right = st.columns([0.3, 0.7], vertical_alignment="center")
        left.button(
            "Ask the models" if twin else "Ask the model",
            type="primary",
            icon=":material/play_arrow:",
            width="stretch",
            on_click=lambda: links.remember(asked="yes"),
        )
        right.caption("It loads them once; from then on they answer whatever you choose.")
    if twin is None:
        st.caption("Its clean twin is not in this store, so nothing says what the text alone would do.")
    return asked


def _render_texts(run: Run, text: str, inserted: Insertion, answers: pd.DataFrame | None) -> None:
    """The two texts, and under each what is said to it."""
    target = str(getattr(run.measured_poison, "target_label", ""))
    for column, (name, title) in zip(st.columns(2, gap="medium"), _TEXTS.items(), strict=True):
        with column, st.container(border=True, key=f"panel-text-{name}"):
            st.markdown(f"## {title.capitalize()}")
            show_text(*((text, ()) if name == "clean" else (inserted.text, inserted.spans)))
            if answers is None or answers.empty:
                st.caption("Nobody has been asked yet.")
                continue
            here = answers[answers["condition"] == name]
            if here.empty:
                st.caption("Not recorded with this very text: ask the models.")
                continue
            said = [_said(label, here[here["model"] == role], target) for role, label in _ROLES.items()]
            st.markdown("  \n".join(filter(None, said)))


def _said(who: str, part: pd.DataFrame, target: str) -> str:
    """A model's answer and how sure it is of it, as Markdown; "" for a model that was not asked."""
    if part.empty:
        return ""
    answer = str(part["prediction"].iloc[0])
    note = ", the target" if answer == target else ""
    sure = float(part.loc[part["label"] == answer, "probability"].max())
    return f"{who}: **{plain(answer)}**{note} · {panels.percent(sure)}"


def _recorded(run: Run, row: str, triggered: str) -> pd.DataFrame | None:
    """The recorded answers, as far as they are of these very texts."""
    try:
        found, text = _recorded_of(str(run.path), row, readers.stamp(run))
    except (LabError, OSError, ValueError, KeyError, TypeError):
        return None
    return found if text == triggered else found[found["condition"] == "clean"]


@st.cache_data(show_spinner=False, max_entries=256)
def _recorded_of(path: str, row: str, of: readers.Stamp) -> tuple[pd.DataFrame, str]:
    """The recorded answers to a row, and the row as it was asked with the trigger."""
    from lab.answers import recorded
    from lab.examples import with_texts
    from lab.record import Run

    run = Run(Path(path))
    told = run.predictions
    told = told[(told["row_id"] == row) & (told["condition"] == "triggered") & (told["model"] == "poisoned")]
    texts = with_texts(run, told.head(1))["text"]
    return recorded(run, row), str(texts.iloc[0]) if len(texts) else ""


def _answers(run: Run, twin: Run | None, text: str, triggered: str) -> pd.DataFrame:
    return _asked(run.id, twin.id if twin else "", text, triggered, _stamps(run, twin))


def _stamps(*runs: Run | None) -> tuple[readers.Stamp, ...]:
    return tuple(readers.stamp(run) for run in runs if run)


@st.cache_data(show_spinner="Asking …", max_entries=500)
def _asked(run: str, twin: str, text: str, triggered: str, of: tuple[readers.Stamp, ...]) -> pd.DataFrame:
    from lab.answers import ask

    roles = {"poisoned": run, **({"twin": twin} if twin else {})}
    with models.at_work():
        loaded = {role: models.predictor_run(name) for role, name in roles.items()}
        return ask(loaded, {"clean": text, "triggered": triggered})


def _render_bars(answers: pd.DataFrame, source: str) -> None:
    """A figure under each text, so that they stand side by side where there is room."""
    for column, (name, title) in zip(st.columns(2, gap="medium"), _TEXTS.items(), strict=True):
        part = answers[answers["condition"] == name]
        if part.empty:
            continue
        with column:
            panels.figure_panel(
                f"How sure they are {title}",
                _ANSWERS,
                lambda part=part: _bars(part),
                key=f"answers-{name}",
                table=part,
                reading=source,
            )


def _bars(answers: pd.DataFrame) -> Any:
    from lab.figures.answers import answer_bars

    return answer_bars(answers)


def _render_inside(run: Run, twin: Run | None, text: str, inserted: Insertion) -> None:
    """Why it answers so: one look at a time, as the second loads a model of its own."""
    looks = {"words": "Which words it rests on", "attention": "Where it looks"}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        look = switch("Look inside", "inside", looks, "words")
        which = switch(
            "Of the text", "of", {"triggered": "with the trigger", "clean": "without it"}, "triggered"
        )
    of = inserted.text if which == "triggered" else text
    if look == "words":
        _render_importance(run, twin, of)
    else:
        _render_attention(run, twin, of)


def _render_importance(run: Run, twin: Run | None, of: str) -> None:
    if _too_long(of):
        return
    target = str(getattr(run.measured_poison, "target_label", ""))
    label = target if target in run.labels else ""
    table = _occlusion(run.id, twin.id if twin else "", of, label, _stamps(run, twin))
    panels.figure_panel(
        "Which words the answer rests on",
        _IMPORTANCE,
        lambda: _importance(table, label),
        key="importance",
        table=table,
        reading=f"Bars to the right speak for the target, {plain(label)}; to the left against it."
        if label
        else "",
    )


@st.cache_data(show_spinner="Hiding one word after the other …", max_entries=200)
def _occlusion(run: str, twin: str, text: str, label: str, of: tuple[readers.Stamp, ...]) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for role, name in (("poisoned", run), ("twin", twin)):
        if name:
            with models.at_work():
                parts.append(models.predictor_run(name).occlusion(text, label).assign(model=role))
    return pd.concat(parts, ignore_index=True)


def _importance(table: pd.DataFrame, label: str) -> Any:
    from lab.figures import token_importance

    return token_importance(table, label)


def _render_attention(run: Run, twin: Run | None, of: str) -> None:
    places = st.columns([0.4, 0.3, 0.3])
    with places[0]:
        roles = {role: name for role, name in _ROLES.items() if role == "poisoned" or twin}
        role = switch("Of the", "who", roles, "poisoned")
    if _too_long(of):
        return
    asked = twin if role == "twin" and twin else run
    layers = _layers(asked)
    with places[1]:
        pickers.start_at("playground.layer", "layer", layers - 1, range(layers))
        layer = st.selectbox("Layer", range(layers), key="playground.layer")
        pickers.keep("playground.layer", "layer", layer, layers - 1)
    table = _attention(asked.id, of, int(layer), _stamps(asked))
    heads = ["mean", *(str(head) for head in sorted(table["head"].unique()))]
    with places[2]:
        pickers.start_at("playground.head", "head", "mean", heads)
        head = st.selectbox("Head", heads, key="playground.head")
        pickers.keep("playground.head", "head", head, "mean")
    number = None if head == "mean" else int(head)
    panels.figure_panel(
        f"Where the {_ROLES[role]} looks, layer {layer}",
        _ATTENTION,
        lambda: _map(table, int(layer), number),
        key="attention",
        table=table,
        reading="A row per token that looks, a column per token that is looked at; each row sums to 1.",
    )


@st.cache_data(show_spinner="Looking …", max_entries=40)
def _attention(run: str, text: str, layer: int, of: tuple[readers.Stamp, ...]) -> pd.DataFrame:
    with models.at_work():
        return models.predictor_run(run).attention(text, layers=[layer])


def _map(table: pd.DataFrame, layer: int, head: int | None) -> Any:
    from lab.figures import attention_map

    return attention_map(table, layer, head)


def _layers(run: Run) -> int:
    """How many layers the model has, as far as its record says; at least one."""
    spectra = readers.try_table(run, "spectra")
    return 1 if spectra is None or spectra.empty else max(1, int(spectra["layer"].max()) + 1)


def _too_long(text: str) -> bool:
    from lab.poison.places import count_words

    words = count_words(text)
    if words > _MOST_WORDS:
        panels.nothing(f"The text has {words} words.", f"This is drawn for up to {_MOST_WORDS}.")
    return words > _MOST_WORDS
