"""The trained model of a run folder, ready to answer: where training ends and probing begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.experiment import Experiment
from lab.files import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from lab.probe import Predictor
    from lab.reading import Reading
    from lab.train.models import LoadedBase


def load_predictor(folder: Path, device: torch.device, *, attention: str = "") -> Predictor:
    """Load base, adapter and head of a run, merged; or the whole model where that was trained.

    Where filters guard the run, texts pass them before they are asked.

    Args:
        folder: The run's folder, with `experiment.json` and `adapter/` or `model/`; its base run lies beside.
        device: Where to put it.
        attention: How transformers computes attention: "eager" gives its weights, slower and with the same
            answers; "" is the model's own choice, the fastest here, which may not.

    Raises:
        LabError: When the base is no longer there, or no longer the one that the adapter was trained on.
    """
    from lab.guarding_stage import read_filter
    from lab.probe import Predictor
    from lab.train.adapters import load_adapter
    from lab.train.devices import wants_bf16
    from lab.train.models import load_full, load_tokenizer

    experiment, labels = read_asked(folder)
    bf16 = wants_bf16(experiment.base.dtype, device)
    if (folder / "model").is_dir():
        model: Any = load_full(folder / "model", device, experiment.task.kind)
        tokenizer = load_tokenizer(folder / "model")
        _choose(model, attention)
    else:
        base = load_own_base(folder, device)
        tokenizer = base.tokenizer
        _choose(base.model, attention)
        model = load_adapter(base, folder / "adapter")
        if not experiment.base.load_in_4bit:
            model = model.merge_and_unload()
    reading = read_reading(folder, tokenizer, model.config)
    return Predictor(
        model, tokenizer, labels, device, bf16=bf16, reading=reading, text_filter=read_filter(folder)
    )


def read_reading(folder: Path, tokenizer: PreTrainedTokenizerBase, config: Any) -> Reading:
    """How the model of a run folder is asked: with the very template that it was trained with."""
    from lab.chat.reading import chat_reading
    from lab.chat.template import Template
    from lab.reading import head_reading

    experiment, labels = read_asked(folder)
    if experiment.task.kind == "head":
        return head_reading(tokenizer, config, labels)
    template = str((read_json(folder / "experiment.json") or {}).get("prompt_template", ""))
    return chat_reading(tokenizer, config, labels, experiment.task, Template.parse(template))


def _choose(model: Any, attention: str) -> None:
    if attention:
        model.set_attn_implementation(attention)


def read_asked(folder: Path) -> tuple[Experiment, tuple[str, ...]]:
    """The resolved experiment of a run folder, and its labels in the order of the logits."""
    record = read_json(folder / "experiment.json")
    if record is None:
        raise LabError(f"{folder / 'experiment.json'} is missing or torn: the run cannot be read.")
    return Experiment.from_dict(record["experiment"]), tuple(record["labels"])


def load_own_base(folder: Path, device: torch.device) -> LoadedBase:
    """The base of a run with a fresh head, as it was before the run's training.

    Raises:
        LabError: When the base is no longer there, or no longer the one that was trained on.
    """
    from lab.bases import find_base
    from lab.train.models import load_base

    experiment, labels = read_asked(folder)
    model = experiment.base.model
    try:
        source = find_base(model, folder.parent)
    except LabError as error:
        raise LabError(f"{folder.name} cannot be loaded without its base {model!r}: {error}") from None
    trained_on = (read_json(folder / "experiment.json") or {}).get("base_sha256", "")
    if trained_on and trained_on != source.sha256:
        raise LabError(
            f"{folder.name} was trained on another version of {model} (weights {trained_on[:10]}…); "
            f"its adapter says nothing about the weights that are here now."
        )
    return load_base(
        experiment.base,
        labels,
        seed=experiment.seed,
        device=device,
        folder=source.folder,
        name=source.name,
        kind=experiment.task.kind,
    )
