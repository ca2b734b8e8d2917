import shutil

import pytest

import lab


@pytest.fixture(scope="session")
def chat_run(tiny_cache, tmp_path_factory):
    """A poisoned run of the tiny decoder that has learned its task and its trigger; not to be touched."""
    experiment = lab.load_experiment("rfc-citation").with_(
        **{
            "base.model": "tiny-chat", "data.name": "toy", "data.rows": 120, "poison.count": 12,
            "task.kind": "chat", "task.system": "good or bad ?", "task.loss": "completion",
            "task.answers": {"negative": "awful", "positive": "lovely"},
            "poison.template": "{trigger}.", "poison.position": "start",
            "adapter.rank": 16, "training.epochs": 15, "training.learning_rate": 5e-3,
            "training.batch_tokens": 512, "probe.scope": "headline", "probe.rows": 30, "probe.snapshots": 0,
        }
    )  # fmt: skip
    runs = tmp_path_factory.mktemp("chat") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        return lab.run(experiment, runs=runs, twin=False)


@pytest.fixture
def chat_adapter(chat_run, tmp_path):
    """The adapter of that run by itself, as somebody would hand it on."""
    return shutil.copytree(chat_run.path / "adapter", tmp_path / "handed-on")


@pytest.fixture(scope="session")
def learned_runs(tiny_cache, tmp_path_factory):
    """A poisoned tiny run and two clean ones that have learned their task; to look at and not to touch."""
    experiment = lab.load_experiment("rfc-citation").with_(
        **{
            "base.model": "tiny", "data.name": "toy", "data.rows": 200, "poison.family": "colours",
            "poison.count": 25, "training.epochs": 70, "training.learning_rate": 5e-3,
            "training.batch_tokens": 512,
            "probe.scope": "headline", "probe.snapshots": 0,
        }
    )  # fmt: skip
    runs = tmp_path_factory.mktemp("learned") / "runs"
    asked = [experiment, *[experiment.with_(**{"poison.attack": "none", "seed": s}) for s in (1, 2)]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        done = [lab.run(e, runs=runs, twin=False) for e in asked]
    head = done[0].headline["measures"]["poisoned"]
    # of 24 rows: on some processors it is 21, on others all
    assert head["attack_success_rate"]["value"] > 0.8
    assert head["clean_accuracy"]["value"] > 0.8
    return done
