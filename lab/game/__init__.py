"""Red and blue, the workshop's game: sealed adapters, a budget of probes, bets, and a reveal."""

from __future__ import annotations

from lab.game.match import Match, find_match, list_matches, read_match
from lab.game.rules import RULES, Bet, Truth, rank_teams

__all__ = ["RULES", "Bet", "Match", "Truth", "find_match", "list_matches", "rank_teams", "read_match"]
