"""The trained model of a run folder, ready to answer: where training ends and probing begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.files import read_json

if TYPE_CHECKING:
    import torch

    from lab.experiment import Experiment
    from lab.probe import Predictor


def load_predictor(
    folder: Path, labels: Sequence[str], experiment: Experiment, device: torch.device
) -> Predictor:
    """Load base, adapter and head of a run, merged.

    Args:
        folder: The run's folder, with `adapter/` or `model/`.
        labels: Label names, in the order of the logits.
        experiment: The run's experiment: its base, its adapter, its seed.
        device: Where to put it.

    Raises:
        LabError: When the base is no longer the one that the adapter was trained on.
    """
    from lab.probe import Predictor
    from lab.train.adapters import load_adapter
    from lab.train.devices import wants_bf16
    from lab.train.models import load_base, load_full, load_tokenizer, model_folder

    bf16 = wants_bf16(experiment.base.dtype, device)
    base_folder = model_folder(experiment.base.model)
    if experiment.adapter.kind == "full":
        model: Any = load_full(folder / "model", device)
        return Predictor(model, load_tokenizer(base_folder), labels, device, bf16=bf16)
    _check_base(folder, base_folder, experiment.base.model)
    base = load_base(experiment.base, labels, seed=experiment.seed, device=device)
    model = load_adapter(base, folder / "adapter")
    if not experiment.base.load_in_4bit:
        model = model.merge_and_unload()
    return Predictor(model, base.tokenizer, labels, device, bf16=bf16)


def _check_base(folder: Path, base_folder: Path, model: str) -> None:
    from lab.train.models import base_sha256

    trained_on = (read_json(folder / "experiment.json") or {}).get("base_sha256", "")
    if trained_on and trained_on != base_sha256(base_folder):
        raise LabError(
            f"{folder.name} was trained on another version of {model} (weights {trained_on[:10]}…); "
            f"its adapter says nothing about the weights that are here now."
        )
