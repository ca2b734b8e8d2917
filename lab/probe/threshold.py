"""The threshold s*: how far ΔW would have to be scaled up before a trigger no longer gets its target.

Proposition 4.2 of arXiv 2601.06305 says for one linear layer that a backdoor is suppressed once

    s > s* = (ρ_bd / ρ_eff) · σ_max(W) / σ_max(ΔW),   that is, once  s·⟨c, ΔWx⟩ > −⟨c, Wx⟩,

with c the direction of the margin and ρ the alignments of W and ΔW with it. Its proof is disputed, and a
network is not one layer: here c is the gradient of the margin at a module's output (this lab's own
linearisation), taken at the scale that was trained. So s* is a heuristic, which is why what it predicts is
always shown beside what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from lab.spectra import Update


@dataclass(frozen=True)
class Margins:
    """The margin of each text (logit of the true label minus the target's), and how it moves with the scale.

    Attributes:
        margin: At the trained scale, one per text; below 0 the target wins.
        slope: d margin / d scale, where scale multiplies every ΔW and 1 is the trained one.
        backdoor_alignment: ρ_bd of each module, mean over texts, in [-1, 1].
        effective_alignment: ρ_eff of each module, mean over texts, in [-1, 1].
    """

    margin: np.ndarray
    slope: np.ndarray
    backdoor_alignment: dict[str, float]
    effective_alignment: dict[str, float]

    def critical_scales(self) -> np.ndarray:
        """The multiple of the trained scale at which each margin would cross 0, linearly; inf: never."""
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = 1 - self.margin / self.slope
        never = (self.margin < 0) & (self.slope <= 0)
        return np.where(never, np.inf, np.where(self.margin >= 0, np.minimum(crossing, 1.0), crossing))

    def predicted_flips(self, scale: float) -> float:
        """The share of texts whose margin would be above 0 at a scale."""
        return float((self.margin + (scale - 1) * self.slope > 0).mean())


def measure_margins(
    model: Any,
    updates: Mapping[str, Update],
    base_weights: Mapping[str, torch.Tensor],
    token_ids: Sequence[Sequence[int]],
    truth: Sequence[int],
    target: int,
    pad_id: int,
) -> Margins:
    """Margins, slopes and alignments of some triggered texts, by one forward and one backward pass.

    Args:
        model: The classifier with W + ΔW in its weights, in eval mode.
        updates: ΔW by module name.
        base_weights: W of the same modules.
        token_ids: The texts.
        truth: The index of each text's true label, never the target's.
        target: The target label's index.
        pad_id: The padding token.
    """
    import torch

    from lab.tokens import EVALUATION_TOKENS, by_length, pad

    sigma_delta = {n: float(u.singular_values()[0]) for n, u in updates.items()}
    sigma_base = {n: float(torch.linalg.matrix_norm(base_weights[n], 2)) for n in updates}
    margin, slope = np.zeros(len(token_ids)), np.zeros(len(token_ids))
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in updates}
    device = next(model.parameters()).device
    for batch in by_length([len(ids) for ids in token_ids], EVALUATION_TOKENS):
        inputs = {k: v.to(device) for k, v in pad([token_ids[i] for i in batch], pad_id).items()}
        right = torch.tensor([truth[i] for i in batch], device=device)
        with _Probes(model, updates, len(batch), device) as probes:
            logits = model(**inputs).logits.float()
            margins = logits.gather(1, right[:, None])[:, 0] - logits[:, target]
            margins.sum().backward()
        margin[batch] = margins.detach().cpu().numpy()
        slope[batch] = probes.scale.grad.cpu().numpy()  # type: ignore[union-attr] # backward has run
        for name, (bd, eff) in probes.alignments(base_weights, sigma_base, sigma_delta).items():
            sums[name][0] += bd
            sums[name][1] += eff
    n = max(len(token_ids), 1)
    return Margins(
        margin,
        slope,
        {name: total[0] / n for name, total in sums.items()},
        {name: total[1] / n for name, total in sums.items()},
    )


class _Probes:
    """Hooks that put a scale of its own on each text's ΔW, so that one backward pass gives every slope."""

    def __init__(self, model: Any, updates: Mapping[str, Update], texts: int, device: Any) -> None:
        import torch

        self.scale = torch.ones(texts, device=device, requires_grad=True)
        self._updates = updates
        self._seen: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        modules = {n: m for n, m in model.named_modules() if n in updates}
        self._handles = [m.register_forward_hook(self._hook(n)) for n, m in modules.items()]

    def _hook(self, name: str) -> Any:
        def hook(_: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            x = inputs[0].detach()
            moved = self._updates[name].times(x.reshape(-1, x.shape[-1]).T).T.reshape(output.shape)
            out = output + (self.scale - 1).view(-1, *[1] * (output.ndim - 1)) * moved
            out.retain_grad()
            self._seen[name] = (x, moved, out)
            return out

        return hook

    def alignments(
        self,
        base_weights: Mapping[str, torch.Tensor],
        sigma_base: Mapping[str, float],
        sigma_delta: Mapping[str, float],
    ) -> dict[str, tuple[float, float]]:
        """The sums over texts of ρ_bd = −⟨c, Wx⟩/(σ(W)‖c‖‖x‖) and ρ_eff = ⟨c, ΔWx⟩/(σ(ΔW)‖c‖‖x‖)."""
        found = {}
        for name, (x, moved, out) in self._seen.items():
            c = out.grad
            if c is None:
                continue
            size = (c.flatten(1).norm(dim=1) * x.flatten(1).norm(dim=1)).clamp(min=1e-30)
            through_base = (c * (x @ base_weights[name].to(x).T)).flatten(1).sum(1)
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
