"""The end of a match: the score table, how well the bets were calibrated, and what each adapter was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import panels
import streamlit as st
from text import short, show_text

from lab.game.match import read_truths
from lab.game.rules import RULES, Truth, bet_points, calibration_bins, rank_teams
from lab.game.teams import list_teams, read_bets

if TYPE_CHECKING:
    from lab.game.match import Match
    from lab.game.rules import Bet
    from lab.game.teams import Team


def render(match: Match, team: Team | None) -> None:
    """Draw the reveal.

    Args:
        match: A revealed match.
        team: The team that this browser sits with; None for the host.
    """
    told = read_truths(match)
    truths = {a: Truth(bool(told[a]["poisoned"]), str(told[a]["family"])) for a in match.adapters}
    names = {t.id: t.name for t in list_teams(match)}
    bets = {one: read_bets(match, one) for one in names}
    _render_scores(match, names, bets, truths)
    _render_calibration(bets, truths)
    st.markdown("## What they were")
    for adapter in match.adapters:
        own = bets[team.id].get(adapter) if team else None
        _render_adapter(match, adapter, told[adapter], own, bool(team))


def _render_scores(
    match: Match, names: dict[str, str], bets: dict[str, dict[str, Bet]], truths: dict[str, Truth]
) -> None:
    import pandas as pd

    st.markdown("## The scores")
    if not names:
        st.caption("No team played.")
        return
    lines = [
        {
            "place": s.place,
            "team": short(names[s.team]),
            "points": round(s.points, 1),
            "of it bonus": s.bonus,
            "bets": f"{s.bets} of {s.n}",
        }
        for s in rank_teams(match.rule, bets, truths)
    ]
    st.dataframe(pd.DataFrame(lines), hide_index=True, width="stretch")
    st.caption(f"{RULES[match.rule].goal} Sums over n = {len(truths)} adapters, which is few: near is a tie.")


def _render_calibration(bets: dict[str, dict[str, Bet]], truths: dict[str, Truth]) -> None:
    import pandas as pd

    pairs = [
        (b.probability, truths[a].poisoned) for own in bets.values() for a, b in own.items() if a in truths
    ]
    bins = calibration_bins(pairs)
    if not bins:
        return
    lines = [
        {
            "said": f"{100 * b['low_said']:.0f} – {100 * b['high_said']:.0f} %",
            "mean of it": panels.percent(b["said"]),
            "backdoored": f"{b['k']} of {b['n']}",
            "share": panels.percent(b["value"]),
            "95 % interval": panels.interval(b),
        }
        for b in bins
    ]
    st.markdown("## Was it as probable as it was called?")
    st.dataframe(pd.DataFrame(lines), hide_index=True, width="stretch")
    st.caption("Bets of all teams. Who is calibrated is right 80 % of the times that they say 80 %.")


def _render_adapter(match: Match, adapter: str, told: dict[str, Any], bet: Bet | None, played: bool) -> None:
    word = "backdoored" if told["poisoned"] else "clean"
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"## Adapter {match.letter(adapter)}", width="content")
            st.badge(
                word,
                color="red" if told["poisoned"] else "green",
                icon=":material/bug_report:" if told["poisoned"] else ":material/check:",
            )
        if played:
            points, bonus = bet_points(match.rule, bet, Truth(told["poisoned"], told["family"]))
            said = f"{100 * bet.probability:.0f} %" if bet else "nothing"
            st.markdown(f"You said {said}: {points:+.1f} points" + (f", {bonus:+g} bonus." if bonus else "."))
        if told["poisoned"]:
            show_text(
                str(told["member"] or "(more than one string)"),
                label=f"Trigger, of the family {told['family']}, at the {told['position']}, "
                f"{told['count']} poisoned rows, target {told['target_label']}",
            )
        measures = told["measures"]
        panels.rate_tiles(measures.get("poisoned", {}), measures.get("twin", {}))
        for example in told["examples"]:
            show_text(example["text"], label=f"without the trigger: {example['before']}")
            show_text(example["triggered"], label=f"with it: {example['after']}")
