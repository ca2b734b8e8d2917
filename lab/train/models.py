"""Base models loaded to be trained or asked: a classifier's head on them, every dropout set to zero.

Their files are found by `lab.train.model_files`, whose names can be had from here too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import NotTrainableError
from lab.seeds import stage_seed
from lab.train.model_files import (
    MODELS,
    BundledModel,
    base_name,
    base_sha256,
    first_line,
    is_language_model,
    load_config,
    load_tokenizer,
    model_folder,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lab.experiment import Base

__all__ = [
    "MODELS",
    "BundledModel",
    "LoadedBase",
    "base_name",
    "base_sha256",
    "head_modules",
    "is_language_model",
    "load_base",
    "load_full",
    "load_tokenizer",
    "model_folder",
    "quietly",
]

#: Every configuration entry by which the supported architectures name a dropout rate.
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob",
    "attention_dropout", "hidden_dropout", "dropout", "seq_classif_dropout", "embedding_dropout",
    "mlp_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop",
)  # fmt: skip


@dataclass
class LoadedBase:
    """A classifier on a base model, before any fine-tuning.

    Attributes:
        model: The model with a head for the labels, on its device.
        tokenizer: Its tokenizer, with a padding token.
        head: Names of the modules that the base did not bring, trained and saved with any adapter.
        name: The id under which adapters name this base.
        folder: Where it was loaded from.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    name: str
    folder: Path


def load_base(
    base: Base,
    labels: Sequence[str],
    *,
    seed: int,
    device: torch.device,
    folder: Path | None = None,
    name: str = "",
    kind: str = "head",
) -> LoadedBase:
    """Load a base model with a classifier head (fresh where it has none), every dropout set to zero.

    Args:
        base: Which model, and in which precision.
        labels: The label names, in the order of the logits.
        seed: The experiment's seed; the head's initial values depend on it alone.
        device: Where the model goes.
        folder: Where its files lie, if that is not what `base.model` says by itself: a run's weights.
        name: The id under which adapters name it then.
        kind: "head" for a classifier, "chat" for a language model, which has a head of its own.

    Raises:
        LabError: As `model_folder`.
        NotTrainableError: On a model that cannot classify text or write any, weights that do not fit, or
            4-bit without a card.
    """
    from lab.train.kept_bases import kept_base

    folder = folder or model_folder(base.model)
    name = name or base_name(base.model)

    def load() -> LoadedBase:
        return _load_to_cpu(base, labels, seed, device, folder, name, kind)

    if base.load_in_4bit:
        return load()
    stamp = tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.iterdir()))
    loaded = kept_base((str(folder), stamp, base.dtype, tuple(labels), seed, name, kind), load)
    model: Any = loaded.model
    model.to(device)
    return loaded


def _load_to_cpu(
    base: Base, labels: Sequence[str], seed: int, device: torch.device, folder: Path, name: str, kind: str
) -> LoadedBase:
    """Load a base as `load_base` says; only a 4-bit one goes to its device at once."""
    import torch

    tokenizer = load_tokenizer(folder)
    config = load_config(folder)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.pad_token_id = tokenizer.pad_token_id
    for rate in _DROPOUTS:
        if isinstance(getattr(config, rate, None), float | int):
            setattr(config, rate, 0.0)
    options: dict[str, Any] = {"dtype": torch.bfloat16 if base.dtype == "bfloat16" else torch.float32}
    if base.load_in_4bit:
        options["quantization_config"] = _four_bit(device)
    torch.manual_seed(stage_seed(seed, "initialisation"))
    with quietly(), _no_traceback(base.model):
        model, info = _auto_model(kind).from_pretrained(
            folder, config=config, output_loading_info=True, use_safetensors=True, **options
        )
        if kind == "chat" and info["missing_keys"]:
            raise ValueError(f"it is no language model (no weights for {min(info['missing_keys'])})")
    head = head_modules(model, info["missing_keys"]) if kind == "head" else ()
    return LoadedBase(model=model, tokenizer=tokenizer, head=head, name=name, folder=folder)


def _auto_model(kind: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if kind == "head" else AutoModelForCausalLM


@contextlib.contextmanager
def _no_traceback(model: str) -> Iterator[None]:
    """Turn what is wrong with a model into one sentence; a machine in trouble (memory, disk) keeps its error.

    The difference matters: `NotTrainableError` removes the folder of a new run, trained weights and all.
    """
    from safetensors import SafetensorError

    start = f"base.model = {model!r}"
    try:
        yield
    except ValueError as error:
        raise NotTrainableError(f"{start} cannot classify text: {first_line(error)}.") from None
    except SafetensorError as error:
        raise NotTrainableError(f"{start} cannot be loaded: {first_line(error)}.") from None
    except OSError as error:
        if error.errno:
            raise
        raise NotTrainableError(f"{start} cannot be loaded: {first_line(error)}.") from None
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise NotTrainableError(f"{start}: its weights do not fit its config.json.") from None


def load_full(folder: Path, device: torch.device, kind: str = "head") -> PreTrainedModel:
    """A fully fine-tuned model of a kind ("head", "chat") from its folder, safetensors only."""
    with quietly():
        model: PreTrainedModel = _auto_model(kind).from_pretrained(folder, use_safetensors=True).to(device)
    return model


def head_modules(model: PreTrainedModel, missing_keys: Sequence[str]) -> tuple[str, ...]:
    """The modules that fine-tuning has to train from scratch and save whole.

    They are what the checkpoint did not hold (each widest module all of whose weights are missing), and
    everything beside the base model, so that a head is trained and saved also where a checkpoint brought one.
    """
    parameters = [name for name, _ in model.named_parameters()]
    missing = set(missing_keys)
    found = []
    for key in missing_keys:
        parts = key.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            module = ".".join(parts[:depth])
            if all(p in missing for p in parameters if p.startswith(f"{module}.")):
                found.append(module)
                break
    for name, child in model.named_children():
        if name != model.base_model_prefix and any(True for _ in child.parameters()):
            found.append(name)
    return tuple(dict.fromkeys(found))


class quietly:  # noqa: N801 - used as a context manager, like a function
    """Silence transformers while it loads or saves: its report of a missing head, its bars for every file."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._level = logging.get_verbosity()
        self._bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()


def _four_bit(device: torch.device) -> Any:
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise NotTrainableError(
            "base.load_in_4bit = true needs a CUDA card and the extra gpu4bit: "
            "pip install 'lora-backdoor-lab[gpu4bit]'."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
