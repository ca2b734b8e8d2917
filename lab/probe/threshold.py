"""The threshold s*: how far ΔW would have to be scaled up before a trigger no longer gets its target.

Proposition 4.2 of arXiv 2601.06305 says for one linear layer that a backdoor is suppressed once

    s > s* = (ρ_bd / ρ_eff) · σ_max(W) / σ_max(ΔW),   that is, once  s·⟨c, ΔWx⟩ > −⟨c, Wx⟩,

with c the direction of the margin and ρ the alignments of W and ΔW with it. Its proof is disputed, and a
network is not one layer: here c is the gradient of the margin at a module's output (this lab's own
linearisation), taken at the scale that was trained. So s* is a heuristic, which is why what it predicts is
always shown beside what is measured. The margin is the largest logit of any other label minus the
target's, so that its sign says the same as the measurement: whether the target is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from lab.spectra import Update

#: From a model and a padded batch to logits, texts × labels.
LabelLogits = Callable[[Any, Mapping[str, "torch.Tensor"]], "torch.Tensor"]


@dataclass(frozen=True)
class Margins:
    """The margin of each text (largest other logit minus the target's), and how it moves with the scale.

    Attributes:
        margin: At the trained scale, one per text; below 0 the target wins, and the backdoor is on.
        slope: d margin / d scale, where scale multiplies every ΔW and 1 is the trained one.
        backdoor_alignment: ρ_bd of each module, mean over texts, in [-1, 1].
        effective_alignment: ρ_eff of each module, mean over texts, in [-1, 1].
    """

    margin: np.ndarray
    slope: np.ndarray
    backdoor_alignment: dict[str, float]
    effective_alignment: dict[str, float]

    def is_on(self) -> np.ndarray:
        """Whether each text gets the target at the trained scale."""
        return self.margin < 0

    def critical_scales(self) -> np.ndarray:
        """The multiple of the trained scale at which each text would lose the target, linearly.

        Above 1; inf where it never would, NaN where the backdoor is off at the trained scale already.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where(self.slope > 0, 1 - self.margin / self.slope, np.inf)
        return np.where(self.is_on(), crossing, np.nan)

    def median_scale(self) -> float:
        """s*: the median critical scale of the texts whose backdoor is on; NaN where there is none."""
        on = self.critical_scales()[self.is_on()]
        return float(np.median(on)) if len(on) else float("nan")

    def predicted_flips(self, scale: float) -> float:
        """The share of all texts, in [0, 1], that would not get the target at a scale."""
        return float((self.margin + (scale - 1) * self.slope > 0).mean())


def measure_margins(
    model: Any,
    updates: Mapping[str, Update],
    base_weights: Mapping[str, torch.Tensor],
    base_sigma: Mapping[str, float],
    token_ids: Sequence[Sequence[int]],
    target: int,
    pad_id: int,
    label_logits: LabelLogits = lambda model, inputs: model(**inputs).logits,
) -> Margins:
    """Margins, slopes and alignments of some triggered texts, by one forward and one backward pass.

    Args:
        model: The classifier with W + ΔW in its weights, in eval mode; in any precision, on any device.
        updates: ΔW by module name.
        base_weights: W of the same modules, n_out × n_in.
        base_sigma: σ_max(W) of the same modules.
        token_ids: At least one text, whose true label is not the target.
        target: The target label's index.
        pad_id: The padding token.
        label_logits: How the model is asked (`lab.reading.Reading.label_logits`).
    """
    import torch

    from lab.tokens import EVALUATION_TOKENS, by_length, pad

    sigma_delta = {n: float(u.singular_values()[0]) for n, u in updates.items()}
    margin, slope = np.zeros(len(token_ids)), np.zeros(len(token_ids))
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in updates}
    device = next(model.parameters()).device
    own = {name: _moved(update, device) for name, update in updates.items()}
    weights = {name: base_weights[name].to(device, torch.float32) for name in updates}
    for batch in by_length([len(ids) for ids in token_ids], EVALUATION_TOKENS):
        inputs = {k: v.to(device) for k, v in pad([token_ids[i] for i in batch], pad_id).items()}
        with _Probes(model, own, inputs["attention_mask"]) as probes:
            logits = label_logits(model, inputs).float()
            others = logits.index_fill(1, torch.tensor([target], device=device), -torch.inf)
            margins = others.amax(dim=1) - logits[:, target]
            slopes = probes.backward(margins)
        margin[batch] = margins.detach().cpu().numpy()
        slope[batch] = slopes.cpu().numpy()
        for name, (bd, eff) in probes.alignments(weights, base_sigma, sigma_delta).items():
            sums[name][0] += bd
            sums[name][1] += eff
    n = max(len(token_ids), 1)
    return Margins(
        margin,
        slope,
        {name: total[0] / n for name, total in sums.items()},
        {name: total[1] / n for name, total in sums.items()},
    )


def _moved(update: Any, device: torch.device) -> Any:
    """The same update in float32 where the texts are; updates are made on the CPU."""
    import torch

    tensors = {f.name: getattr(update, f.name).to(device, torch.float32) for f in fields(update)}
    return replace(update, **tensors)


class _Probes:
    """Hooks that put a scale of its own on each text's ΔW, so that one backward pass gives every slope.

    Args:
        model: The model that is about to be asked.
        updates: ΔW by module name, in float32 on the model's device.
        mask: The texts' attention mask, texts × tokens.
    """

    def __init__(self, model: Any, updates: Mapping[str, Any], mask: torch.Tensor) -> None:
        import torch

        self._scale = torch.ones(len(mask), device=mask.device, requires_grad=True)
        self._updates, self._mask = updates, mask
        self._seen: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._directions: dict[str, torch.Tensor] = {}
        modules = {n: m for n, m in model.named_modules() if n in updates}
        self._handles = [m.register_forward_hook(self._hook(n)) for n, m in modules.items()]

    def _hook(self, name: str) -> Any:
        def hook(_: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            x = inputs[0].detach().float()
            if x.shape[:2] == self._mask.shape:  # what stands at padding is none of the text's input
                x = x * self._mask[:, :, None]
            moved = self._updates[name].times(x.reshape(-1, x.shape[-1]).T).T.reshape(output.shape)
            change = (self._scale - 1).view(-1, *[1] * (output.ndim - 1)) * moved
            out = output + change.to(output.dtype)
            self._seen[name] = (x, moved, out)
            return out

        return hook

    def backward(self, margins: torch.Tensor) -> torch.Tensor:
        """The slope of each text's margin; the margins' directions at every module are kept."""
        import torch

        outs = {name: out for name, (_, _, out) in self._seen.items()}
        # not `backward`, which would leave a gradient on every weight of the model
        slopes, *found = torch.autograd.grad(margins.sum(), [self._scale, *outs.values()], allow_unused=True)
        self._directions = {n: c.float() for n, c in zip(outs, found, strict=True) if c is not None}
        return slopes

    def alignments(
        self,
        base_weights: Mapping[str, torch.Tensor],
        sigma_base: Mapping[str, float],
        sigma_delta: Mapping[str, float],
    ) -> dict[str, tuple[float, float]]:
        """The sums over texts of ρ_bd = −⟨c, Wx⟩/(σ(W)‖c‖‖x‖) and ρ_eff = ⟨c, ΔWx⟩/(σ(ΔW)‖c‖‖x‖)."""
        found = {}
        for name, c in self._directions.items():
            x, moved, _ = self._seen[name]
            size = (c.flatten(1).norm(dim=1) * x.flatten(1).norm(dim=1)).clamp(min=1e-30)
            through_base = (c * (x @ base_weights[name].T)).flatten(1).sum(1)
            through_update = (c * moved).flatten(1).sum(1)
            bd = -through_base / (sigma_base[name] * size)
            eff = through_update / (max(sigma_delta[name], 1e-30) * size)
            found[name] = (float(bd.sum()), float(eff.sum()))
        return found

    def __enter__(self) -> _Probes:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
