"""Refit the classifier's last layer on clean rows, everything before it frozen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lab.defend._defense import Patient, WeightEdit, Weights
from lab.registry import Knobs

if TYPE_CHECKING:
    import torch


class RefitHead(Knobs):
    """What can be set on refitting the head."""

    name: Literal["refit_head"] = "refit_head"
    # weak, as the features of a fine-tuned encoder are few and well separated
    ridge: float = Field(1e-3, ge=0, description="L2 penalty on the standardised weights")


def _edit(knobs: RefitHead, weights: Weights, patient: Patient) -> Weights:
    X, y = patient.features(weights)
    name = patient.output_layer
    head = dict(weights.head)
    old = head[f"{name}.weight"]
    has_bias = f"{name}.bias" in head
    W, b = _logistic_regression(X, y, len(old), knobs.ridge, has_bias)
    head[f"{name}.weight"] = W.to(old)
    if has_bias:
        head[f"{name}.bias"] = b.to(old)
    return replace(weights, head=head)


def _logistic_regression(
    X: torch.Tensor, y: torch.Tensor, classes: int, ridge: float, has_bias: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax regression by L-BFGS on standardised features: convex, so it has no seed.

    Returns:
        Weights (classes × width) and biases for the features as they were given; the biases are zero for a
        head without (decoders), whose features are not centred then.
    """
    import torch
    from torch.nn import functional

    X = X.double()
    mean, spread = X.mean(0), X.std(0, unbiased=False).clamp(min=1e-8)
    if not has_bias:
        mean = torch.zeros_like(mean)
    Z = (X - mean) / spread
    W = torch.zeros(classes, X.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(classes, dtype=torch.float64, requires_grad=has_bias)
    optimizer = torch.optim.LBFGS([W, b] if has_bias else [W], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(Z @ W.T + b, y) + ridge * W.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        scaled = W / spread
        return scaled, b - scaled @ mean


REFIT_HEAD = WeightEdit(
    name="refit_head",
    goal="Refit the classifier's last layer on rows known to be clean, so that it reads the edited features.",
    paper="this lab; the last-layer retraining of Kirichenko et al. 2022, arXiv 2204.02937",
    stage="weights",
    knobs=RefitHead,
    changes="the head's last linear layer",
    edit=_edit,
)
