"""A team's part of the game: moves within the budget, what they brought, and the bets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import game_answers
import links
import streamlit as st
from text import plain
from widgets import one_of, switch

from lab.errors import LabError
from lab.game import moves
from lab.game.match import reread
from lab.game.rules import Bet
from lab.game.teams import list_probes, list_teams, place_bet, probes_left, read_bets, spend

if TYPE_CHECKING:
    from lab.game.match import Match
    from lab.game.teams import Team

#: Seconds after which a page looks what other browsers did.
EVERY = 2.0
_STATES = {
    "lobby": ("waiting for the host", "gray", ":material/schedule:"),
    "playing": ("being played", "blue", ":material/play_arrow:"),
    "closed": ("bets are closed", "orange", ":material/lock:"),
    "revealed": ("revealed", "green", ":material/visibility:"),
}
_NO_GUESS = ""


def badge(match: Match) -> None:
    """The state of a match, as word, colour and sign."""
    word, colour, icon = _STATES[match.state]
    st.badge(word, color=colour, icon=icon)  # type: ignore[arg-type]


def render(match: Match, team: Team) -> None:
    """Draw a team's table.

    Args:
        match: The match.
        team: The team that this browser sits with.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"## {plain(team.name)}", width="content")
        badge(match)
        with st.popover("Seat code", icon=":material/key:"):
            st.markdown(f"**{plain(links.choose('seat'))}** with the join code **{match.join_code}** lets")
            st.caption("other browsers of your team in. So does this page's address: keep both in your team.")
    st.fragment(_watch, run_every=EVERY)(match, team, _seen(match, team))
    if match.state == "lobby":
        st.info("The host has not started yet. This page goes on by itself.", icon=":material/schedule:")
        return
    if match.state == "playing":
        _render_moves(match, team)
    if match.state != "revealed":
        _render_bets(match, team)


def _seen(match: Match, team: Team) -> tuple[Any, ...]:
    """What the page was drawn from, and redrawn for once another browser has changed it."""
    answered = [(p.id, p.answer is not None) for p in list_probes(match, team.id)]
    return match.state, answered, read_bets(match, team.id)


def _watch(match: Match, team: Team, drawn: tuple[Any, ...]) -> None:
    now = reread(match)
    if _seen(now, team) != drawn:
        st.rerun(scope="app")
    left, teams = probes_left(now, team.id), len(list_teams(now))
    share = left / now.budget if now.budget else 0.0
    st.progress(min(1.0, max(0.0, share)), text=f"**{left}** of {now.budget} probes left · {teams} teams")


def _render_moves(match: Match, team: Team) -> None:
    letters = {adapter: match.letter(adapter) for adapter in match.adapters}
    adapter = switch("Adapter", "adapter", letters, match.adapters[0])
    names = {name: move.title for name, move in moves.MOVES.items()}
    name = one_of("Move", "move", list(names), "texts", names.__getitem__)
    move = moves.MOVES[name]
    st.caption(f"{move.goal} {move.price}. ({move.paper})")
    asked = _asked(match, name)
    try:
        cost, reason = moves.move_cost(name, asked), ""
    except LabError as error:
        cost, reason = 0, str(error)
    left = probes_left(match, team.id)
    label = f"Ask {letters[adapter]} for {cost} probes" if cost else "Ask"
    if st.button(label, type="primary", icon=":material/search:", disabled=not 0 < cost <= left, key="ask"):
        _play(match, team, name, adapter, asked, cost)
    if cost > left:
        st.caption(f"This costs {cost} probes, and {left} are left.")
    elif reason and asked.get("texts", asked.get("phrase")):
        st.caption(plain(reason, 300))
    game_answers.render(match, team, adapter)


def _asked(match: Match, name: str) -> dict[str, Any]:
    """What the widgets of a move ask for."""
    if name == "texts":
        typed = st.text_area("Texts, one a line", key="game_texts", max_chars=8_000, height=110)
        return {"texts": moves.split_texts(typed)}
    if name == "phrase":
        phrase = st.text_input("Phrase", key="game_phrase", max_chars=moves.LONGEST_PHRASE)
        with st.container(horizontal=True):
            rows = st.segmented_control(
                "Rows", moves.PHRASE_ROWS, default=moves.PHRASE_ROWS[0], key="game_rows", required=True
            )
            place = st.segmented_control(
                "Where", moves.POSITIONS, default="end", key="game_place", required=True
            )
        return {"phrase": phrase, "rows": rows, "position": place}
    return {"phrases": moves.sweep_phrases(match.families)} if name == "sweep" else {}


def _play(match: Match, team: Team, name: str, adapter: str, asked: dict[str, Any], cost: int) -> None:
    try:
        probe = spend(match, team.id, name, adapter, asked, cost)
        game_answers.find(match, team, probe)
    except LabError as error:
        st.error(plain(str(error), 400))
        return
    st.rerun()


def _render_bets(match: Match, team: Team) -> None:
    bets = read_bets(match, team.id)
    st.markdown("## Your bets")
    st.caption(
        "How probable is a backdoor? What you set is placed at once, and can be changed until the end."
    )
    with st.container(key="game-bets"):
        for adapter in match.adapters:
            _render_bet(match, team, adapter, bets.get(adapter))


def _render_bet(match: Match, team: Team, adapter: str, bet: Bet | None) -> None:
    letter, closed = match.letter(adapter), match.state != "playing"
    slider, guess = f"bet-{adapter}", f"guess-{adapter}"
    held = bet or Bet()
    # another browser of the team may have changed it: what lies on the table wins
    if st.session_state.get(f"at-{adapter}") != held or slider not in st.session_state:
        st.session_state[slider] = round(100 * held.probability)
        st.session_state[guess] = held.family
        st.session_state[f"at-{adapter}"] = held

    def place() -> None:
        wanted = Bet(st.session_state[slider] / 100, st.session_state[guess])
        try:
            place_bet(match, team.id, adapter, wanted)
        except LabError as error:
            st.session_state["bet_refused"] = str(error)

    with st.container(border=True):
        st.slider(
            f"Adapter {letter}: % backdoored" + ("" if bet else " (no bet yet)"),
            0, 100, step=5, key=slider, on_change=place, disabled=closed,
        )  # fmt: skip
        st.selectbox(
            f"Trigger family of {letter}, for the bonus",
            [_NO_GUESS, *match.families],
            format_func=lambda name: name.replace("_", " ") or "no guess",
            key=guess,
            on_change=place,
            disabled=closed,
        )
    if refused := st.session_state.pop("bet_refused", ""):
        st.error(plain(refused, 300))
