"""Figures: pure functions from a table to a Plotly figure, the same ones in dashboard, notebooks and reports.

Each takes only the tables of `lab.tables` (or one made from a run's events), so each also works on a
DataFrame of your own. Importing this package costs nothing: Plotly is loaded with the first figure.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.figures.alignments import alignment_map
    from lab.figures.answers import answer_bars
    from lab.figures.attentions import attention_map
    from lab.figures.detections import detector_rates
    from lab.figures.doses import dose_response
    from lab.figures.entropies import attention_entropy_map
    from lab.figures.families import generalization_row
    from lab.figures.forests import claim_forest
    from lab.figures.frontier import defense_frontier
    from lab.figures.grids import rate_map
    from lab.figures.importances import token_importance
    from lab.figures.kernel_depths import kernel_by_layer
    from lab.figures.kernel_spectra import kernel_spectrum
    from lab.figures.learning import training_curves
    from lab.figures.losses import loss_curve
    from lab.figures.matrix import generalization_matrix
    from lab.figures.patches import patching_map
    from lab.figures.rungs import near_miss_ladder
    from lab.figures.singular_values import spectrum
    from lab.figures.strength import spectral_strength
    from lab.figures.subspaces import alignment_curve
    from lab.figures.surgery import surgery_curve
    from lab.figures.theory import theory_scatter
    from lab.figures.thresholds import threshold_curve

__all__ = [
    "alignment_curve",
    "alignment_map",
    "answer_bars",
    "attention_entropy_map",
    "attention_map",
    "claim_forest",
    "defense_frontier",
    "detector_rates",
    "dose_response",
    "generalization_matrix",
    "generalization_row",
    "kernel_by_layer",
    "kernel_spectrum",
    "loss_curve",
    "near_miss_ladder",
    "patching_map",
    "rate_map",
    "spectral_strength",
    "spectrum",
    "surgery_curve",
    "theory_scatter",
    "threshold_curve",
    "token_importance",
    "training_curves",
]

# No file has the name of its function: importing such a file would replace the function by the module.
_FILES = {
    "alignment_curve": "subspaces",
    "alignment_map": "alignments",
    "answer_bars": "answers",
    "attention_entropy_map": "entropies",
    "attention_map": "attentions",
    "claim_forest": "forests",
    "defense_frontier": "frontier",
    "detector_rates": "detections",
    "dose_response": "doses",
    "generalization_matrix": "matrix",
    "generalization_row": "families",
    "kernel_by_layer": "kernel_depths",
    "kernel_spectrum": "kernel_spectra",
    "loss_curve": "losses",
    "near_miss_ladder": "rungs",
    "patching_map": "patches",
    "rate_map": "grids",
    "spectral_strength": "strength",
    "spectrum": "singular_values",
    "surgery_curve": "surgery",
    "theory_scatter": "theory",
    "threshold_curve": "thresholds",
    "token_importance": "importances",
    "training_curves": "learning",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; figures: {', '.join(__all__)}")
    figure = getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    globals()[name] = figure
    return figure


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
