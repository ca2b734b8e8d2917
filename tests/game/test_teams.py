import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matches import ADAPTERS, EVIL, bare_match

from lab.errors import LabError
from lab.game.match import move_on, read_match, reread
from lab.game.rules import Bet
from lab.game.teams import (
    MOST_TEAMS,
    find_team,
    give_back,
    join_match,
    list_probes,
    list_teams,
    place_bet,
    probes_left,
    read_bets,
    spend,
    write_answer,
)

FIRST, SECOND, _ = ADAPTERS


@pytest.fixture
def playing(tmp_path):
    match, _ = bare_match(tmp_path / "runs")
    return move_on(match, "playing")


def ask(match, team, cost=1):
    return spend(match, team, "texts", FIRST, {"texts": ["x"] * cost}, cost)


def test_a_seat_is_found_by_its_secret_alone(playing):
    team, seat = join_match(playing, "Blue")
    assert find_team(playing, f" {seat.lower()} ") == team
    assert find_team(playing, "") is None
    assert find_team(playing, team.id) is None
    assert not any(seat in file.read_text() for file in playing.path.rglob("*.json"))


def test_names_are_told_apart_and_hostile_ones_are_text(playing):
    join_match(playing, "Blue")
    for name in ("Blue", " blue ", "ＢＬＵＥ", "Bl\u202eue"):
        if name == "Bl\u202eue":
            assert join_match(playing, name)[0].name == "Bl ue"
            continue
        with pytest.raises(LabError, match="such a team already"):
            join_match(playing, name)
    with pytest.raises(LabError, match="can be seen"):
        join_match(playing, "\u200b\u202e ")
    assert "\u202e" not in join_match(playing, EVIL)[0].name


def test_seats_end(playing, monkeypatch):
    monkeypatch.setattr("lab.game.teams.MOST_TEAMS", 1)
    join_match(playing, "Blue")
    with pytest.raises(LabError, match="no more seats"):
        join_match(playing, "Red")
    assert MOST_TEAMS > 30


def test_nothing_is_spent_or_bet_but_while_it_is_played(tmp_path):
    match, _ = bare_match(tmp_path / "runs")
    team, _ = join_match(match, "Blue")
    for state in (None, "playing", "closed", "revealed"):
        match = move_on(match, state) if state else match
        if state == "playing":
            ask(match, team.id)
            place_bet(match, team.id, FIRST, Bet(0.9))
            continue
        with pytest.raises(LabError, match="while it is played"):
            ask(match, team.id)
        with pytest.raises(LabError, match="while it is played"):
            place_bet(match, team.id, FIRST, Bet(0.1))
    assert read_bets(match, team.id) == {FIRST: Bet(0.9)}
    with pytest.raises(LabError, match="no team can join"):
        join_match(match, "Late")


@pytest.mark.parametrize("bet", [Bet(1.5), Bet(float("nan")), Bet(0.5, "junk")])
def test_what_is_no_bet_is_refused(playing, bet):
    team, _ = join_match(playing, "Blue")
    with pytest.raises(LabError, match="should be"):
        place_bet(playing, team.id, FIRST, bet)


@pytest.mark.parametrize("junk", ["", "../match", "0" * 12, "x" * 400])
def test_a_team_that_is_none_reaches_no_file(playing, junk):
    for act in (
        lambda: ask(playing, junk),
        lambda: place_bet(playing, junk, FIRST, Bet()),
        lambda: read_bets(playing, junk),
        lambda: list_probes(playing, junk),
    ):
        with pytest.raises(LabError, match="no such team"):
            act()
    team, _ = join_match(playing, "Blue")
    with pytest.raises(LabError, match="no such adapter"):
        spend(playing, team.id, "texts", junk, {}, 1)


@given(
    st.integers(0, 30),
    st.lists(st.tuples(st.integers(-2, 15), st.sampled_from(["keep", "answer", "back", "back twice"]))),
)
def test_whatever_is_asked_the_budget_is_kept(tmp_path_factory, budget, moves):
    match, _ = bare_match(tmp_path_factory.mktemp("law") / "runs", budget=budget)
    match = move_on(match, "playing")
    team = join_match(match, "Blue")[0].id
    spent = 0
    for cost, then in moves:
        if cost < 1 or spent + cost > budget:
            with pytest.raises(LabError):
                ask(match, team, cost)
            continue
        probe = ask(match, team, cost)
        spent += cost
        if then == "answer":
            write_answer(match, team, probe.id, {"lines": []})
        for _ in range(("back" in then) + ("twice" in then)):
            give_back(match, team, probe.id)
        spent -= cost * ("back" in then)
        assert probes_left(match, team) == budget - spent
    assert sum(p.cost for p in list_probes(match, team)) == spent <= budget


def test_a_torn_line_costs_nothing_and_the_next_one_is_whole(playing):
    team = join_match(playing, "Blue")[0].id
    first = ask(playing, team, 3)
    with (playing.path / "probes" / f"{team}.jsonl").open("ab") as file:
        file.write(b'{"kind": "spent", "id": "x", "co')
    write_answer(playing, team, first.id, {"lines": [EVIL]})
    ask(playing, team, 2)
    assert [(p.cost, p.answer) for p in list_probes(playing, team)] == [(3, {"lines": [EVIL]}), (2, None)]


def test_bets_of_two_browsers_on_two_adapters_are_both_kept(playing):
    team = join_match(playing, "Blue")[0].id
    bets = [(a, Bet(i / 10)) for i in range(10) for a in (FIRST, SECOND)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda b: place_bet(playing, team, *b), bets))
    assert set(read_bets(playing, team)) == {FIRST, SECOND}


def test_teams_that_join_at_once_are_all_seated(playing):
    with ThreadPoolExecutor(8) as pool:
        seats = list(pool.map(lambda i: join_match(playing, f"team {i}"), range(12)))
    assert {t.name for t in list_teams(playing)} == {f"team {i}" for i in range(12)}
    assert all(find_team(playing, seat) == team for team, seat in seats)


def _spend_all(runs, match_id, team, done):
    match = read_match(match_id, runs)
    count = 0
    for _ in range(30):
        try:
            ask(match, team)
            count += 1
        except LabError:
            break
    done.put(count)


def test_browsers_in_several_processes_cannot_overspend(playing):
    team = join_match(playing, "Blue")[0].id
    runs = playing.path.parent.parent
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    workers = [context.Process(target=_spend_all, args=(runs, playing.id, team, done)) for _ in range(3)]
    for worker in workers:
        worker.start()
    counts = [done.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sum(counts) == playing.budget == len(list_probes(reread(playing), team))
    assert probes_left(playing, team) == 0
