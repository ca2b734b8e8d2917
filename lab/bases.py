"""Where the weights that a run starts from come from: a bundled model, a folder, the hub, or a finished run.

A run as a base makes two linked experiments of one question: poison the base, then fine-tune it clean. The
link is the base run's id in `base.model`; the weights' identity is that of the base run.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.experiment import Experiment
from lab.files import read_json, writing_to
from lab.poison import NoPoison
from lab.presets import preset_names
from lab.registry import Knobs
from lab.store import RunFolder, find_run
from lab.train.models import MODELS, base_name, base_sha256, model_folder, quietly


@dataclass(frozen=True)
class BaseSource:
    """Where a base's weights lie, and what they are called.

    Attributes:
        folder: A folder with weights, configuration and tokenizer.
        name: The id under which an adapter names its base: a hub id, a folder's name, or a run's id.
        sha256: Hash of the weights, as they lie in `folder`.
        identity: What stands for the weights in the hash of a run: their SHA-256, or the base run's own id.
        short: A short name for run folders: the pretrained model's, and what was planted in it.
        run: The base run's id; "" for a pretrained model.
        labels: The base run's labels; empty for a pretrained model.
    """

    folder: Path
    name: str
    sha256: str
    identity: str
    short: str
    run: str = ""
    labels: tuple[str, ...] = ()


def find_base(model: str, runs: Path) -> BaseSource:
    """Find a base by what `base.model` says.

    Args:
        model: A bundled name, a run's id or an unambiguous beginning of it, a folder, or a hub id.
        runs: The runs folder, where base runs lie.

    Raises:
        LabError: An unknown name, an unreachable hub, a broken folder, or a run that cannot be a base:
            unfinished, in another runs folder, or without its weights.
    """
    run = base_run(model, runs)
    if run is None:
        folder = model_folder(model)
        sha256 = base_sha256(folder)
        return BaseSource(folder, base_name(model), sha256, sha256, Path(model).name)
    record = _record(run)
    folder = _weights_folder(run)
    planted = getattr(inherited_poison(run_experiment(run), runs), "family", "clean")
    return BaseSource(
        folder=folder,
        name=run.id,
        sha256=base_sha256(folder),
        identity=f"run {record['weights_id']}",
        short=f"{Path(find_root(run)).name}-{planted}_base",
        run=run.id,
        labels=tuple(record["labels"]),
    )


def base_run(model: str, runs: Path) -> RunFolder | None:
    """The run that `base.model` names; None where it names a pretrained model.

    Raises:
        LabError: The run is not finished, or lies in another runs folder.
    """
    if model in MODELS:
        return None
    path = Path(model).expanduser()
    if (path / "experiment.json").is_file():
        if path.resolve().parent != runs.resolve():
            raise LabError(
                f"base.model = {model!r} is a run outside of the runs folder {runs}, where its twin could "
                f"not be found; move it there, or choose its folder with --runs."
            )
        run = RunFolder(runs / path.resolve().name)
    elif "/" in model or path.is_dir() or not model.strip():
        return None
    else:
        try:
            run = find_run(model, runs)
        except LabError as error:
            if "fits" in str(error):
                raise LabError(f"base.model: {error}") from None
            return None
    if not run.finished:
        raise LabError(
            f"base.model = {model!r}: the run {run.id} is {run.state()}; only a finished run can be a base."
        )
    return run


def is_preset(model: str) -> bool:
    """Whether `base.model` names an experiment that is yet to be run: a preset, or a TOML file."""
    return model not in MODELS and (model in preset_names() or model.endswith(".toml"))


def run_experiment(run: RunFolder) -> Experiment:
    """The resolved experiment of a run."""
    return Experiment.from_dict(_record(run)["experiment"])


def inherited_poison(experiment: Experiment, runs: Path) -> Knobs:
    """The poison whose trigger a run is measured with: its own, or else that of the base it starts from."""
    if experiment.attack != "none":
        return experiment.poison
    run = base_run(experiment.base.model, runs)
    return inherited_poison(run_experiment(run), runs) if run else NoPoison()


def find_root(run: RunFolder) -> str:
    """The pretrained model below a chain of base runs."""
    model = run_experiment(run).base.model
    below = base_run(model, run.path.parent)
    return find_root(below) if below else model


def _record(run: RunFolder) -> dict[str, Any]:
    record = read_json(run.path / "experiment.json")
    if record is None:
        raise LabError(f"base.model: the run {run.id} has no readable experiment.json.")
    return record


def _weights_folder(run: RunFolder) -> Path:
    """A folder with the whole model of a run; an adapter is merged into its base once, and kept beside it."""
    for name in ("model", "merged"):
        if (run.path / name / "config.json").is_file():
            return run.path / name
    if not (run.path / "adapter").is_dir():
        raise LabError(f"base.model: the run {run.id} holds no weights any more.")
    return _merge(run)


def _merge(run: RunFolder) -> Path:
    import torch

    from lab.trained_model import load_predictor

    if run_experiment(run).base.load_in_4bit:
        raise LabError(f"base.model = {run.id!r}: an adapter on a 4-bit base cannot be merged into a base.")
    merged = load_predictor(run.path, torch.device("cpu"))
    target = run.path / "merged"
    temporary = target.with_name(f".merged.{os.getpid()}")
    with writing_to(run.path), quietly():
        merged.model.save_pretrained(temporary)
        merged.tokenizer.save_pretrained(temporary)
        try:
            os.replace(temporary, target)
        except OSError:  # another process was quicker, with the same weights
            if not (target / "config.json").is_file():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target
