"""Fine-pruning: take away what clean text never uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from lab.defend._defense import Patient, WeightEdit, Weights
from lab.errors import NotTrainableError
from lab.modules import choose_modules, layer_index
from lab.registry import Knobs


class FinePrune(Knobs):
    """What can be set on fine-pruning."""

    name: Literal["fine_prune"] = "fine_prune"
    # the paper prunes until accuracy falls by a few points; a fifth is about there on a small encoder
    share: float = Field(0.2, gt=0, lt=1, description="share of each layer's hidden units to prune")
    layers: int = Field(0, ge=0, description="how many of the last layers (0: all)")


def _edit(knobs: FinePrune, weights: Weights, patient: Patient) -> Weights:
    """W + ΔW gets zero columns where its inputs, the hidden units of the layer's MLP, are most silent."""
    from lab.spectra import DenseUpdate

    updates = dict(weights.updates)
    chosen = _down_projections(patient, knobs.layers)
    for name, activity in patient.activity(weights, chosen).items():
        silent = activity.argsort(stable=True)[: round(knobs.share * len(activity))]
        W = patient.base_weight(name)
        effective = updates[name].merge_into(W) if name in updates else W.clone()
        effective[:, silent] = 0
        updates[name] = DenseUpdate(effective - W)
    return replace(weights, updates=updates)


def _down_projections(patient: Patient, layers: int) -> list[str]:
    """In each layer, the matrix of the MLP that reads its hidden units: the one with the widest input."""
    linears = choose_modules(patient.linears(), "all-linear", where="defense fine_prune", last_layers=layers)
    widest: dict[int, str] = {}
    for name in linears:
        index, width = layer_index(name), patient.base_weight(name).shape[1]
        if index not in widest or width > patient.base_weight(widest[index]).shape[1]:
            widest[index] = name
    if any(patient.base_weight(n).shape[1] <= patient.base_weight(n).shape[0] for n in widest.values()):
        raise NotTrainableError("defense fine_prune: the blocks of this model have no MLP wider than itself.")
    return list(widest.values())


FINE_PRUNE = WeightEdit(
    name="fine_prune",
    goal="Prune the hidden units that are most silent on rows known to be clean, where a backdoor may hide.",
    paper="Liu et al. 2018, arXiv 1805.12185 (its pruning; fine-tune from the pruned run for the rest)",
    stage="weights",
    knobs=FinePrune,
    changes="the columns of each MLP's second matrix that read the silent units, to zero",
    edit=_edit,
)
