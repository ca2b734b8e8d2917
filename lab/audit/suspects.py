"""An adapter from outside on its base, ready to answer, without obeying what it says of itself.

A classifier answers by its head, a language model in words. Either's configuration is rebuilt from what was
checked: module names from the weights, ranks and scalings as numbers. No pattern, path or class name of the
adapter reaches peft or transformers, and a base that it names is loaded only where the name is a bundled
model's or a hub id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lab.audit.adapter_files import AdapterFiles
from lab.audit.safetensors_header import UnreadableAdapterError
from lab.audit.wording import Wording, given_wording
from lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from lab.probe import Predictor
    from lab.train.models import LoadedBase

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
#: These change W when the adapter is attached, as its factors ask for; all others start at ΔW = 0.
_BASE_CHANGING = re.compile(r"(pissa(_niter_\d{1,3})?|olora)", re.IGNORECASE)
_HEADS = ("score", "classifier", "classification_head", "head", "out_proj")
_WRAPPED = re.compile(r"\.modules_to_save(\.[^.]+)?(?=\.)")
_MOST_LABELS = 1000


def base_of(files: AdapterFiles, asked: str = "") -> str:
    """The base to put an adapter on, as `base.model` names it.

    Args:
        files: The adapter.
        asked: What the user says; "" to believe the adapter, where its claim is a bundled model or a hub id.

    Raises:
        LabError: The adapter names nothing, or a path: a claim that is not followed.
    """
    from lab.train.models import MODELS

    if asked:
        return asked
    claim = files.base_name
    bundled = next((m.name for m in MODELS.values() if claim in (m.name, m.hub_id)), "")
    if bundled or _HUB_ID.fullmatch(claim):
        return bundled or claim
    said = (
        f"names {claim[:120]!r} as its base, which is no hub id and not followed"
        if claim
        else "names no base"
    )
    raise LabError(f"The adapter {files.name!r} {said}; say which with --base.")


def way_of(files: AdapterFiles, base: str) -> Literal["head", "chat"]:
    """How an adapter answers: by a classifier's head, or in words.

    Args:
        files: The adapter.
        base: What it is put on, as `base.model` names it.

    Raises:
        LabError: There is no such base.
        UnreadableAdapterError: It is for another task than these two.
    """
    from lab.train.models import is_language_model, model_folder

    task = files.config.get("task_type")
    if task == "CAUSAL_LM":
        return "chat"
    if task == "SEQ_CLS" or (task is None and _head_sizes(files)):
        return "head"
    if not _head_sizes(files) and is_language_model(model_folder(base)):
        return "chat"
    if task is None:
        return "head"
    raise UnreadableAdapterError(
        f"{files.name}: task_type is {str(task)[:40]!r}; only SEQ_CLS and CAUSAL_LM can be put to texts."
    )


def load_suspect(
    files: AdapterFiles,
    base: str,
    *,
    labels: Sequence[str] = (),
    wording: Wording | None = None,
    device: torch.device | None = None,
) -> Predictor:
    """Put an adapter for classification, by a head or in words, on its base, merged.

    Args:
        files: The adapter, as `open_adapter` gives it.
        base: What `base.model` would say: a bundled name, a hub id, a folder.
        labels: Label names in the order of the logits; "label 0", "label 1", … for a head if not given. Of a
            language model they are the words that it answers.
        wording: How it is asked, in place of labels.
        device: Where to put it; the CPU if not given.

    Raises:
        LabError: There is no such base, or the labels do not fit the adapter.
        UnreadableAdapterError: The adapter does not fit the base, is not for classification, brings a weight
            with NaN or infinity, or answers in words that nobody tells.
    """
    import torch
    from peft import get_peft_model, set_peft_model_state_dict

    from lab.experiment import Base
    from lab.probe import Predictor
    from lab.train.adapters import without_noise
    from lab.train.models import load_base

    device = device or torch.device("cpu")
    wording = wording or given_wording(labels)
    way = way_of(files, base)
    names = _label_names(files, wording, way)
    loaded = load_base(Base(model=base), names, seed=0, device=device, kind=way)
    reading = wording.reading(loaded) if way == "chat" else None
    _check_fit(files, loaded)
    if way == "chat":
        _untie(files, loaded)
    _load_whole(files, loaded)
    with without_noise():
        model = get_peft_model(loaded.model, plain_config(files))
        set_peft_model_state_dict(model, _factors(files))
        merged = model.merge_and_unload()
    return Predictor(merged, loaded.tokenizer, names, device, reading=reading)


def _label_names(files: AdapterFiles, wording: Wording, way: str) -> tuple[str, ...]:
    """Label names: as many as the head that the adapter brings has outputs, or as there are words."""
    if way == "chat":
        wording.check_words(files.name)
        return wording.names
    count = min(_head_sizes(files), default=len(wording.names))
    if not 2 <= count <= _MOST_LABELS:
        raise UnreadableAdapterError(
            f"{files.name} brings no classifier head, so that nothing says what its labels are; "
            f"only its weights can be looked at."
        )
    if wording.names and len(wording.names) != count:
        raise LabError(
            f"labels: {len(wording.names)} names were given, but {files.name} tells {count} labels apart."
        )
    return wording.names or tuple(f"label {i}" for i in range(count))


def _head_sizes(files: AdapterFiles) -> list[int]:
    """How many outputs each part of the classifier's head that the adapter brings has."""
    shapes = {_plain_name(n): info.shape for n, info in files.tensors.items()}
    return [
        shape[0]
        for name, shape in sorted(shapes.items())
        if len(shape) == 2 and name.endswith(".weight") and name.split(".")[-2] in _HEADS
    ]


def _plain_name(name: str) -> str:
    """A stored name as the base model has it."""
    return _WRAPPED.sub("", name.removeprefix("base_model.model."))


def _check_fit(files: AdapterFiles, loaded: LoadedBase) -> None:
    there = dict(loaded.model.named_modules())
    for module in files.modules.values():
        weight = getattr(there.get(module.name), "weight", None)
        if weight is None:
            raise UnreadableAdapterError(
                f"{files.name} changes {module.name[:120]!r}, which {loaded.name} does not have: it was made "
                f"for another base or another task."
            )
        if tuple(weight.shape) not in (module.shape, module.shape[::-1]):
            raise UnreadableAdapterError(
                f"{files.name}: {module.name[:120]!r} is {module.shape[0]} × {module.shape[1]}, in "
                f"{loaded.name} it is {' × '.join(map(str, weight.shape))}: it was made for another base."
            )


def _untie(files: AdapterFiles, loaded: LoadedBase) -> None:
    """Give head and embedding a weight each, where they share one and the adapter changes one of them."""
    import torch

    head: Any = loaded.model.get_output_embeddings()
    embedding: Any = loaded.model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight or files.config.get("ensure_weight_tying") is True:
        return
    changed = {*files.modules, *(_plain_name(name).rpartition(".")[0] for name in files.whole)}
    if any(module in (head, embedding) and name in changed for name, module in loaded.model.named_modules()):
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def _load_whole(files: AdapterFiles, loaded: LoadedBase) -> None:
    """Copy what the adapter brings whole, its head above all, into the base."""
    with files.reading() as stored:
        found: dict[str, Any] = {
            _plain_name(name): stored.read(name) for name in files.tensors if "lora_" not in name
        }
    own = loaded.model.state_dict()
    for name, tensor in found.items():
        if name not in own:
            raise UnreadableAdapterError(
                f"{files.name} brings {name[:120]!r}, which {loaded.name} does not have."
            )
        if own[name].shape != tensor.shape:
            raise UnreadableAdapterError(
                f"{files.name}: {name[:120]!r} has the shape {tuple(tensor.shape)}, in {loaded.name} it is "
                f"{tuple(own[name].shape)}."
            )
    loaded.model.load_state_dict(found, strict=False)


def plain_config(files: AdapterFiles) -> Any:
    """The adapter's configuration in numbers and whole names; alpha carries every scaling.

    Without a task, as peft would otherwise look for a head of its own.
    """
    from peft import LoraConfig

    init = files.config.get("init_lora_weights", True)
    keeps = isinstance(init, str) and _BASE_CHANGING.fullmatch(init)
    modules = files.modules.values()
    return LoraConfig(
        r=1,
        lora_alpha=1,
        target_modules=[m.name for m in modules],
        rank_pattern={f"^{re.escape(m.name)}$": m.rank for m in modules},
        alpha_pattern={f"^{re.escape(m.name)}$": m.scaling * m.rank for m in modules},
        use_dora=any(m.magnitude for m in modules),
        fan_in_fan_out=files.config.get("fan_in_fan_out") is True,
        init_lora_weights=init.lower() if keeps else True,
    )


def _factors(files: AdapterFiles) -> Mapping[str, torch.Tensor]:
    """The adapter's factors under the names that peft gives them, in float32."""
    out = {}
    with files.reading() as stored:
        for module in files.modules.values():
            start = f"base_model.model.{module.name}"
            for key, name in (
                ("lora_A.weight", module.A),
                ("lora_B.weight", module.B),
                ("lora_magnitude_vector", module.magnitude),
            ):
                if name:
                    out[f"{start}.{key}"] = stored.read(name)
    return out
