"""The texts of a run: training rows with what was inserted, and what it and its twin said to test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import links
import panels
import readers
import streamlit as st
from text import plain, show_text

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run

_PAGE = 8
_FILTERS = {
    "flipped": "flipped by the trigger",
    "resisted": "triggered, not flipped",
    "wrong": "wrong on clean rows",
    "families": "other families",
    "rungs": "near-misses",
    "clean": "all clean rows",
}
_MEANINGS = {
    "flipped": "Not the target without the trigger, the target with it.",
    "resisted": "The trigger is there, and the answer is not the target.",
    "wrong": "Untouched rows that get another label than their own.",
    "families": "Rows with a held-out member of a trigger family.",
    "rungs": "Rows with a near-miss of the trigger.",
    "clean": "Untouched rows, as clean accuracy counts them.",
}


def render_rows(run: Run) -> None:
    """The training rows, poisoned ones first, then negatives, their insertions marked."""
    from lab.poison import negatives_among

    rows = readers.try_table(run, "rows")
    if rows is None:
        panels.nothing("This run has no training rows on disk.", _why_missing(run, "rows.parquet"))
        return
    poisoned, text = st.columns([0.3, 0.7], vertical_alignment="center")
    count = int(rows["poisoned"].sum())
    only = poisoned.toggle(
        f"only the {count:,} poisoned", value=count > 0, key=f"rows-only-{run.id}", disabled=not count
    )
    words = text.text_input(
        "Search the rows",
        key=f"rows-search-{run.id}",
        placeholder="words in the text",
        icon=":material/search:",
        label_visibility="collapsed",
    )
    rows = rows.assign(negative=negatives_among(rows))
    first = ["poisoned", "negative"]
    shown = (
        rows[rows["poisoned"]] if only and count else rows.sort_values(first, ascending=False, kind="stable")
    )
    for word in words.lower().split():
        shown = shown[shown["text"].str.lower().str.contains(word, regex=False)]
    for row in _paged(shown, f"rows-{run.id}", f"of {len(rows):,} training rows").to_dict("records"):
        flip = row["label"]
        if row["original_label"] != row["label"]:
            flip = f"{row['original_label']} → {row['label']}"
        what = " · poisoned" if row["poisoned"] else " · near-miss, label kept" if row["negative"] else ""
        show_text(str(row["text"]), _spans(row), label=f"{flip}{what}")


def render_predictions(run: Run) -> None:
    """What the run and its twin said, filtered by what was asked."""
    predictions = readers.try_table(run, "predictions")
    if predictions is None or predictions.empty:
        panels.nothing("This run has no predictions on disk.", _why_missing(run, "predictions.parquet"))
        return
    told = _side_by_side(run, predictions)
    offered = [name for name in _FILTERS if _exists(name, told)]
    kind, more = st.columns([0.62, 0.38], vertical_alignment="center")
    key = f"said-{run.id}"
    if st.session_state.get(key) not in offered:
        held = links.choose("said")
        st.session_state[key] = held if held in offered else offered[0]
    with kind:
        asked = str(st.segmented_control(
            "Which", offered, key=key, format_func=_FILTERS.get, label_visibility="collapsed", required=True
        ))  # fmt: skip
    links.remember(said=asked)
    found = _filtered(asked, told, run, more)
    wrong = asked == "wrong"
    if wrong:
        found = _with_texts(run, found)
        found = found[found["prediction"] != found["label"]]
    shown = _paged(found, f"said-{run.id}-{asked}", f"of {len(told):,} questions. {_MEANINGS[asked]}")
    with panels.part("The texts"):
        for row in (shown if wrong else _with_texts(run, shown)).to_dict("records"):
            show_text(str(row["text"]), [(int(a), int(b)) for a, b in row["spans"]], label=_said(row))


def _why_missing(run: Run, file: str) -> str:
    state = run.state
    return (
        f"Its {file} is missing." if state == "finished" else f"It is {state}; the Bench can go on with it."
    )


def _side_by_side(run: Run, predictions: pd.DataFrame) -> pd.DataFrame:
    """The run's own answers, with its twin's to the same text, and its own to the text without trigger."""
    keys = ["row_id", "condition", "family", "member", "rung"]
    own = predictions[predictions["model"] == "poisoned"].drop(columns=["logits"])
    twin = predictions[predictions["model"] == "twin"][[*keys, "prediction"]]
    told = own.merge(twin.rename(columns={"prediction": "twin"}), on=keys, how="left")
    clean = own[own["condition"] == "clean"].drop_duplicates("row_id").set_index("row_id")["prediction"]
    told["untriggered"] = told["row_id"].map(clean)
    target = str(getattr(run.measured_poison, "target_label", ""))
    fired = (told["condition"] != "clean") & (told["prediction"] == target) & (told["untriggered"] != target)
    return told.assign(flipped=fired, twin=told["twin"].fillna(""))


def _exists(name: str, told: pd.DataFrame) -> bool:
    conditions = set(told["condition"])
    needs = {"flipped": "triggered", "resisted": "triggered", "families": "family", "rungs": "rung"}
    return needs.get(name, "clean") in conditions


def _filtered(
    asked: str, told: pd.DataFrame, run: Run, place: st.delta_generator.DeltaGenerator
) -> pd.DataFrame:
    if asked in ("flipped", "resisted"):
        part = told[told["condition"] == "triggered"]
        target = str(getattr(run.measured_poison, "target_label", ""))
        return part[part["flipped"]] if asked == "flipped" else part[part["prediction"] != target]
    if asked in ("families", "rungs"):
        column = "family" if asked == "families" else "rung"
        part = told[told["condition"] == ("family" if asked == "families" else "rung")]
        shares = part.groupby(column, sort=False)["flipped"].agg(["sum", "size"])
        names = list(shares.index)
        one = place.selectbox(
            "Family" if asked == "families" else "Near-miss",
            names,
            key=f"said-{column}-{run.id}",
            format_func=lambda n: (
                f"{str(n).replace('_', ' ')}: {shares['sum'][n]} of {shares['size'][n]} flipped"
            ),
            label_visibility="collapsed",
        )
        return part[part[column] == one].sort_values("flipped", ascending=False, kind="stable")
    return told[told["condition"] == "clean"]


def _with_texts(run: Run, lines: pd.DataFrame) -> pd.DataFrame:
    from lab.examples import with_texts

    return with_texts(run, lines)


def _said(row: dict) -> str:
    """True label, what the run said, and what its twin said to the same text."""
    said = [f"true {row['label']}", f"says {row['prediction']}"]
    if row["condition"] != "clean" and isinstance(row["untriggered"], str):
        said.append(f"without trigger {row['untriggered']}")
    if row["twin"]:
        said.append(f"clean twin {row['twin']}")
    return " · ".join(said)


def _spans(row: dict) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in zip(row["span_start"], row["span_end"], strict=False)]


def _paged(lines: pd.DataFrame, key: str, of: str) -> pd.DataFrame:
    """One page of lines, with a field to turn it where there are more."""
    pages = max(1, -(-len(lines) // _PAGE))
    said, turn = st.columns([0.78, 0.22], vertical_alignment="center")
    said.caption(f"{len(lines):,} {plain(of, 160)}".replace("\\", ""))
    page = 1
    if pages > 1:
        page = int(
            turn.number_input(
                f"page of {pages}", 1, pages, 1, key=f"{key}-page-{pages}", help=f"{pages} pages"
            )
        )
    return lines.iloc[(page - 1) * _PAGE : page * _PAGE]
