"""RoRA (arXiv 2601.06305): make a clean LoRA update strong and aligned enough to forget a poisoned base.

Three parts, which the paper calls clean-strengthened regularisation (Cl), trigger-insensitive constraint (Tr)
and post-training spectral rescaling (Pt). There is no official code; what the paper leaves open is a knob.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lab.defend._defense import Combination, Intervention, Patient, Penalty, Subject, WeightEdit, Weights
from lab.errors import NotTrainableError
from lab.modules import choose_modules
from lab.registry import Knobs

if TYPE_CHECKING:
    import torch

    from lab.experiment import Experiment

_PAPER = "arXiv 2601.06305"


class Cl(Knobs):
    """What can be set on Cl."""

    name: Literal["cl"] = "cl"
    # the paper's default; its grid is .05 to .3
    p: float = Field(0.1, gt=0, lt=1, description="dropout probability on the frozen path's output")
    # where the paper has its adapters
    modules: str | tuple[str, ...] = Field("query-value", description="adapted modules that get it")


class Tr(Knobs):
    """What can be set on Tr."""

    name: Literal["tr"] = "tr"
    # the paper's default; its grid is 1 to 20
    weight: float = Field(10.0, gt=0, description="λ, the penalty's weight in the loss")
    # not stated in the paper; at full k the penalty is plain weight decay on A and B
    k: int = Field(8, ge=1, description="size of W's top singular subspaces to stay out of")
    # not stated in the paper; a mean keeps λ's meaning whatever the number of modules
    over: Literal["mean", "sum"] = Field("mean", description="how modules are put together")
    modules: str | tuple[str, ...] = Field("all-linear", description="adapted modules that get it")


class Pt(Knobs):
    """What can be set on Pt."""

    name: Literal["pt"] = "pt"
    # "top three layers" in the paper
    layers: int = Field(3, ge=0, description="how many of the last layers (0: all)")
    modules: str | tuple[str, ...] = Field("query-value", description="adapted modules to rescale")
    # 1 is the paper's rule
    strength: float = Field(1.0, gt=0, description="σ_max(ΔW)/σ_max(W) to reach")
    cap: float = Field(0.0, ge=0, description="largest factor on ΔW (0: none)")


class Rora(Knobs):
    """What can be set on the whole of RoRA; each part has more knobs of its own under its own name."""

    name: Literal["rora"] = "rora"
    p: float = Field(0.1, gt=0, lt=1, description="Cl's dropout probability")
    weight: float = Field(10.0, gt=0, description="Tr's λ")
    k: int = Field(8, ge=1, description="Tr's k")
    modules: str | tuple[str, ...] = Field("query-value", description="adapted modules of Cl and Pt")
    layers: int = Field(3, ge=0, description="Pt's last layers (0: all)")
    cap: float = Field(0.0, ge=0, description="Pt's largest factor (0: none)")


def _refuse_cl(_: Cl, experiment: Experiment) -> str:
    adapter = experiment.adapter
    if adapter.kind == "full":
        return "full fine-tuning has no frozen path to drop out"
    if adapter.variant == "dora" and adapter.dropout > 0:
        return "with dropout on its input, DoRA goes around the frozen path's output; set adapter.dropout = 0"
    return ""


def _refuse_full(_: Knobs, experiment: Experiment) -> str:
    return "full fine-tuning has no factors A and B" if experiment.adapter.kind == "full" else ""


def dropped_out(values: torch.Tensor, p: float) -> torch.Tensor:
    """Dropout: each value becomes 0 with probability p, and 1/(1 − p) times itself otherwise.

    On a CPU torch tosses coins one by one, which takes longer than the layers themselves; a mask from uniform
    numbers takes a third of that.
    """
    import torch

    if values.device.type != "cpu":
        return torch.nn.functional.dropout(values, p)
    mask = torch.rand(values.shape).ge_(p).mul_(1 / (1 - p))
    return values * mask.to(values.dtype)


@contextlib.contextmanager
def _attach_cl(knobs: Cl, subject: Subject) -> Iterator[None]:
    """With Cl, x → dropout_p(W₀x) + s·BAx while the model trains, so that BA must carry the signal."""

    def drop_out(module: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
        return dropped_out(output, knobs.p) if module.training else output

    chosen = choose_modules(list(subject.layers), knobs.modules, where="defense cl")
    handles = [subject.layers[name].base_layer.register_forward_hook(drop_out) for name in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _attach_tr(knobs: Tr, subject: Subject) -> Iterator[Penalty]:
    """Ω = ‖UₖᵀB‖²_F + ‖AVₖ‖²_F over modules (the paper's Eq. 10–11), with W = UΣVᵀ; the loss gets λΩ."""
    chosen = choose_modules(list(subject.layers), knobs.modules, where="defense tr")
    spectra = subject.spectra()
    bases = []
    for name in chosen:
        W = spectra[name]
        A, B = subject.layers[name].lora_A["default"].weight, subject.layers[name].lora_B["default"].weight
        known = W.U.shape[1]
        if knobs.k > known:
            raise NotTrainableError(
                f"defense tr: k = {knobs.k}: {name} is {B.shape[0]} × {A.shape[1]}, of which {known} "
                f"singular directions are known; allowed are 1 to {known}."
            )
        bases.append((A, B, W.U[:, : knobs.k].to(B), W.Vt[: knobs.k].to(A)))

    def penalty() -> torch.Tensor:
        terms = [(U.T @ B).square().sum() + (A @ Vt.T).square().sum() for A, B, U, Vt in bases]
        total = sum(terms[1:], start=terms[0])
        return knobs.weight * (total / len(terms) if knobs.over == "mean" else total)

    yield penalty


def _edit_pt(knobs: Pt, weights: Weights, patient: Patient) -> Weights:
    """s·ΔW with σ_max(s·ΔW) = strength · σ_max(W) in the last layers (the paper's Eq. 12)."""
    updates = dict(weights.updates)
    chosen = choose_modules(list(updates), knobs.modules, where="defense pt", last_layers=knobs.layers)
    for name in chosen:
        factor = _pt_factor(knobs, float(_inner_sigma(updates[name])), patient.base_sigma(name))
        updates[name] = updates[name].rescale(factor)
    return replace(weights, updates=updates)


def _pt_factor(knobs: Pt, sigma: float, base_sigma: float) -> float:
    if sigma == 0:  # no factor makes nothing into something
        return 1.0
    factor = knobs.strength * base_sigma / sigma
    return min(factor, knobs.cap) if knobs.cap else factor


def _inner_sigma(update: Any) -> torch.Tensor:
    """σ_max of s·BA; in DoRA that is the part that s scales."""
    inner = getattr(update, "inner", update)
    return inner.singular_values()[0]


CL = Intervention(
    name="cl",
    goal="Drop out the frozen path's output while training, so that the adapter must carry the clean signal.",
    paper=f"{_PAPER}, clean-strengthened regularisation",
    stage="training",
    knobs=Cl,
    changes="the forward pass of the chosen LoRA layers in training mode; no weight, nothing that is saved",
    refuse=_refuse_cl,
    attach=_attach_cl,
)
TR = Intervention(
    name="tr",
    goal="Keep the adapter out of the base's strongest directions, where the backdoor is thought to lie.",
    paper=f"{_PAPER}, Eq. 10-11",
    stage="training",
    knobs=Tr,
    changes="the loss, by λ·Ω of the adapter's factors",
    refuse=_refuse_full,
    attach=_attach_tr,
)
PT = WeightEdit(
    name="pt",
    goal="After training, scale the update in the last layers up to the base's own strength.",
    paper=f"{_PAPER}, Eq. 12",
    stage="weights",
    knobs=Pt,
    changes="ΔW of the chosen modules, by one positive factor each",
    edit=_edit_pt,
)
RORA = Combination(
    name="rora",
    goal="The whole of RoRA: Cl and Tr in training, Pt after it.",
    paper=_PAPER,
    stage="training",
    knobs=Rora,
    changes="what cl, tr and pt change",
    expand=lambda k: (
        Cl(p=k.p, modules=k.modules),
        Tr(weight=k.weight, k=k.k),
        Pt(layers=k.layers, cap=k.cap, modules=k.modules),
    ),
)
