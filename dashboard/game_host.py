"""The host's part of the game: dealing, the codes, and the steps from the lobby to the reveal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import access
import game_play
import links
import readers
import streamlit as st
from text import plain

from lab.errors import LabError
from lab.game.match import find_match, is_host, move_on, reread
from lab.game.rules import RULES
from lab.game.teams import list_teams, probes_left, read_bets

if TYPE_CHECKING:
    from lab.game.match import Match, State

_WAIT = 1.0
_STEPS: dict[State, tuple[tuple[State, str, str], ...]] = {
    "lobby": (("playing", "Start the match", ":material/play_arrow:"),),
    "playing": (("closed", "Close the bets", ":material/lock:"),),
    "closed": (
        ("revealed", "Reveal the truth", ":material/visibility:"),
        ("playing", "Open it again", ":material/lock_open:"),
    ),
    "revealed": (),
}


def is_hosting(match: Match) -> bool:
    """Whether this session has given the host's code of a match; it is in no link, as screens are shown."""
    return st.session_state.get("hosting") == match.id


def forget(match: Match) -> None:
    """Give the host's seat up, for this session."""
    if is_hosting(match):
        del st.session_state["hosting"]


def render_way_in() -> None:
    """The two ways to host: a match that is prepared, and a new one."""
    with st.form("host"):
        st.markdown("## Host")
        code = st.text_input("Join code of the match", max_chars=20)
        secret = st.text_input("Host code", max_chars=30, type="password")
        if st.form_submit_button("Host it"):
            _enter(code, secret)
    _render_new()


def _enter(code: str, secret: str) -> None:
    try:
        match = find_match(code, readers.runs_folder())
        if not is_host(match, secret):
            raise LabError("Host code: that is not it; `lab game host` on the server makes a new one.")
    except LabError as error:
        time.sleep(_WAIT)
        st.error(plain(str(error), 300))
        return
    _sit_down(match)


def _sit_down(match: Match) -> None:
    st.session_state["hosting"] = match.id
    links.remember(match=match.id, seat="")
    st.rerun()


def _render_new() -> None:
    with st.expander("Deal a new match from this runs folder", icon=":material/add:"):
        st.markdown(
            "Finished LoRA runs are dealt: those whose backdoor took, and clean ones. Players can look at "
            "the other pages too; for a serious match prepare one with `lab game new`, whose adapters no "
            "page lists."
        )
        with st.form("deal", border=False):
            title = st.text_input("Title", "Red and blue", max_chars=60)
            adapters = st.number_input("Adapters", 2, 24, 6)
            budget = st.number_input("Probes of each team", 0, 100_000, 200, step=10)
            rule = st.selectbox("Scoring", list(RULES), help="Both reward saying what you believe.")
            if st.form_submit_button("Deal", disabled=not access.may_write()):
                _deal(title, int(adapters), int(budget), str(rule))


def _deal(title: str, adapters: int, budget: int, rule: str) -> None:
    import models

    from lab.game.dealing import deal_match, find_candidates

    runs = readers.runs_folder()
    try:
        with st.spinner("Sealing adapters …"), models.at_work():
            group = next(iter(find_candidates(runs).values()), [])
            match, host = deal_match(
                group, runs=runs, adapters=adapters, budget=budget, rule=rule, title=title
            )
    except LabError as error:
        st.error(plain(str(error), 500))
        return
    st.session_state["host_code"] = (match.id, host)
    _sit_down(match)


def render(match: Match) -> None:
    """Draw the host's table: codes, the next step, and who plays."""
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("## You host this match", width="content")
            game_play.badge(match)
        st.markdown(f"Join code: **{match.join_code}**")
        shown, code = st.session_state.get("host_code", ("", ""))
        if shown == match.id:
            st.info(
                f"Your host code is **{code}**. Write it down: it is shown in this session alone.",
                icon=":material/key:",
            )
        with st.container(horizontal=True):
            for state, label, icon in _STEPS[match.state]:
                kind = "secondary" if label == "Open it again" else "primary"
                if st.button(label, icon=icon, type=kind, key=f"step-{state}"):  # type: ignore[arg-type]
                    _step(match, state)
        st.fragment(_render_teams, run_every=game_play.EVERY)(match)


def _step(match: Match, to: State) -> None:
    try:
        move_on(match, to)
    except LabError as error:  # another browser of the host was faster
        st.error(plain(str(error), 300))
        return
    st.rerun()


def _render_teams(match: Match) -> None:
    import pandas as pd
    from text import short

    now = reread(match)
    if now.state != match.state:
        st.rerun(scope="app")
    teams = list_teams(now)
    if not teams:
        st.caption("Nobody has joined yet.")
        return
    lines = [
        {
            "team": short(team.name),
            "bets": f"{len(read_bets(now, team.id))} of {len(now.adapters)}",
            "probes left": probes_left(now, team.id),
        }
        for team in teams
    ]
    st.dataframe(pd.DataFrame(lines), hide_index=True, width="stretch")
