import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matches import EVIL, bare_match

from lab.audit.sealing import key_path
from lab.errors import LabError
from lab.game import match as matches
from lab.game.match import (
    NEXT,
    clean_name,
    find_match,
    is_host,
    list_matches,
    move_on,
    read_match,
    read_truths,
    renew_host_code,
    reread,
)
from lab.store import list_runs


@pytest.fixture
def made(tmp_path):
    return bare_match(tmp_path / "runs")


def test_a_match_is_found_by_its_join_code_however_it_is_typed(made, tmp_path):
    match, _ = made
    typed = f" {match.join_code[:2].lower()}-{match.join_code[2:].lower()} "
    assert find_match(typed, tmp_path / "runs") == match
    with pytest.raises(LabError, match="no match here has it"):
        find_match("00000", tmp_path / "runs")


@pytest.mark.parametrize("junk", ["", "..", "../..", "x" * 300, "0" * 16 + "-00000g", "\0"])
def test_no_id_leads_out_of_the_folder(made, tmp_path, junk):
    with pytest.raises(LabError, match="No match"):
        read_match(junk, tmp_path / "runs")


@pytest.mark.parametrize("state", NEXT)
@pytest.mark.parametrize("to", [*NEXT, "junk"])
def test_only_the_state_whose_turn_it_is_follows(made, state, to):
    match, _ = made
    path = match.path / "match.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": state}))
    if to in NEXT[state]:
        assert move_on(match, to).state == to
    else:
        with pytest.raises(LabError, match=f"The match is {state}"):
            move_on(match, to)
        assert reread(match).state == state


def test_the_truth_is_in_no_file_of_the_match_before_the_reveal(made, monkeypatch):
    match, _ = made
    read = []
    monkeypatch.setattr(matches, "_key", lambda m, key=matches._key: read.append(1) or key(m))
    for state in ("playing", "closed", "playing", "closed"):
        with pytest.raises(LabError, match="sealed until"):
            read_truths(reread(match))
        held = [file.read_text() for file in match.path.rglob("*.json")]
        assert not any("poisoned" in text for text in held)
        match = move_on(match, state)
    assert read == []
    assert {t["poisoned"] for t in read_truths(move_on(match, "revealed")).values()} == {True, False}
    assert read == [1]
    assert key_path(match.path).parent.parent == match.path.parent
    assert key_path(match.path).parent.stat().st_mode & 0o077 == 0


def test_the_hosts_code_is_written_nowhere_and_can_be_renewed(made):
    match, host = made
    folder = match.path.parent
    assert not any(host in file.read_text() for file in folder.rglob("*.json"))
    assert is_host(match, f" {host.lower()} ")
    assert not any(is_host(match, wrong) for wrong in ("", match.join_code, host[:-1], "\ud800"))
    new = renew_host_code(match)
    assert is_host(match, new)
    assert not is_host(match, host)


def test_two_hosts_that_press_at_once_move_it_once(made):
    match, _ = made

    def start(_):
        try:
            return move_on(match, "playing").state
        except LabError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(start, range(8)))
    assert said.count("playing") == 1


def test_damaged_matches_harm_no_other(made, tmp_path):
    match, _ = made
    for content in ("{torn", "[]", "{}", json.dumps({"schema": 9}), "null"):
        other, _ = bare_match(tmp_path / "runs")
        (other.path / "match.json").write_text(content)
    assert list_matches(tmp_path / "runs") == [match]
    assert list_matches(tmp_path / "none") == []
    assert len(list_runs(tmp_path / "runs")) == 0


@pytest.mark.parametrize("budget", [-1, 100_001])
def test_a_budget_that_is_none_is_refused(tmp_path, budget):
    with pytest.raises(LabError, match="budget"):
        bare_match(tmp_path / "runs", budget=budget)
    assert not (tmp_path / "runs").exists()


@given(st.text(st.characters(), max_size=200))
def test_a_name_is_one_line_that_can_be_seen(name):
    try:
        kept = clean_name(name, "team name")
    except LabError:
        return
    assert 1 <= len(kept) <= 40
    assert kept.isprintable()
    kept.encode()


def test_a_hostile_title_is_kept_as_text(tmp_path):
    match, _ = bare_match(tmp_path / "runs", title=EVIL)
    assert "\u202e" not in match.title
    assert match.title.startswith("<img")
