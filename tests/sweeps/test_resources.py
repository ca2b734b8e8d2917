"""How many workers: bounded by cores, memory and cards, here and on machines that are made up."""

import pytest

from lab import Experiment
from lab.errors import LabError
from lab.sweeps import resources
from lab.sweeps.resources import Card, choose_team, need_bytes

GIB = 2**30
MINILM = Experiment.from_dict({"base": {"model": "minilm"}})
LARGE = Experiment.from_dict({"base": {"model": "smollm2"}})


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores and so much memory."""

    def make(cores, gib):
        monkeypatch.setattr(resources, "core_count", lambda: cores)
        monkeypatch.setattr(resources, "available_bytes", lambda: gib * GIB)
        monkeypatch.setattr(resources.sys, "platform", "linux")

    return make


def test_a_worker_for_each_core_where_memory_allows(machine):
    machine(8, 64)
    assert choose_team("auto", 100, [MINILM], "cpu").count == 8
    machine(8, 6)
    team = choose_team("auto", 100, [MINILM], "cpu")
    assert team.count == int(6 * 0.8 * GIB / need_bytes([MINILM])) < 8
    assert "memory" in team.why
    assert choose_team("auto", 100, [LARGE], "cpu").count == 1
    machine(2, 0.5)
    assert choose_team("auto", 100, [MINILM], "cpu").count == 1, "one works always"


def test_no_more_workers_than_jobs_nor_other_than_asked(machine):
    machine(8, 64)
    assert choose_team("auto", 3, [MINILM], "cpu").count == 3
    assert choose_team(5, 100, [MINILM], "cpu").count == 5
    team = choose_team(2, 100, [MINILM], "cpu")
    assert len(team.environments) == 2
    assert all(int(told["OMP_NUM_THREADS"]) >= 1 for told in team.environments)


def test_several_small_runs_share_a_card(machine):
    machine(16, 64)
    cards = [Card(0, 8 * GIB), Card(3, 2 * GIB)]
    team = choose_team("auto", 100, [MINILM], "cuda", cards=lambda: cards)
    each = need_bytes([MINILM], on_card=True)
    room = [int(8 * 0.8 * GIB / each), int(2 * 0.8 * GIB / each)]
    told = [e["CUDA_VISIBLE_DEVICES"] for e in team.environments]
    assert (told.count("0"), told.count("3")) == (min(room[0], 16 - room[1]), room[1])
    assert told[:2] == ["0", "3"], "cards are filled one after the other, not the first one first"
    full = [Card(0, 0.1 * GIB)]
    assert choose_team("auto", 100, [LARGE], "cuda", cards=lambda: full).count == 1


def test_a_cpu_sweep_asks_for_no_card(machine):
    machine(2, 16)
    team = choose_team("auto", 9, [MINILM], "cpu", cards=lambda: pytest.fail("asked"))
    assert "CUDA_VISIBLE_DEVICES" not in team.environments[0]


@pytest.mark.parametrize("workers", [0, -1, "0", "two", "1.5", "", True])
def test_a_number_of_workers_that_is_none(workers):
    with pytest.raises(LabError, match="workers = "):
        choose_team(workers, 1, [MINILM], "cpu")


def test_full_fine_tuning_needs_more(monkeypatch):
    assert need_bytes([LARGE.with_(**{"adapter.kind": "full"})]) > need_bytes([LARGE]) > need_bytes([MINILM])
