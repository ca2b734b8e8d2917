"""What training has changed so far: ΔW = effective weight − original weight, module by module.

LoRA: s·BA with s = peft's `scaling`. PiSSA and OLoRA move a part of W into B₀A₀ at the start, so there
ΔW = s(BA − B₀A₀), of rank up to 2r. DoRA: diag(m/‖W+sBA‖)(W+sBA) − W, which does not factor. Full
fine-tuning: W − W₀ with a copy of W₀ kept on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.spectra import DenseUpdate, DoraUpdate, FactoredUpdate, Update
from lab.train.adapters import CHANGES_BASE, block_linears, lora_layers

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lab.experiment import Adapter


class Deltas:
    """Watches a model from before its training; asks nothing of it while it trains.

    Args:
        model: The model with its fresh adapter, or the model itself for full fine-tuning.
        adapter: What is being trained.
    """

    def __init__(self, model: Any, adapter: Adapter) -> None:
        self._adapter = adapter
        self._layers: dict[str, Any] = {}
        self._initial: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._original: dict[str, torch.Tensor] = {}
        if adapter.kind == "full":
            self._layers = dict(block_linears(model))
            self._original = {n: m.weight.detach().cpu().clone() for n, m in self._layers.items()}
            return
        self._layers = dict(lora_layers(model))
        if adapter.init in CHANGES_BASE:
            for name, layer in self._layers.items():
                A, B, scaling = _factors(layer)
                self._initial[name] = ((B * scaling).clone(), A.clone())

    def updates(self) -> dict[str, Update]:
        """ΔW of every watched module, now; on the CPU in float32."""
        import torch

        with torch.no_grad():
            return {name: self._update(name, layer) for name, layer in self._layers.items()}

    def _update(self, name: str, layer: Any) -> Update:
        import torch

        if self._adapter.kind == "full":
            return DenseUpdate(layer.weight.detach().cpu().float() - self._original[name].float())
        if name in self._initial:
            A, B, scaling = _factors(layer)
            left0, right0 = self._initial[name]
            return FactoredUpdate(torch.cat([B * scaling, -left0], dim=1), torch.cat([A, right0], dim=0))
        return _plain_update(layer)

    def base_weights(self) -> dict[str, torch.Tensor]:
        """The original W of every watched module."""
        if self._adapter.kind == "full":
            return self._original
        weights = {}
        for name, layer in self._layers.items():
            W = _weight_of(layer.base_layer)
            if name in self._initial:
                left0, right0 = self._initial[name]
                W = W + left0 @ right0
            weights[name] = W
        return weights


def _plain_update(layer: Any) -> Update:
    A, B, scaling = _factors(layer)
    if layer.lora_magnitude_vector:
        magnitude = layer.lora_magnitude_vector["default"].weight.detach().cpu().float()
        return DoraUpdate(_weight_of(layer.base_layer), B * scaling, A, magnitude)
    return FactoredUpdate(B * scaling, A)


def _factors(layer: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    A = layer.lora_A["default"].weight.detach().cpu().float()
    B = layer.lora_B["default"].weight.detach().cpu().float()
    return A, B, layer.scaling["default"]


def _weight_of(linear: nn.Module) -> torch.Tensor:
    weight: Any = linear.weight
    if hasattr(weight, "quant_state"):
        from peft.utils.integrations import dequantize_module_weight

        weight = dequantize_module_weight(linear)
    return weight.detach().cpu().float()
