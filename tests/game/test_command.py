import json

import pytest
from matches import bare_match

from lab.game.match import find_match, is_host, list_matches, move_on, read_truths
from lab.game.teams import join_match
from lab.store import list_runs


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def lines(text):
    return text.strip().splitlines()


def test_show_lists_the_matches_newest_first_and_no_truth(command, runs):
    assert command("show") == (0, "No match yet; lab game new makes one.\n", "")
    first, _ = bare_match(runs, title="Morning")
    second, _ = bare_match(runs, title="Evening", rule="log")
    join_match(move_on(second, "playing"), "Blue")
    code, out, _ = command("show")
    assert code == 0
    assert [line.split()[0] for line in lines(out)] == [second.id, first.id]
    for told in ("playing", f"join {second.join_code}", "3 adapters, 1 teams, 40 probes", "Evening"):
        assert told in lines(out)[0]
    document = json.loads(command("show", "--json")[1])
    assert [(m["state"], m["rule"], m["teams"]) for m in document] == [
        ("playing", "log", 1),
        ("lobby", "brier", 0),
    ]
    assert "backdoored" not in out
    assert "poisoned" not in json.dumps(document)


@pytest.mark.parametrize("name", ["id", "join_code"])
def test_host_prints_a_new_code_and_the_old_one_opens_nothing(command, runs, name):
    match, old = bare_match(runs)
    code, out, err = command("host", getattr(match, name))
    assert (code, err) == (0, "")
    assert is_host(match, out.strip())
    assert not is_host(match, old)


def test_host_of_no_match_is_a_sentence(command, runs):
    match, host = bare_match(runs)
    code, out, err = command("host", "NONE1")
    assert (code, out, len(lines(err))) == (2, "", 1)
    assert "no match here has it" in err
    assert is_host(match, host)


def test_new_deals_finished_runs_of_a_folder_and_trains_none(command, dealable, finished, runs, monkeypatch):
    monkeypatch.setattr("lab.game.training.train_match", None)
    code, out, _ = command(
        "new", "--from", dealable, "--adapters", 2, "--budget", 60, "--rule", "log", "--title", "Quiz"
    )
    assert code == 0
    [match] = list_matches(runs)
    assert (match.title, match.budget, match.rule, match.state) == ("Quiz", 60, "log", "lobby")
    said = dict(line.split(maxsplit=1) for line in lines(out)[:1])
    assert said == {"match": match.id}
    host = next(line.split()[2] for line in lines(out) if line.startswith("host code"))
    join = next(line.split()[2] for line in lines(out) if line.startswith("join code"))
    assert is_host(match, host)
    assert find_match(join, runs) == match
    for state in ("playing", "closed", "revealed"):
        match = move_on(match, state)
    dealt = {t["run"]: t["poisoned"] for t in read_truths(match).values()}
    assert dealt.pop(finished.id) is True
    assert list(dealt.values()) == [False]
    assert finished.twin.id not in dealt


def test_new_prints_one_json_document_and_nothing_else(command, dealable, runs):
    code, out, err = command("new", "--from", dealable, "--adapters", 2, "--json")
    told = json.loads(out)
    [match] = list_matches(runs)
    assert (code, err) == (0, "")
    assert told == {"match": match.id, "join_code": match.join_code, "host_code": told["host_code"]}
    assert is_host(match, told["host_code"])
    # the dealt runs stay where they are, and no page lists an adapter of the match
    assert len(list_runs(runs)) == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--adapters", "1"], "should be from 2 to 24"),
        (["--budget", "-1"], "budget"),
        (["--rule", "briar"], "brier"),
        (["--title", " "], "title"),
        (["--set", "adapter.rnak=4"], "Did you mean 'rank'"),
        (["--from", "nowhere"], "too few runs"),
        (["--from", "nowhere", "--set", "adapter.rank=4"], "give one of them"),
    ],
)
def test_a_mistake_is_a_sentence_before_anything_is_trained(command, runs, monkeypatch, asked, said):
    monkeypatch.setattr("lab.pipeline.run", None)
    code, out, err = command("new", *asked)
    assert (code, out, len(lines(err))) == (2, "", 1)
    assert said in err
    assert list_matches(runs) == []
