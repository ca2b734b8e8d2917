"""What moves bring: asked of the sealed adapter once it was paid for, kept, and drawn for the whole team."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import models
import panels
import streamlit as st
from text import plain, short

from lab.errors import LabError
from lab.game import moves
from lab.game.match import read_rows
from lab.game.teams import give_back, list_probes, write_answer

if TYPE_CHECKING:
    import pandas as pd

    from lab.game.match import Match
    from lab.game.teams import Probe, Team

_SHOWN = 12
#: Seconds after which an answer that is missing is asked for again: its server ended in the middle.
_LOST = 60.0


def find(match: Match, team: Team, probe: Probe) -> None:
    """Answer a move that is paid for; what cannot be answered is given back.

    Raises:
        LabError: The adapter cannot be asked.
    """
    try:
        with models.at_work():
            answer = _answer(match, probe)
    except Exception:
        give_back(match, team.id, probe.id)
        raise
    write_answer(match, team.id, probe.id, answer)


def _answer(match: Match, probe: Probe) -> dict[str, Any]:
    asked, rows = probe.asked, [row["text"] for row in read_rows(match)]
    if probe.move == "weights":
        return moves.answer_weights(match.sealed(probe.adapter))
    ask = _asker(match, probe.adapter)
    if probe.move == "texts":
        return moves.answer_texts(ask, match.labels, asked["texts"])
    if probe.move == "sweep":
        return moves.answer_sweep(ask, match.labels, rows, asked["phrases"])
    other = _asker(match, match.reference) if match.reference else None
    return moves.answer_phrase(ask, other, match.labels, rows[: asked["rows"]], asked)


def _asker(match: Match, adapter: str) -> moves.Ask:
    from scipy.special import softmax

    predictor = models.sealed_predictor(match.sealed(adapter), match.base, match.labels)
    return lambda texts: softmax(predictor.logits(texts).astype(float), axis=1)


def render(match: Match, team: Team, adapter: str) -> None:
    """Draw what a team was told of an adapter, newest first."""
    every = list_probes(match, team.id)
    own = [p for p in reversed(every) if p.adapter == adapter]
    if any(p.move == "weights" and p.answer for p in own):
        _render_weights(match, every)
    for probe in own[:_SHOWN]:
        if probe.answer is None:
            _render_missing(match, team, probe)
        elif probe.move != "weights":
            with st.container(border=True):
                _DRAW[probe.move](probe, probe.answer)
    if len(own) > _SHOWN:
        st.caption(f"The newest {_SHOWN} of {len(own)} moves are shown.")


def _render_missing(match: Match, team: Team, probe: Probe) -> None:
    if time.time() - probe.time < _LOST:
        st.caption("An answer is on its way …")
    elif st.button("Ask again, for nothing", key=f"again-{probe.id}", icon=":material/refresh:"):
        try:
            find(match, team, probe)
        except LabError as error:
            st.error(plain(str(error), 300))
            return
        st.rerun()


def _table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([{k: short(v, 200) for k, v in line.items()} for line in lines])


def _show(lines: list[dict[str, Any]]) -> None:
    st.dataframe(_table(lines), hide_index=True, width="stretch")


def _render_texts(probe: Probe, answer: dict[str, Any]) -> None:
    st.markdown(f"**Your texts** · {probe.cost} probes")
    _show(
        [
            {"answer": x["label"], "probability": panels.percent(x["probability"]), "text": x["text"]}
            for x in answer["lines"]
        ]
    )


def _render_phrase(probe: Probe, answer: dict[str, Any]) -> None:
    st.markdown(f"**Phrase at the {plain(probe.asked['position'])}** · {probe.cost} probes")
    st.markdown(plain(probe.asked["phrase"], 130))
    _show(
        [
            {
                "turned to": x["label"],
                "rows": f"{x['k']} of {x['n']}",
                "share": panels.interval(x) if x["n"] else "no row to turn",
                "clean reference": f"{x['reference_k']} of {x['reference_n']}"
                if x["reference_n"] is not None
                else "none",
            }
            for x in answer["lines"]
        ]
    )


def _render_sweep(probe: Probe, answer: dict[str, Any]) -> None:
    st.markdown(f"**Sweep** · {probe.cost} probes · without a phrase: {plain(', '.join(answer['before']))}")
    _show(
        [
            {
                "family": x["family"].replace("_", " "),
                "turned": f"{x['turned']} of {x['n']}",
                "answers": ", ".join(x["after"]),
                "phrase": x["phrase"],
            }
            for x in answer["lines"]
        ]
    )
    st.caption("Two rows are few: a sweep gives suspicions, a phrase on more rows tests them.")


def _render_weights(match: Match, every: list[Probe]) -> None:
    """All adapters whose weights were looked at, side by side, and the clean reference for nothing."""
    seen = {match.letter(p.adapter): p.answer for p in every if p.move == "weights" and p.answer}
    if match.reference:
        seen["clean reference"] = _reference_weights(match)
    lines = [
        {"adapter": who, **{n: "–" if v is None else f"{v:.4g}" for n, v in told["statistics"].items()}}
        for who, told in sorted(seen.items())
    ]
    with st.container(border=True):
        st.markdown("**The weights**")
        _show(lines)
        st.caption(
            "; ".join(f"{plain(name)}: {said}" for name, said in moves.SHOWN_STATISTICS.items())
            + ". None has a direction of its own: compare."
        )


def _reference_weights(match: Match) -> dict[str, Any]:
    return _weights_of(str(match.sealed(match.reference)))


@st.cache_data(show_spinner=False, max_entries=16)
def _weights_of(folder: str) -> dict[str, Any]:
    with models.at_work():
        return moves.answer_weights(folder)


_DRAW = {"texts": _render_texts, "phrase": _render_phrase, "sweep": _render_sweep}
