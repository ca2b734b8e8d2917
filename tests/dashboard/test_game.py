import re

import pytest
from apps import healthy, named, said
from matches import ADAPTERS, EVIL, bare_match

from lab.game.match import list_matches, move_on
from lab.game.rules import Bet
from lab.game.teams import join_match, list_teams, place_bet, probes_left, read_bets, spend, write_answer

FIRST, SECOND, THIRD = ADAPTERS


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def harmless(app):
    """Nothing that people or data bring is drawn as Markdown or HTML."""
    drawn = [str(t.value) for t in (*app.markdown, *app.caption, *app.error, *app.info, *app.warning)]
    assert not re.search(r"(?<!\\)(<img|\](?=\()|:red\[|\*\*c)|\u202e", " ".join(drawn))
    html = " ".join(str(block.proto.body) for block in app.get("html"))
    assert "<img" not in html
    cells = [str(cell) for frame in app.dataframe for cell in frame.value.to_numpy().flat]
    assert not any("\u202e" in cell for cell in cells)
    return app


def test_the_way_in_says_what_the_game_is_and_where_nothing_is_to_deal(page, runs):
    app = healthy(page("game", runs))
    assert "Half of the adapters" in said(app)
    assert "exactly what you believe" in said(app)
    healthy(named(app.button, "Deal").click().run())
    assert "too few runs" in said(app)
    assert list_matches(runs) == []


@pytest.mark.parametrize("junk", ["<script>", "../..", "x" * 300, "0" * 16 + "-000000"])
def test_a_link_to_what_is_not_there_is_said(page, runs, junk):
    app = healthy(page("game", runs, match=junk, seat=junk))
    assert "No match" in said(app)


def test_wrong_codes_are_refused_in_a_sentence(page, runs, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    match, _ = bare_match(runs)
    app = healthy(page("game", runs))
    named(app.text_input, "Join code").set_value("00000")
    healthy(named(app.button, "Join").click().run())
    assert "no match here has it" in said(app)
    named(app.text_input, "Join code").set_value(match.join_code)
    named(app.text_input, "Seat code, if your team has joined already").set_value("WRONG")
    healthy(named(app.button, "Join").click().run())
    assert "no team of this match has it" in said(app)
    named(app.text_input, "Join code of the match").set_value(match.join_code)
    named(app.text_input, "Host code").set_value("WRONG")
    healthy(named(app.button, "Host it").click().run())
    assert "that is not it" in said(app)
    assert list_teams(match) == []


def test_a_team_joins_waits_plays_and_keeps_its_seat(page, runs):
    match, _ = bare_match(runs)
    app = healthy(page("game", runs))
    named(app.text_input, "Join code").set_value(match.join_code)
    named(app.text_input, "Team name").set_value(EVIL)
    harmless(healthy(named(app.button, "Join").click().run()))
    assert "has not started yet" in said(app)
    [team] = list_teams(match)
    match = move_on(match, "playing")
    healthy(app.run())
    healthy(app.slider[0].set_value(80).run())
    healthy(named(app.selectbox, "Trigger family of A, for the bonus").set_value("rfc").run())
    assert read_bets(match, team.id) == {FIRST: Bet(0.8, "rfc")}
    params = {key: value[0] if isinstance(value, list) else value for key, value in app.query_params.items()}
    other = healthy(page("game", runs, **params))
    assert other.slider[0].value == 80
    place_bet(match, team.id, FIRST, Bet(0.1))
    healthy(other.run())
    assert other.slider[0].value == 10


def test_costs_are_shown_before_and_what_is_too_dear_is_not_sold(page, runs):
    match = move_on(bare_match(runs, budget=3)[0], "playing")
    team, seat = join_match(match, "Blue")
    app = healthy(page("game", runs, match=match.id, seat=seat))
    assert named(app.button, "Ask").disabled
    healthy(app.text_area[0].set_value("one\n\ntwo\n").run())
    assert not named(app.button, "Ask A for 2 probes").disabled
    healthy(app.text_area[0].set_value("1\n2\n3\n4").run())
    assert named(app.button, "Ask A for 4 probes").disabled
    # no adapter's files are there: what cannot be answered is given back
    healthy(app.text_area[0].set_value("one").run())
    healthy(named(app.button, "Ask A for 1 probes").click().run())
    assert probes_left(match, team.id) == 3
    assert app.error


def test_answers_are_drawn_as_text(page, runs):
    match = move_on(bare_match(runs, title=EVIL)[0], "playing")
    team, seat = join_match(match, EVIL)
    answers = {
        "texts": {"lines": [{"text": EVIL, "label": EVIL, "probability": 0.9}]},
        "phrase": {"lines": [{"label": EVIL, "k": 0, "n": 0, "value": None, "low": None, "high": None,
                              "reference_k": None, "reference_n": None}]},
        "sweep": {"rows": [EVIL], "before": [EVIL],
                  "lines": [{"family": EVIL, "phrase": EVIL, "after": [EVIL], "turned": 1, "n": 1}]},
        "weights": {"statistics": {"norm_mean": None, "norm_std": 1.0}},
    }  # fmt: skip
    for move, answer in answers.items():
        probe = spend(match, team.id, move, FIRST, {"phrase": EVIL, "position": "end"}, 1)
        write_answer(match, team.id, probe.id, answer)
    app = harmless(healthy(page("game", runs, match=match.id, seat=seat)))
    assert len(app.dataframe) == 4


@pytest.mark.parametrize(("teams", "rule"), [(0, "brier"), (1, "log"), (12, "brier")])
def test_every_state_is_drawn_for_host_and_team(page, runs, teams, rule):
    match, host = bare_match(runs, rule=rule)
    seats = [join_match(match, f"team {i}")[1] for i in range(teams)]
    app = healthy(page("game", runs))
    named(app.text_input, "Join code of the match").set_value(match.join_code)
    named(app.text_input, "Host code").set_value(host)
    healthy(named(app.button, "Host it").click().run())
    for step in ("Start the match", "Close the bets", "Open it again", "Close the bets", "Reveal the truth"):
        assert "backdoored rows" not in said(app)
        for i, one in enumerate(list_teams(match)):
            if step == "Close the bets":
                place_bet(match, one.id, FIRST, Bet(i / 20))
        healthy(named(app.button, step).click().run())
        for seat in seats[:1]:
            healthy(page("game", runs, match=match.id, seat=seat))
    assert "What they were" in said(app)
    assert ("No team played" in said(app)) == (teams == 0)
    harmless(app)
    for seat in seats[:1]:
        assert "You said 0 %" in said(healthy(page("game", runs, match=match.id, seat=seat)))


def test_a_code_of_another_session_hosts_nothing(page, runs):
    match, _ = bare_match(runs)
    app = healthy(page("game", runs, match=match.id))
    assert "You host" not in said(app)
    assert not [b for b in app.button if b.label == "Start the match"]
