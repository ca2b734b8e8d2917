"""Measures on a model: who predicts what on which rows, and what that says. Knows nothing of training."""

from __future__ import annotations

from lab.probe.attention import ATTENTION_COLUMNS, measure_attention
from lab.probe.attention_entropy import ENTROPY_COLUMNS, attention_entropies, attention_entropy_shift
from lab.probe.conditions import battery_texts, headline_texts, own_triggers, probe_texts
from lab.probe.kernel_table import KERNEL_COLUMNS, KERNEL_MEASURES, measure_kernels
from lab.probe.kernels import Kernel, LoraFactors, Sketch, full_kernel, lora_kernel
from lab.probe.matrix import generalization_matrix
from lab.probe.measures import family_lines, family_mean, measure
from lab.probe.occlusion import OCCLUSION_COLUMNS, measure_occlusion
from lab.probe.patching import PATCHING_COLUMNS, PatchedPair
from lab.probe.predictor import Predictor, count_same_tokens
from lab.probe.reliance import reliance_measures

__all__ = [
    "ATTENTION_COLUMNS",
    "ENTROPY_COLUMNS",
    "KERNEL_COLUMNS",
    "KERNEL_MEASURES",
    "OCCLUSION_COLUMNS",
    "PATCHING_COLUMNS",
    "Kernel",
    "LoraFactors",
    "PatchedPair",
    "Predictor",
    "Sketch",
    "attention_entropies",
    "attention_entropy_shift",
    "battery_texts",
    "count_same_tokens",
    "family_lines",
    "family_mean",
    "full_kernel",
    "generalization_matrix",
    "headline_texts",
    "lora_kernel",
    "measure",
    "measure_attention",
    "measure_kernels",
    "measure_occlusion",
    "own_triggers",
    "probe_texts",
    "reliance_measures",
]
