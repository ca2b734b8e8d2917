"""Measures on a model: who predicts what on which rows, and what that says. Knows nothing of training."""

from __future__ import annotations

from lab.probe.conditions import headline_texts, own_triggers, probe_texts
from lab.probe.matrix import generalization_matrix
from lab.probe.measures import family_mean, measure
from lab.probe.predictor import Predictor, count_same_tokens

__all__ = [
    "Predictor",
    "count_same_tokens",
    "family_mean",
    "generalization_matrix",
    "headline_texts",
    "measure",
    "own_triggers",
    "probe_texts",
]
