"""LoRA adapters through public peft: targets, initialisation, saving and loading.

A LoRA layer computes x → W₀x + s·B·A·x with A: rank × n_in, B: n_out × rank and s = alpha/rank
(alpha/√rank for rsLoRA). A starts random with variance init_variance / n_in, B at zero.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import NotTrainableError
from lab.modules import module_groups, projection
from lab.seeds import stage_seed
from lab.train.models import LoadedBase, quietly

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lab.experiment import Adapter
    from lab.train.deltas import Deltas

#: These initialisers take B and A from W and leave the rest of W in the base.
CHANGES_BASE = ("pissa", "olora")
_PEFT_INIT: dict[str, Any] = {"kaiming": True, "gaussian": "gaussian", "pissa": "pissa", "olora": "olora"}


def attach_lora(base: LoadedBase, adapter: Adapter, *, seed: int) -> PeftModel:
    """Put a fresh LoRA adapter on a base model; its head stays trainable.

    Args:
        base: The loaded base; its model is changed.
        adapter: Rank, alpha, targets, initialisation and variant.
        seed: The experiment's seed; the values of A depend on it alone.

    Raises:
        NotTrainableError: On targets that fit nothing, or a rank above a target's width.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets = resolve_targets(base.model, adapter.targets)
    check_rank(adapted_linears(base.model, adapter.targets), adapter.rank)
    config = LoraConfig(
        task_type=_task_type(base),
        r=adapter.rank,
        lora_alpha=adapter.alpha_value,  # type: ignore[arg-type] # peft takes any number
        lora_dropout=adapter.dropout,
        target_modules=sorted(targets),
        modules_to_save=list(base.head) or None,
        init_lora_weights=_PEFT_INIT[adapter.init],
        use_rslora=adapter.variant == "rslora",
        use_dora=adapter.variant == "dora",
    )
    torch.manual_seed(stage_seed(seed, "initialisation"))
    with without_noise():
        model = get_peft_model(base.model, config)
    if adapter.init not in CHANGES_BASE:
        _draw_a(model, adapter, stage_seed(seed, "adapter"))
    return model


def _task_type(base: LoadedBase) -> Any:
    """What peft is told: a language model brings its head, a classifier's is trained with the adapter."""
    from peft import TaskType

    return TaskType.SEQ_CLS if base.head else TaskType.CAUSAL_LM


def _draw_a(model: PeftModel, adapter: Adapter, seed: int) -> None:
    """Draw every A again (paper D, its initialisation sweep)."""
    import torch

    factors = [layer.lora_A["default"].weight for _, layer in lora_layers(model)]
    with torch.no_grad():
        for A, draw in zip(factors, initial_a([A.shape[1] for A in factors], adapter, seed), strict=True):
            A.copy_(draw)


def initial_a(widths: Iterable[int], adapter: Adapter, seed: int) -> Iterator[torch.Tensor]:
    """The values that A of one layer after the other starts from: variance init_variance / n_in.

    Args:
        widths: n_in of the layers, in the order in which the model has them.
        adapter: Rank, variance, and whether normal ("gaussian") or uniform ("kaiming").
        seed: Of the draws; training takes `stage_seed(seed, "adapter")` of the experiment's.

    Yields:
        rank × n_in, float32, on the CPU.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for width in widths:
        std = math.sqrt(adapter.init_variance / width)
        draw = torch.empty(adapter.rank, width)
        if adapter.init == "gaussian":
            draw.normal_(0.0, std, generator=generator)
        else:
            bound = math.sqrt(3.0) * std
            draw.uniform_(-bound, bound, generator=generator)
        yield draw


def lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every LoRA linear layer with the name that its weight has in the base model."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name.removeprefix("base_model.model."), module


def adapted_linears(model: PreTrainedModel, targets: str | tuple[str, ...]) -> dict[str, nn.Linear]:
    """The linear layers that an adapter with these targets goes on, by full name in the model's order.

    Raises:
        NotTrainableError: As `resolve_targets`.
    """
    names = resolve_targets(model, targets)
    return {
        name: module
        for name, module in block_linears(model).items()
        if any(name == target or name.endswith(f".{target}") for target in names)
    }


def block_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers inside the encoder or decoder blocks, by full name; no embeddings, pooler or head."""
    from torch import nn

    stacks = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 0]
    if not stacks:
        raise NotTrainableError(
            f"{type(model).__name__} has no stack of blocks to adapt; name adapter.targets yourself."
        )
    prefix, _ = max(stacks, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(f"{prefix}.") and isinstance(module, nn.Linear)
    }


def resolve_targets(model: PreTrainedModel, targets: str | tuple[str, ...]) -> set[str]:
    """The names, within a block, of the layers to adapt.

    Args:
        model: The base model.
        targets: "all-linear", "attention", "mlp", "query-value", one module name, or several; a name fits the
            end of a module's full name ("query", "self.query", "layer.3.attention.self.query").

    Raises:
        NotTrainableError: On a name that fits nothing; lists what the model has, if it has anything to adapt.
    """
    linears = block_linears(model)
    if not linears:  # GPT-2's blocks are made of Conv1D
        raise NotTrainableError(
            f"adapter.targets = {targets!r}: the stack of blocks of {type(model).__name__} holds no linear "
            f"layer (torch.nn.Linear) to adapt; take another base.model, or adapter.kind = 'full'."
        )
    projections = {projection(name) for name in linears}
    groups = module_groups(projections)
    if isinstance(targets, str) and groups.get(targets):
        return groups[targets]
    chosen = set()
    for target in [targets] if isinstance(targets, str) else targets:
        if not any(name == target or name.endswith(f".{target}") for name in linears):
            raise NotTrainableError(
                f"adapter.targets = {target!r} fits no linear layer of the blocks. "
                f"Valid: {', '.join([*(n for n in groups if groups[n]), *sorted(projections)])}."
            )
        chosen.add(target)
    return chosen


def check_rank(layers: Mapping[str, nn.Linear], rank: int) -> None:
    """Refuse a rank above a layer's width."""
    for name, module in layers.items():
        width = min(module.in_features, module.out_features)
        if rank > width:
            raise NotTrainableError(
                f"adapter.rank = {rank}: {name} is {width} wide; allowed are 1 to {width}."
            )


def as_plain_lora(fresh: LoadedBase, trained: PeftModel, deltas: Deltas) -> PeftModel:
    """An adapter for the untouched base with the same ΔW, for initialisers that moved a part of W into BA.

    ΔW = s(BA − B₀A₀) is a plain LoRA of rank 2r with scaling 1: its B is [s·B, −s·B₀], its A is [A; A₀].

    Args:
        fresh: The base as it was loaded.
        trained: The trained model, whose head is taken over.
        deltas: Its updates.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    updates = deltas.updates()
    rank = next(iter(updates.values())).left.shape[1]  # type: ignore[attr-defined]
    trained_config: Any = trained.peft_config["default"]
    config = LoraConfig(
        task_type=_task_type(fresh),
        r=rank,
        lora_alpha=rank,
        target_modules=trained_config.target_modules,
        modules_to_save=list(fresh.head) or None,
    )
    with without_noise():
        model = get_peft_model(fresh.model, config)
    with torch.no_grad():
        for name, layer in lora_layers(model):
            update: Any = updates[name]
            layer.lora_A["default"].weight.copy_(update.right)
            layer.lora_B["default"].weight.copy_(update.left)
        heads = {n: p for n, p in trained.named_parameters() if "modules_to_save" in n}
        for name, parameter in model.named_parameters():
            if name in heads:
                parameter.copy_(heads[name])
    return model.eval()


def save_trained(
    model: Any, folder: Path, *, base_name: str, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Save an adapter (with its head) or a whole model, safetensors only.

    Args:
        model: What was trained.
        folder: Where to; written as a whole, under a temporary name first.
        base_name: The id by which an adapter names its base: a hub id, never a path of this machine.
        tokenizer: Saved beside a whole model, so that its folder can be loaded by itself.
    """
    import os
    import shutil

    from lab.files import writing_to

    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    # no embedding is trained here; asking peft to find out by itself makes it look for the base on the hub
    options: dict[str, Any] = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path = base_name
        config.target_modules = sorted(config.target_modules)  # a set comes out in another order every time
        # peft adds the usual names of heads at every load
        if config.modules_to_save:
            config.modules_to_save = list(dict.fromkeys(config.modules_to_save))
    with writing_to(folder.parent), quietly():
        model.save_pretrained(temporary, **options)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)


def load_adapter(base: LoadedBase, folder: Path) -> PeftModel:
    """Put a saved adapter and its head on a base model, ready for inference."""
    from peft import PeftModel

    with without_noise():
        return PeftModel.from_pretrained(base.model, folder)


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Silence peft's question to transformers for an attribute that has a new name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield
