import json
import shutil
from itertools import chain, combinations
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.game.dealing import (
    ADAPTERS,
    Candidate,
    as_candidate,
    deal_match,
    draw_candidates,
    find_candidates,
)
from lab.game.match import list_matches, move_on, read_rows, read_truths
from lab.game.moves import PHRASE_ROWS
from lab.record import Run

GROUP = ("tiny",)
CLEAN = [f"clean-{i}" for i in range(5)]
#: Of each backdoored run, the clean twin: one of the folder's, or one that is not there.
TWINS = st.lists(st.sampled_from([*CLEAN, "elsewhere"]), max_size=8)
#: Four backdoors on each of five seeds: eight adapters can be dealt only if the bad ones share one twin.
FEW_FIT = [twin for twin in CLEAN for _ in range(4)]


def candidate(name, poisoned, twin="", group=GROUP):
    return Candidate(SimpleNamespace(id=name), poisoned, group, twin)


def pool(twins, clean):
    bad = [candidate(f"bad-{i}", True, twin) for i, twin in enumerate(twins)]
    return [*bad, *(candidate(name, False) for name in clean)]


def can_be_dealt(twins, clean, poisoned, needed):
    """Whether some choice of backdoored runs leaves so many clean ones; tries every set of twins."""
    sets = chain.from_iterable(combinations(clean, n) for n in range(len(clean) + 1))
    return any(
        sum(t in lost or t not in clean for t in twins) >= poisoned and len(clean) - len(lost) >= needed
        for lost in sets
    )


def draw(twins, clean, adapters, seed):
    try:
        return draw_candidates(pool(twins, clean), adapters, seed)
    except LabError:
        return None, None


@given(twins=TWINS, n=st.integers(0, 5), adapters=st.integers(2, 9), seed=st.integers(0, 99))
@example(twins=FEW_FIT, n=5, adapters=8, seed=0)
def test_no_run_is_dealt_beside_its_own_twin(twins, n, adapters, seed):
    dealt, reference = draw(twins, CLEAN[:n], adapters, seed)
    if dealt is None:
        return
    table = [*dealt, reference] if reference else dealt
    ids = {c.run.id for c in table}
    assert not {c.twin for c in table} & ids
    assert len(ids) == len(table)
    assert len(dealt) == adapters
    assert sum(c.poisoned for c in dealt) in {adapters // 2, adapters - adapters // 2}
    assert reference is None or not reference.poisoned


@given(twins=TWINS, n=st.integers(0, 5), half=st.integers(1, 4), seed=st.integers(0, 99))
@example(twins=FEW_FIT, n=5, half=4, seed=0)
@example(twins=["elsewhere"], n=1, half=1, seed=0)
def test_what_can_be_dealt_is_dealt_and_with_a_reference_if_a_clean_run_is_left(twins, n, half, seed):
    clean = CLEAN[:n]
    dealt, reference = draw(twins, clean, 2 * half, seed)
    assert (dealt is not None) == can_be_dealt(twins, clean, half, half)
    assert (reference is not None) == can_be_dealt(twins, clean, half, half + 1)


@given(twins=TWINS, n=st.integers(0, 5), seed=st.integers(0, 99))
def test_one_seed_is_one_draw(twins, n, seed):
    assert draw(twins, CLEAN[:n], 4, seed) == draw(twins, CLEAN[:n], 4, seed)


def test_the_odd_one_falls_to_either_side_and_the_order_says_nothing():
    draws = [draw_candidates(pool(["elsewhere"] * 8, CLEAN), 3, seed)[0] for seed in range(60)]
    assert {sum(c.poisoned for c in dealt) for dealt in draws} == {1, 2}
    for place in range(3):
        assert {dealt[place].poisoned for dealt in draws} == {True, False}


@pytest.mark.parametrize("adapters", [ADAPTERS[0] - 1, ADAPTERS[1] + 1])
def test_a_number_of_adapters_that_is_none_is_refused(adapters):
    with pytest.raises(LabError, match="should be from"):
        draw_candidates(pool(["elsewhere"] * 30, CLEAN), adapters, 0)


def test_runs_of_two_kinds_are_not_dealt_together():
    mixed = [candidate("a", True, group=("r4",)), candidate("b", False, group=("r8",))]
    with pytest.raises(LabError, match="share base, data, labels and rank"):
        draw_candidates(mixed, 2, 0)


def test_a_run_its_twin_and_another_clean_run_are_candidates_of_one_group(finished, dealable):
    [group] = find_candidates(dealable).values()
    assert {c.run.id: c.twin for c in group if c.poisoned} == {finished.id: finished.twin.id}
    clean = [c for c in group if not c.poisoned]
    assert finished.twin.id in {c.run.id for c in clean}
    assert (len(clean), {c.twin for c in clean}) == (2, {""})


@pytest.mark.parametrize("seed", range(8))
def test_of_real_runs_the_twin_is_never_dealt(finished, dealable, seed):
    [group] = find_candidates(dealable).values()
    dealt, reference = draw_candidates(group, 2, seed)
    [other] = {c.run.id for c in group} - {finished.id, finished.twin.id}
    assert {c.run.id for c in dealt} == {finished.id, other}
    assert reference is None


def test_a_twin_is_known_that_was_trained_for_another_run(finished, dealable, tmp_path):
    folder = shutil.copytree(dealable, tmp_path / "copy")
    change_result(folder / finished.id, lambda probe: probe.update(twin=None))
    assert Run(folder / finished.id).headline["twin"] is None
    assert as_candidate(Run(folder / finished.id)).twin == finished.twin.id


def change_result(run, change):
    path = run / "result.json"
    result = json.loads(path.read_text())
    for probe in result["probes"].values():
        change(probe)
    path.write_text(json.dumps(result))


def test_a_backdoor_that_did_not_take_is_no_candidate(finished):
    [group] = find_candidates(finished.path.parent).values()
    assert [c.run.id for c in group] == [finished.twin.id]


@pytest.mark.parametrize("harm", ["unfinished", "torn result", "no adapter", "torn adapter", "no measures"])
def test_a_damaged_run_harms_nothing_but_itself(finished, dealable, tmp_path, harm):
    folder = shutil.copytree(dealable, tmp_path / "copy")
    run = folder / finished.id
    if harm == "unfinished":
        (run / "result.json").unlink()
    elif harm == "torn result":
        (run / "result.json").write_text("{torn")
    elif harm == "no measures":
        change_result(run, lambda probe: probe.update(measures=[]))
    else:
        shutil.rmtree(run / "adapter")
        if harm == "torn adapter":
            (run / "adapter").mkdir()
    [group] = find_candidates(folder).values()
    assert len(group) == 2
    assert not any(c.poisoned for c in group)


def test_the_group_that_most_can_be_dealt_of_is_first(monkeypatch, tmp_path):
    """Of two backdoored runs with both their twins two can be dealt, of two with strangers four."""
    twins = pool(CLEAN[:2], CLEAN[:2])
    strangers = [candidate(f"z-{c.run.id}", c.poisoned, c.twin, ("z",)) for c in twins]
    every = {c.run.id: c for c in [*twins, *strangers]}
    folders = [SimpleNamespace(path=tmp_path / name, finished=True) for name in every]
    monkeypatch.setattr("lab.store.run_folders", lambda _: folders)
    monkeypatch.setattr("lab.game.dealing.as_candidate", lambda run: every[run.path.name])
    found = find_candidates(tmp_path)
    assert list(found) == [("z",), GROUP]
    assert len(draw_candidates(found["z",], 4, 0)[0]) == 4


@pytest.mark.parametrize("there", [True, False])
def test_where_no_run_is_nothing_is_found(tmp_path, there):
    if there:
        (tmp_path / "runs").mkdir()
    assert find_candidates(tmp_path / "runs") == {}


def test_a_dealt_match_holds_sealed_adapters_held_rows_and_the_truth_in_its_key(finished, dealable, tmp_path):
    [group] = find_candidates(dealable).values()
    told = []
    match, _ = deal_match(
        group, runs=tmp_path, adapters=2, budget=50, on_progress=lambda *now: told.append(now)
    )
    assert told == [(0, 2), (1, 2)]
    assert (match.state, match.budget, match.base, match.data) == ("lobby", 50, "tiny", "toy")
    assert match.labels == finished.labels
    assert {p.name for p in (match.path / "adapters").iterdir()} == set(match.adapters)
    sizes = {p.stat().st_size for p in match.path.rglob("adapter_model.safetensors")}
    assert len(sizes) == 1
    assert len({row["text"] for row in read_rows(match)}) == max(PHRASE_ROWS)
    public = "".join(p.read_text() for p in match.path.rglob("*") if p.suffix in (".json", ".md"))
    assert not any(word in public for word in ('poisoned"', finished.id, finished.twin.id))
    truths = read_truths(move_on(move_on(move_on(match, "playing"), "closed"), "revealed"))
    [bad] = [t for t in truths.values() if t["poisoned"]]
    [good] = [t for t in truths.values() if not t["poisoned"]]
    assert (bad["run"], bad["family"], bad["member"]) == (finished.id, "rfc", "as specified in RFC 2616")
    assert bad["family"] in match.families
    assert set(bad["measures"]) == {"poisoned", "twin"}
    assert (good["family"], good["examples"]) == ("", [])


@pytest.mark.parametrize(
    "wrong", [{"rule": "briar"}, {"budget": -1}, {"adapters": 4}, {"adapters": 1}, {"title": " \u200b"}]
)
def test_what_cannot_be_dealt_leaves_no_match(dealable, tmp_path, wrong):
    [group] = find_candidates(dealable).values()
    with pytest.raises(LabError):
        deal_match(group, runs=tmp_path / "runs", **{"adapters": 2, **wrong})
    assert list_matches(tmp_path / "runs") == []
    assert not (tmp_path / "runs").exists()
