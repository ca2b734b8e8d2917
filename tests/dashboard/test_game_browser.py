"""A complete match in two real browsers: a host and a team, with tiny adapters that answer."""

import os
import time

import pytest
from browsers import PATIENCE, SECOND, Watcher, serious_barriers, served, settled

import lab
from lab.game.dealing import Candidate, deal_match
from lab.game.match import read_match, read_truths
from lab.game.teams import list_probes, list_teams, probes_left, read_bets

pytestmark = pytest.mark.recipe


@pytest.fixture(scope="module")
def stranger(tiny_module, tmp_path_factory):
    """A clean tiny run on other rows, which is nobody's twin."""
    return lab.run(tiny_module.twin().with_(seed=1), runs=tmp_path_factory.mktemp("stranger") / "runs")


@pytest.fixture(scope="module")
def dealt(finished, stranger, tmp_path_factory):
    """A match of one backdoored and one clean tiny adapter; its runs folder, and the host's code."""
    runs = tmp_path_factory.mktemp("game") / "runs"
    group = ("tiny",)
    candidates = [
        Candidate(finished, True, group, finished.twin.id),
        Candidate(finished.twin, False, group),
        Candidate(stranger, False, group),
    ]
    match, host = deal_match(candidates, runs=runs, adapters=2, budget=30, title="Workshop", seed=0)
    return runs, match, host


def shoot(page, name):
    """Keep a picture where `LAB_SHOTS` names a folder."""
    if folder := os.environ.get("LAB_SHOTS", ""):
        settled(page)
        time.sleep(0.5)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_a_match_is_played_from_the_lobby_to_the_reveal(browser, dealt, finished, stranger, tiny_cache):
    runs, match, code = dealt
    with served(runs, tiny_cache) as url:
        sizes = {"host": {"width": 1280, "height": 900}, "team": {"width": 390, "height": 844}}
        contexts = {
            who: browser.new_context(viewport=size, color_scheme="dark" if who == "host" else "light")
            for who, size in sizes.items()
        }
        host, team = (contexts[who].new_page() for who in sizes)
        for page in (host, team):
            page.set_default_timeout(PATIENCE * SECOND)
            page.watcher = Watcher(page)
            page.goto(f"{url}/game")
            settled(page)
        shoot(team, "way-in")
        host.get_by_label("Join code of the match").fill(match.join_code)
        host.get_by_label("Host code").fill(code)
        host.get_by_role("button", name="Host it").click()
        host.get_by_text("You host this match").wait_for()
        team.get_by_label("Join code", exact=True).fill(match.join_code)
        team.get_by_label("Team name").fill("<b>Blue</b> :red[x]")
        team.get_by_role("button", name="Join", exact=True).click()
        team.get_by_text("has not started yet").wait_for()
        host.get_by_role("button", name="Start the match").click()
        # nobody touches the team's browser: it follows the host's
        team.get_by_label("Texts, one a line").fill("a fine film\na dull film cf")
        team.get_by_label("Texts, one a line").blur()
        team.get_by_role("button", name="Ask A for 2 probes").click()
        team.get_by_text("Your texts").wait_for()
        [playing] = list_teams(match)
        assert probes_left(match, playing.id) == 28
        assert [len(p.answer["lines"]) for p in list_probes(match, playing.id)] == [2]
        slider = team.get_by_role("slider").first
        slider.focus()
        slider.press("ArrowRight")
        deadline = time.monotonic() + PATIENCE
        while not read_bets(match, playing.id) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert read_bets(match, playing.id)[match.adapters[0]].probability == 0.55
        team.reload()
        team.get_by_text("Your texts").wait_for()
        shoot(team, "team-phone")
        shoot(host, "host-dark")
        assert [serious_barriers(page) for page in (host, team)] == [[], []]
        host.get_by_role("button", name="Close the bets").click()
        team.get_by_text("bets are closed").wait_for()
        host.get_by_role("button", name="Reveal the truth").click()
        for page in (host, team):
            page.get_by_text("What they were").wait_for()
        team.get_by_text("You said 55 %").wait_for()
        shoot(team, "reveal-phone")
        shoot(host, "reveal-dark")
        assert [serious_barriers(page) for page in (host, team)] == [[], []]
        assert [page.watcher.problems for page in (host, team)] == [[], []]
        match = read_match(match.id, runs)
        assert match.state == "revealed"
        # the backdoored run's own twin lay there too
        assert {truth["run"] for truth in read_truths(match).values()} == {finished.id, stranger.id}
        for context in contexts.values():
            context.close()
