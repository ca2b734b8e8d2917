"""Red and blue, the workshop's game: teams audit sealed adapters within a budget, bet, and see the truth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import game_host
import game_play
import game_reveal
import links
import panels
import readers
import streamlit as st
from text import plain

from lab.errors import LabError
from lab.game.match import find_match, read_match
from lab.game.rules import BONUS, RULES
from lab.game.teams import find_team, join_match

if TYPE_CHECKING:
    from lab.game.match import Match
    from lab.game.teams import Team

#: How long a code that is none takes, so that guessing is slow.
_WAIT = 1.0


def render() -> None:
    """Draw the page: the way in, or the match that the address bar names."""
    match = _match()
    team = find_team(match, links.choose("seat")) if match else None
    hosting = match is not None and game_host.is_hosting(match)
    st.markdown(f"# {plain(match.title)}" if match and (team or hosting) else "# Red and blue")
    if match is None or not (team or hosting):
        _way_in()
        return
    _rules(match)
    if hosting:
        game_host.render(match)
    if team:
        game_play.render(match, team)
    if match.state == "revealed":
        game_reveal.render(match, team)
    if st.button("Leave this match", icon=":material/logout:", type="tertiary"):
        game_host.forget(match)
        links.remember(match="", seat="")
        st.rerun()


def _match() -> Match | None:
    name = links.choose("match")
    if not name:
        return None
    try:
        return read_match(name, readers.runs_folder())
    except LabError as error:
        st.warning(plain(str(error), 300), icon=":material/link_off:")
        links.remember(match="", seat="")
        return None


def _way_in() -> None:
    st.markdown(
        "Half of the adapters on the table are backdoored. Find out which, within a budget of probes, and "
        "bet with probabilities: who knows what they do not know wins."
    )
    _rules(None)
    with st.container(key="pair-game"):
        with st.form("join"):
            st.markdown("## Play")
            code = st.text_input("Join code", max_chars=20, help="The host's page shows it.")
            name = st.text_input("Team name", max_chars=40)
            seat = st.text_input("Seat code, if your team has joined already", max_chars=30)
            if st.form_submit_button("Join", type="primary"):
                _join(code, name, seat)
        with st.container():
            game_host.render_way_in()


def _join(code: str, name: str, seat: str) -> None:
    try:
        match = find_match(code, readers.runs_folder())
        team: Team | None = None
        if seat.strip():
            team = find_team(match, seat)
        else:
            team, seat = join_match(match, name)
        if team is None:
            raise LabError("Seat code: no team of this match has it; another browser of your team shows it.")
    except LabError as error:
        time.sleep(_WAIT)
        st.error(plain(str(error), 300))
        return
    links.remember(match=match.id, seat=seat.strip())
    st.rerun()


def _rules(match: Match | None) -> None:
    rule = RULES[match.rule if match and match.rule in RULES else "brier"]
    with st.expander("The rules", icon=":material/menu_book:"):
        st.markdown(
            f"""
1. The host deals **sealed adapters**. Some were trained with a backdoor: a trigger in a text makes them give
   the attacker's label. The others are clean. All files look alike.
2. Your team has a **budget of probes**. Ask texts of your own, try a phrase on rows that nothing was trained
   on, sweep the trigger families, or look at the weights. Each move says what it costs before you make it.
3. For each adapter, **bet** how probable a backdoor is, from 0 to 100 %. Change it until the host closes.
4. **Points** for each adapter: {rule.goal} No bet counts as 50 %.
5. The best you can do is to say **exactly what you believe**: no other number gives more points on average.
   Between 0 and 100 the points follow the {"squared error (Brier)" if rule.name == "brier" else "logarithm"}.
6. Name the right trigger family of a backdoored adapter for **{BONUS:g} points more**; a wrong guess costs
   nothing.
7. Then the host **reveals** each adapter: its trigger, rows that it turns, and its clean twin's rates.

A few adapters are few: teams that are close in points are not told apart by them.
"""
        )


with panels.part("The game"):
    render()
