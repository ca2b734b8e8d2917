"""What every linear layer saw of some texts, and how its output moves the margins: the parts of any kernel.

The gradient of a margin with respect to a layer's weights is Σ_t g_t x_tᵀ, with x_t the layer's input at
token t and g_t the margin's gradient at its output there. The same x and g serve full fine-tuning and every
adapter on that layer, so that one forward pass, and one backward pass per margin, are enough for all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from lab.probe.predictor import Predictor

#: Bytes of inputs and gradients that are held at once; more layers are looked at in several passes.
_KEPT_BYTES = 2**29
#: Padded tokens per batch with gradients.
_BATCH_TOKENS = 1024


@dataclass(frozen=True)
class LayerTrace:
    """Inputs and output gradients of one linear layer; zero where a text has no token.

    Attributes:
        module: The layer's name.
        inputs: x, texts × tokens × n_in.
        gradients: g, margins × texts × tokens × n_out. Margins are the target's logit minus that of each
            other label, in the labels' order: one for two labels.
    """

    module: str
    inputs: torch.Tensor
    gradients: torch.Tensor


def trace_layers(
    predictor: Predictor,
    modules: Sequence[str],
    token_ids: Sequence[Sequence[int]],
    target: int,
    *,
    kept_bytes: int = _KEPT_BYTES,
) -> Iterator[LayerTrace]:
    """Inputs and output gradients of linear layers, one layer after the other.

    Args:
        predictor: A model with what an adapter changes merged into its weights.
        modules: Which linear layers, by full name.
        token_ids: At least one tokenised text.
        target: The target label's index.
        kept_bytes: About how much is held at once; less means more passes, with the same result.

    Yields:
        Traces in the order of `modules`, in the model's precision and on its device.

    Raises:
        LabError: A module that the model has not, or one that does not see the texts one by one.
    """
    if not len(token_ids):
        raise LabError("A kernel needs at least one text.")
    layers = dict(predictor.model.named_modules())
    if unknown := [name for name in modules if name not in layers]:
        raise LabError(f"kernels: the model has no module {unknown[0]!r}.")
    for group in _groups([(name, layers[name]) for name in modules], predictor, token_ids, kept_bytes):
        found: dict[str, list[_Part]] = {name: [] for name in group}
        for batch, parts in _batches(predictor, {name: layers[name] for name in group}, token_ids, target):
            for name, (inputs, gradients) in parts.items():
                found[name].append((batch, inputs, gradients))
        for name in group:
            yield _assembled(name, found.pop(name), len(token_ids))


_Part = tuple[list[int], "torch.Tensor", "torch.Tensor"]


def _groups(
    layers: Sequence[tuple[str, Any]], predictor: Predictor, token_ids: Sequence[Sequence[int]], limit: int
) -> Iterator[list[str]]:
    """Neighbouring layers whose traces fit into memory together, at least one at a time."""
    tokens = len(token_ids) * max(len(ids) for ids in token_ids)
    margins = len(predictor.labels) - 1
    group: list[str] = []
    held = 0
    for name, layer in layers:
        numbers = tokens * (layer.in_features + margins * layer.out_features)
        size = numbers * layer.weight.element_size()
        if group and held + size > limit:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _batches(
    predictor: Predictor, layers: dict[str, Any], token_ids: Sequence[Sequence[int]], target: int
) -> Iterator[tuple[list[int], dict[str, tuple[torch.Tensor, torch.Tensor]]]]:
    """Batch by batch, the texts' places and each layer's inputs and gradients."""
    import torch

    from lab.tokens import by_length, pad

    pad_id = int(predictor.tokenizer.pad_token_id)
    for batch in by_length([len(ids) for ids in token_ids], _BATCH_TOKENS):
        inputs = {k: v.to(predictor.device) for k, v in pad([token_ids[i] for i in batch], pad_id).items()}
        with torch.enable_grad(), _recorded(predictor.model, layers) as calls:
            logits = predictor.reading.label_logits(predictor.model, inputs)
            others = [label for label in range(logits.shape[1]) if label != target]
            margins = (logits[:, target, None] - logits[:, others]).sum(dim=0)
            yield batch, _with_gradients(calls, margins, len(batch))


@contextlib.contextmanager
def _recorded(model: Any, layers: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
    """Keep every layer's inputs and outputs of each call, with a graph also where all weights are frozen."""
    calls: dict[str, list[Any]] = {name: [] for name in layers}

    def record(name: str) -> Any:
        def hook(_: Any, inputs: Any, output: torch.Tensor) -> None:
            calls[name].append((inputs[0].detach(), output))

        return hook

    def begin(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output.detach().requires_grad_()

    handles = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    handles.append(model.get_input_embeddings().register_forward_hook(begin))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _with_gradients(
    calls: dict[str, list[Any]], margins: torch.Tensor, texts: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and gradients by layer; what a layer sees in several calls is put side by side like tokens."""
    import torch

    if unused := [name for name, made in calls.items() if not made]:
        raise LabError(f"kernels: the model does not use its module {unused[0]!r} to answer.")
    outputs = [output for made in calls.values() for _, output in made]
    by_margin = []
    for number, margin in enumerate(margins, start=1):
        # not `backward`, which would leave a gradient on every weight of the model
        found = torch.autograd.grad(margin, outputs, retain_graph=number < len(margins), allow_unused=True)
        by_margin.append(
            [torch.zeros_like(o) if g is None else g for o, g in zip(outputs, found, strict=True)]
        )
    gradients = iter(torch.stack(of_one) for of_one in zip(*by_margin, strict=True))
    parts = {}
    for name, made in calls.items():
        inputs = [_by_text(name, x, texts) for x, _ in made]
        moved = [g if g.ndim == 4 else g[:, :, None] for g in (next(gradients) for _ in made)]
        parts[name] = (torch.cat(inputs, dim=1), torch.cat(moved, dim=2))
    return parts


def _by_text(module: str, x: torch.Tensor, texts: int) -> torch.Tensor:
    """Texts × tokens × n_in, also of a head that sees one vector per text."""
    if x.shape[0] != texts:
        raise LabError(f"kernels: {module} does not see the texts one by one; leave it out.")
    return x if x.ndim == 3 else x[:, None]


def _assembled(module: str, parts: Sequence[_Part], texts: int) -> LayerTrace:
    """The trace of all texts in their order, as long as the longest batch."""
    _, x, g = parts[0]
    tokens = max(inputs.shape[1] for _, inputs, _ in parts)
    inputs = x.new_zeros(texts, tokens, x.shape[-1])
    gradients = g.new_zeros(g.shape[0], texts, tokens, g.shape[-1])
    for batch, of_batch, moved in parts:
        inputs[batch, : of_batch.shape[1]] = of_batch
        gradients[:, batch, : moved.shape[2]] = moved
    return LayerTrace(module, inputs, gradients)
