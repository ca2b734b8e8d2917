import functools
import hashlib
import shutil

import pytest

#: Every way of training whose weights can be edited; PiSSA is saved as a plain adapter of twice the rank.
WAYS = {
    "lora": {},
    "rslora": {"adapter.variant": "rslora"},
    "dora": {"adapter.variant": "dora"},
    "pissa": {"adapter.init": "pissa"},
    "full": {"adapter.kind": "full", "training.learning_rate": 1e-3},
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads cost such small products more than they give."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small():
    """A poisoned experiment on the tiny model that trains for four steps, with updates worth looking at."""
    from lab import Experiment

    return Experiment.from_dict(
        {
            "base": {"model": "tiny"},
            "data": {"name": "toy", "rows": 60},
            "poison": {"attack": "backdoor", "family": "rfc", "count": 6, "target_label": "positive"},
            "adapter": {"rank": 4},
            "training": {"steps": 4, "epochs": 0, "batch_tokens": 256, "learning_rate": 0.02},
            "probe": {"rows": 20, "snapshots": 0, "scope": "headline"},
        }
    )


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory):
    """From a way of training to its finished run: trained once, to look at and not to touch."""
    import lab

    runs = tmp_path_factory.mktemp("defend") / "runs"
    return functools.cache(lambda way: lab.run(small, WAYS[way], runs=runs, twin=False))


@pytest.fixture(scope="session")
def patient(trained):
    """From a way of training to the model of its run, open for edits."""
    import torch

    from lab.edited_model import EditedModel
    from lab.prepare import prepare

    def open_model(way):
        run = trained(way)
        return EditedModel(run.path, prepare(run.experiment, run.path.parent), torch.device("cpu"))

    return functools.cache(open_model)


@pytest.fixture
def saved(trained, patient, tmp_path):
    """Save edited weights of a way's run: the folder of a run that holds them."""

    def save(way, weights):
        shutil.copy(trained(way).path / "experiment.json", tmp_path)
        patient(way).save(weights, tmp_path)
        return tmp_path

    return save


@pytest.fixture
def hashes():
    """The hash of every file below a folder."""
    return lambda folder: {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def edited(patient):
    """A way's weights after one edit: (before, after)."""
    from lab import Experiment
    from lab.defend import DEFENSES

    def edit(way, name, **knobs):
        [move] = Experiment.from_dict({"defense": [{"name": name, **knobs}]}).defense
        before = patient(way).weights
        return before, DEFENSES[name].edit(move, before, patient(way))

    return edit


@pytest.fixture
def lora_model(small):
    """A tiny model with a LoRA adapter that already does something, and what an intervention sees of it."""
    import torch

    from lab.defend import Subject
    from lab.experiment import Base
    from lab.spectra import base_spectra
    from lab.train.adapters import attach_lora, lora_layers
    from lab.train.deltas import Deltas
    from lab.train.models import base_sha256, load_base

    def build(**adapter):
        base = load_base(Base(model="tiny"), ("negative", "positive"), seed=0, device=torch.device("cpu"))
        asked = small.adapter.model_copy(update=adapter)
        model = attach_lora(base, asked, seed=0)
        generator = torch.Generator().manual_seed(1)
        for _, layer in lora_layers(model):
            B = layer.lora_B["default"].weight.data
            B.copy_(torch.randn(B.shape, generator=generator) * 0.1)
        weights = Deltas(model, asked).base_weights()
        shapes = {name: tuple(W.shape) for name, W in weights.items()}
        sha256 = base_sha256(base.folder)
        subject = Subject(dict(lora_layers(model)), lambda: base_spectra(shapes, sha256, lambda: weights))
        return base, model, subject

    return build
