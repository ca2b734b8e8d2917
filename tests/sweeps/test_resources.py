"""How many workers: bounded by cores, memory and cards, here and on machines that are made up."""

import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from lab import Experiment
from lab.errors import LabError
from lab.sweeps import resources
from lab.sweeps.resources import Card, _card_names, choose_team, core_count, need_bytes
from lab.work_queue import thread_share

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
    cards = [Card("0", 8 * GIB), Card("3", 2 * GIB)]
    team = choose_team("auto", 100, [MINILM], "cuda", cards=lambda: cards)
    each = need_bytes([MINILM], on_card=True)
    room = [int(8 * 0.8 * GIB / each), int(2 * 0.8 * GIB / each)]
    told = [e["CUDA_VISIBLE_DEVICES"] for e in team.environments]
    assert (told.count("0"), told.count("3")) == (min(room[0], 16 - room[1]), room[1])
    assert told[:2] == ["0", "3"], "cards are filled one after the other, not the first one first"
    full = [Card("0", 0.1 * GIB)]
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


def on(model, **base):
    return Experiment.from_dict({"base": {"model": model, **base}})


def test_larger_models_need_more_and_the_largest_of_a_sweep_decides():
    seven, one = on("Qwen/Qwen2.5-7B-Instruct"), on("Qwen/Qwen2.5-1.5B-Instruct")
    needs = [need_bytes([e], on_card=True) for e in (seven, one, LARGE, MINILM)]
    assert needs == sorted(needs, reverse=True)
    assert len(set(needs)) == 4
    assert need_bytes([MINILM, seven, one]) == need_bytes([seven])
    assert need_bytes([on("Qwen/Qwen2.5-7B-Instruct", dtype="bfloat16")]) < need_bytes([seven])
    assert need_bytes([on("some/bert")]) > need_bytes([MINILM]), "a name that tells no size is guessed"


def test_a_large_model_has_a_card_to_itself(machine):
    machine(8, 64)
    card = [Card("0", 16 * GIB)]
    counts = [
        choose_team("auto", 100, [e], "cuda", cards=lambda: card).count
        for e in (on("Qwen/Qwen2.5-7B-Instruct"), on("Qwen/Qwen2.5-7B-Instruct", dtype="bfloat16"), MINILM)
    ]
    assert counts == [1, 1, 8]


def parameters(model):
    return resources._parameters(model)


def save(folder, *shapes, dtype=np.float16):
    folder.mkdir(parents=True)
    for number, shape in enumerate(shapes):
        save_file({"w": np.zeros(shape, dtype)}, folder / f"model-{number}.safetensors")
    return str(folder)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_size_of_a_folder_is_told_by_its_files_and_not_by_its_name(tmp_path, dtype):
    assert parameters(save(tmp_path / "mine-7B", (10, 20), (30,), dtype=dtype)) == 230
    (tmp_path / "mine-7B" / "model-1.safetensors").write_bytes(b"x" * 1000)
    assert parameters(str(tmp_path / "mine-7B")) == 200 + 500, "a damaged file counts by its length"


def test_the_size_of_a_model_in_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert parameters("some/model") == resources._UNKNOWN
    for name in ("some--model", "some--model-1M"):
        (tmp_path / f"models--{name}" / "refs").mkdir(parents=True)
        (tmp_path / f"models--{name}" / "refs" / "main").write_text("abc")
        save(tmp_path / f"models--{name}" / "snapshots" / "abc", (10, 20))
    assert parameters("some/model") == 200
    assert parameters("some/model-1M") == 1e6, "more is on its way"


def test_the_size_of_a_run_or_a_preset_is_that_of_its_base(tmp_path):
    assert parameters("minilm-rfc-n40-r8-s0-5b0123456a") == parameters("minilm")
    assert parameters("qwen2-5-7b-instruct-rfc-n40-r8-s0-0123456789") == 7e9
    (tmp_path / "base.toml").write_text('[base]\nmodel = "some/model-3B"\n')
    (tmp_path / "round.toml").write_text(f'[base]\nmodel = "{(tmp_path / "round.toml").as_posix()}"\n')
    assert need_bytes([on(str(tmp_path / "base.toml"))]) == need_bytes([on("some/model-3B")])
    assert need_bytes([on(str(tmp_path / "round.toml"))]) == need_bytes([on("some/model")])
    assert need_bytes([on(str(tmp_path / "gone.toml"))]) == need_bytes([on("some/model")])


@pytest.fixture
def cores(monkeypatch):
    """A machine of so many cores."""

    def make(count):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: count)

    return make


@pytest.mark.parametrize("count", [2, 7, 8])
def test_workers_together_have_no_more_threads_than_there_are_cores(cores, monkeypatch, count):
    cores(count)
    monkeypatch.setattr(resources, "available_bytes", lambda: 64 * GIB)
    monkeypatch.setattr(resources.sys, "platform", "linux")
    assert core_count() == count
    for workers in range(1, count + 1):
        told = {int(threads) for threads in thread_share(workers).values()}
        assert len(told) == 1, "every library has the same"
        assert told.pop() == count // workers
    for asked in ("auto", *range(1, count + 1)):
        team = choose_team(asked, 100, [MINILM], "cpu")
        threads = [int(told["OMP_NUM_THREADS"]) for told in team.environments]
        assert len(threads) == team.count == (count if asked == "auto" else asked)
        assert sum(threads) <= count
        assert min(threads) >= 1
    assert set(thread_share(count + 1).values()) == {"1"}, "more workers than cores have one each"


@pytest.mark.parametrize(
    ("count", "visible", "names"),
    [
        (2, "", ["0", "1"]),
        (1, "3", ["3"]),
        (2, "GPU-8f1, GPU-07c", ["GPU-8f1", "GPU-07c"]),
        (1, "MIG-4b/7/0", ["MIG-4b/7/0"]),
        (1, "3,-1", ["3"]),
    ],
)
def test_cards_are_called_as_the_environment_calls_them(count, visible, names):
    assert _card_names(count, visible) == names
