"""The threshold s* of a run's backdoor: what `lab.probe.threshold` predicts, and what the model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

    from lab.defend import Weights
    from lab.edited_model import EditedModel
    from lab.probe.threshold import Margins


@dataclass(frozen=True)
class Threshold:
    """The threshold s* of arXiv 2601.06305, Prop. 4.2, as this lab estimates it (`lab.probe.threshold`).

    Attributes:
        s_star: The multiple of the trained scale above which half of the triggered rows that get the target
            would no longer get it, if margins were linear in the scale; inf where they never would, NaN where
            no row gets the target. A heuristic.
        rows: How many triggered rows were asked.
        off: How many of them do not get the target at the trained scale, and have no part in `s_star`.
        modules: One line per module: module, layer, backdoor_alignment (ρ_bd), effective_alignment (ρ_eff),
            s_star = (ρ_bd/ρ_eff)·σ_max(W)/σ_max(ΔW) as a multiple of the trained scale; NaN where ρ_eff ≤ 0.
        flips: One line per scale: scale, predicted (share of all triggered rows that do not get the target),
            measured, low, high, n; `lab.figures.threshold_curve` draws it.
    """

    s_star: float
    rows: int
    off: int
    modules: pd.DataFrame
    flips: pd.DataFrame


def estimate_threshold(
    patient: EditedModel,
    weights: Weights,
    token_ids: Sequence[Sequence[int]],
    target: int,
    scales: Sequence[float],
) -> Threshold:
    """Predict from the weights where a backdoor ends, and ask the model.

    Args:
        patient: The model.
        weights: ΔW and head, which stand for scale 1.
        token_ids: Triggered texts whose true label is not the target, at least one.
        target: The target label's index.
        scales: Multiples of ΔW at which the texts are asked.

    Raises:
        LabError: No scale, or ΔW is not linear in its scale (DoRA).
    """
    import pandas as pd

    from lab.probe.threshold import measure_margins
    from lab.spectra import DoraUpdate

    if not len(scales):
        raise LabError("The threshold needs at least one scale to ask the model at.")
    if any(isinstance(update, DoraUpdate) for update in weights.updates.values()):
        raise LabError("DoRA's ΔW is not linear in its scale, so the threshold s* says nothing about it.")
    predictor = patient.show(weights).predictor
    if getattr(predictor.reading, "collides", False):
        raise LabError("The threshold s* needs labels whose words begin with different tokens.")
    sigma = {name: patient.base_sigma(name) for name in weights.updates}
    margins = measure_margins(
        predictor.model,
        weights.updates,
        {name: patient.base_weight(name) for name in weights.updates},
        sigma,
        token_ids,
        target,
        int(predictor.tokenizer.pad_token_id),
        predictor.reading.label_logits,
    )
    return Threshold(
        s_star=margins.median_scale(),
        rows=len(token_ids),
        off=int((~margins.is_on()).sum()),
        modules=_by_module(margins, weights, sigma),
        flips=pd.DataFrame([_flips(patient, weights, margins, token_ids, target, scale) for scale in scales]),
    )


def _by_module(margins: Margins, weights: Weights, sigma: dict[str, float]) -> pd.DataFrame:
    import pandas as pd

    from lab.modules import layer_index

    bd, eff = margins.backdoor_alignment, margins.effective_alignment
    inverse_strength = {
        n: sigma[n] / max(float(update.singular_values()[0]), 1e-30) for n, update in weights.updates.items()
    }
    return pd.DataFrame(
        {
            "module": list(bd),
            "layer": [layer_index(name) for name in bd],
            "backdoor_alignment": list(bd.values()),
            "effective_alignment": list(eff.values()),
            "s_star": [bd[n] / eff[n] * inverse_strength[n] if eff[n] > 0 else float("nan") for n in bd],
        }
    )


def _flips(
    patient: EditedModel,
    weights: Weights,
    margins: Margins,
    token_ids: Sequence[Sequence[int]],
    target: int,
    scale: float,
) -> dict[str, float]:
    from lab.stats import rate

    scaled = {name: update.rescale(scale) for name, update in weights.updates.items()}
    predictor = patient.show(replace(weights, updates=scaled)).predictor
    answers = predictor.logits_of_tokens(token_ids).argmax(axis=1)
    measured = rate(int((answers != target).sum()), len(token_ids))
    return {
        "scale": float(scale),
        "predicted": margins.predicted_flips(scale),
        "measured": measured.value,
        "low": measured.low,
        "high": measured.high,
        "n": measured.n,
    }
