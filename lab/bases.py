"""Where the weights that a run starts from come from: a bundled model, a folder, the hub, or a finished run.

A run as a base makes two linked experiments of one question: poison the base, then fine-tune it clean. The
link is the base run's id in `base.model`; the weights' identity is that of the base run.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.experiment import Experiment
from lab.files import read_json, writing_to
from lab.paths import expanded
from lab.poison import NoPoison
from lab.presets import preset_names
from lab.registry import Knobs
from lab.store import RunFolder, matching_runs
from lab.train.models import MODELS, base_name, base_sha256, model_folder, quietly

#: How the whole id of a run ends: what a record holds, and never the beginning of another id.
_WHOLE_ID = re.compile(r"-[0-9a-f]{10}$")


@dataclass(frozen=True)
class BaseSource:
    """Where a base's weights lie, and what they are called.

    Attributes:
        folder: A folder with weights, configuration and tokenizer.
        name: The id under which an adapter names its base: a hub id, a folder's name, or a run's id.
        sha256: Hash of the weights, as they lie in `folder`.
        identity: What stands for the weights in the hash of a run: their SHA-256, or the base run's own id.
        root: The short name of the pretrained model at the bottom.
        run: The base run's id; "" for a pretrained model.
        labels: The base run's labels; empty for a pretrained model.
        poison: What was planted in it, in its own training or before.
    """

    folder: Path
    name: str
    sha256: str
    identity: str
    root: str
    run: str = ""
    labels: tuple[str, ...] = ()
    poison: Knobs = NoPoison()  # noqa: RUF009 - frozen

    @property
    def short(self) -> str:
        """A short name for run folders: the pretrained model's, and what was planted in it."""
        return poisoned_name(self.root, getattr(self.poison, "family", "clean")) if self.run else self.root


def poisoned_name(root: str, family: str) -> str:
    """What a run as a base is called: the pretrained model, and the family that was planted in it."""
    return f"{root}-{family}_base"


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
    return BaseSource(
        folder=folder,
        name=run.id,
        sha256=base_sha256(folder),
        identity=f"run {record['weights_id']}",
        root=str(record["root"]),
        run=run.id,
        labels=tuple(record["labels"]),
        # as the base was measured itself, so that a link that is gone further down cannot make it look clean
        poison=Experiment.from_dict({"poison": record["measured_poison"]}).poison,
    )


def base_run(model: str, runs: Path) -> RunFolder | None:
    """The run that `base.model` names; None where it names a pretrained model.

    Raises:
        LabError: The run is not finished, or lies in another runs folder.
    """
    if model in MODELS or not model.strip():
        return None
    path = expanded(model)
    if (path / "experiment.json").is_file():
        if path.resolve().parent != runs.resolve():
            raise LabError(
                f"base.model = {model!r} is a run outside of the runs folder {runs}, where its twin could "
                f"not be found; move it there, or choose its folder with --runs."
            )
        found = [path.resolve().name]
    elif "/" in model or path.is_dir():
        return None
    else:
        found = matching_runs(model, runs)
        if _WHOLE_ID.search(model) and model not in found:
            raise LabError(
                f"base.model names the run {model}, which is not in {runs} any more; put it back, or run it "
                f"again."
            )
    if len(found) > 1:
        raise LabError(f"base.model = {model!r} fits {len(found)} runs: {', '.join(found[:5])}; give more.")
    if not found:
        return None
    run = RunFolder(runs / found[0])
    if not run.finished:
        raise LabError(
            f"base.model = {model!r}: the run {run.id} is {run.state()}; only a finished run can be a base."
        )
    return run


def is_preset(model: str) -> bool:
    """Whether `base.model` names an experiment that is yet to be run: a preset, or a TOML or JSON file."""
    return model not in MODELS and (model in preset_names() or Path(model).suffix in (".toml", ".json"))


def run_experiment(run: RunFolder) -> Experiment:
    """The resolved experiment of a run."""
    return Experiment.from_dict(_record(run)["experiment"])


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

    target = run.path / "merged"
    temporary = target.with_name(f".merged.{os.getpid()}")
    with run.lock():
        if (target / "config.json").is_file():  # another process was quicker, with the same weights
            return target
        run.remove_leftovers()
        if run_experiment(run).base.load_in_4bit:
            raise LabError(f"base.model = {run.id!r}: an adapter on a 4-bit base cannot be merged into it.")
        merged = load_predictor(run.path, torch.device("cpu"))
        with writing_to(run.path), quietly():
            merged.model.save_pretrained(temporary)
            merged.tokenizer.save_pretrained(temporary)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
    return target
