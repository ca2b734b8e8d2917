"""Measures on a model: who predicts what on which rows, and what that says. Knows nothing of training."""

from __future__ import annotations

from lab.probe.attention import ATTENTION_COLUMNS, measure_attention
from lab.probe.conditions import battery_texts, headline_texts, own_triggers, probe_texts
from lab.probe.matrix import generalization_matrix
from lab.probe.measures import family_mean, measure
from lab.probe.occlusion import OCCLUSION_COLUMNS, measure_occlusion
from lab.probe.patching import PATCHING_COLUMNS, PatchedPair
from lab.probe.predictor import Predictor, count_same_tokens

__all__ = [
    "ATTENTION_COLUMNS",
    "OCCLUSION_COLUMNS",
    "PATCHING_COLUMNS",
    "PatchedPair",
    "Predictor",
    "battery_texts",
    "count_same_tokens",
    "family_mean",
    "generalization_matrix",
    "headline_texts",
    "measure",
    "measure_attention",
    "measure_occlusion",
    "own_triggers",
    "probe_texts",
]
