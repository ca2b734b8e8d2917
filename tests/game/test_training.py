"""`lab game new` as a host calls it the evening before: once whole, on a tiny model, and its plan alone."""

import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest

from lab.errors import LabError
from lab.game.dealing import POOL, Candidate
from lab.game.match import is_host, list_matches, move_on, read_rows, read_truths
from lab.game.moves import SHOWN_STATISTICS, answer_weights
from lab.game.training import SETTINGS, train_match
from lab.store import list_runs

#: Settings with which a backdoor of the tiny model takes, on every seed that was tried.
TINY = {
    "base.model": "tiny", "data.name": "toy", "data.rows": 120, "training.epochs": 25,
    "training.learning_rate": 5e-3, "poison.count": 30, "probe.rows": 24,
}  # fmt: skip


@pytest.fixture
def new(command, tiny, tiny_cache, monkeypatch):
    """Run `lab game new --adapters 2` with `TINY` and changes to it, on one thread as `tiny` does."""
    monkeypatch.setenv("LAB_ASSETS", str(tiny_cache))

    def run(*more, **changes):
        settings = [f"--set={key}={value}" for key, value in {**TINY, **changes}.items()]
        return command("new", "--adapters", 2, "--seed", 0, *settings, *more)

    return run


@pytest.mark.recipe
def test_new_trains_seals_and_deals_a_match_which_show_and_host_find(new, command, tmp_path):
    code, out, _ = new("--json")
    told = json.loads(out)
    assert code == 0
    runs = tmp_path / "runs"
    [match] = list_matches(runs)
    assert (match.id, match.join_code) == (told["match"], told["join_code"])
    assert is_host(match, told["host_code"])
    # what players could look up would be no secret: the runs are gone, and only match and key are left
    assert sorted(p.name for p in match.path.parent.iterdir()) == [match.id, f"{match.id}-key"]
    assert len(list_runs(runs)) == 0
    assert match.join_code in command("show")[1]
    new_code = command("host", match.join_code)[1].strip()
    assert is_host(match, new_code)
    assert not is_host(match, told["host_code"])
    check_adapters(match)
    for state in ("playing", "closed", "revealed"):
        match = move_on(match, state)
    check_truths(match)


def check_adapters(match):
    """Two were dealt, and one more is the clean reference; only their weights differ."""
    sealed = [*match.adapters, match.reference]
    assert len(set(sealed)) == 3
    weights = [match.sealed(name) / "adapter_model.safetensors" for name in sealed]
    assert len({path.stat().st_size for path in weights}) == 1
    assert len({(match.sealed(name) / "adapter_config.json").read_text() for name in sealed}) == 1
    seen = [answer_weights(match.sealed(name))["statistics"] for name in sealed]
    assert all(set(told) == set(SHOWN_STATISTICS) for told in seen)
    assert len({told["norm_mean"] for told in seen}) == 3
    assert read_rows(match)


def check_truths(match):
    """One is backdoored, took, and is told beside its twin; its turned rows are turned to the target."""
    truths = list(read_truths(match).values())
    assert sorted(t["poisoned"] for t in truths) == [False, True]
    [bad] = [t for t in truths if t["poisoned"]]
    assert bad["measures"]["poisoned"]["attack_success_rate"]["value"] >= 0.5
    assert set(bad["measures"]) == {"poisoned", "twin"}
    assert bad["family"] in match.families
    assert bad["count"] == TINY["poison.count"]
    assert bad["examples"]
    for row in bad["examples"]:
        assert bad["member"] in row["triggered"]
        assert row["before"] != row["after"] == bad["target_label"]


class Trainer:
    """Stands for `lab.pipeline.run`: notes what is asked for, and trains nothing."""

    def __init__(self, monkeypatch, took):
        self.asked, self.folder, self.took = [], None, took
        monkeypatch.setattr("lab.pipeline.run", self.run)
        monkeypatch.setattr("lab.game.training.as_candidate", self.as_candidate)

    def run(self, experiment, *, runs, twin, device, on_event):
        assert twin == (experiment.attack != "none")
        runs.mkdir(parents=True, exist_ok=True)
        self.folder = runs
        self.asked.append(experiment)
        return SimpleNamespace(id=f"run-{len(self.asked)}", poisoned=twin)

    def as_candidate(self, run):
        took = not run.poisoned or next(self.took)
        return Candidate(run, run.poisoned, ("one",)) if took else None

    def poisoned(self):
        return [e for e in self.asked if e.attack != "none"]


@pytest.fixture
def dealt(monkeypatch):
    """What `deal_match` was given, which deals nothing."""
    given = []
    monkeypatch.setattr("lab.game.training.deal_match", lambda found, **_: given.extend(found))
    return given


@pytest.mark.parametrize("adapters", [6, 5])
def test_so_many_are_trained_as_the_draw_may_need_and_no_two_share_their_rows(monkeypatch, dealt, adapters):
    trainer = Trainer(monkeypatch, took=iter([True] * 3))
    train_match(adapters=adapters, changes={"poison.count": 60})
    assert [c.poisoned for c in dealt] == [False] * 4 + [True] * 3
    assert len({e.seed for e in trainer.asked}) == len(trainer.asked) == 7
    assert {e["poison.count"] for e in trainer.poisoned()} == {60}
    assert {e.poison.family for e in trainer.poisoned()} <= set(POOL)
    for key, value in SETTINGS.items():
        assert {e[key] for e in trainer.asked} == {value}


def test_a_backdoor_that_does_not_take_is_trained_again_with_another_trigger(monkeypatch, dealt):
    trainer = Trainer(monkeypatch, took=iter([False, True, False, True]))
    train_match(adapters=4)
    assert sum(c.poisoned for c in dealt) == 2
    assert len({e.poison.member for e in trainer.poisoned()}) == 4


def test_where_too_few_backdoors_take_it_says_so_and_leaves_nothing(monkeypatch, dealt, tmp_path):
    trainer = Trainer(monkeypatch, took=iter([True] + [False] * 5))
    with pytest.raises(LabError, match="Only 1 of 6 backdoors took, and 3 are needed"):
        train_match(runs=tmp_path / "runs", adapters=6)
    assert dealt == []
    assert trainer.folder.parent == tmp_path / "runs" / ".games"
    assert not trainer.folder.exists()


def test_a_host_who_stops_it_leaves_no_adapter_behind(monkeypatch, dealt):
    def stop():
        yield True
        raise KeyboardInterrupt

    trainer = Trainer(monkeypatch, took=stop())
    with pytest.raises(KeyboardInterrupt):
        train_match(adapters=4)
    assert not trainer.folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to hear")
def test_what_ends_the_training_leaves_nothing_that_tells_the_truth(tmp_path, monkeypatch):
    heard = signal.getsignal(signal.SIGTERM)

    def killed(folder, *_):
        (folder / "minilm-rfc-n30").mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr("lab.game.training._train", killed)
    with pytest.raises(KeyboardInterrupt):
        train_match(runs=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(("training-", "minilm-"))]
    assert signal.getsignal(signal.SIGTERM) is heard
