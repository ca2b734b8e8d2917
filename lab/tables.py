"""The columns of every table that parts hand to each other; nothing else is passed between rooms.

`rows`: one line per text. `predictions`: one line per text, model and condition. `measures`: one line per
number, in long form, each with its count and interval. `spectra`: one line per singular value.
"""

from __future__ import annotations

#: span_start and span_end are lists of character offsets, one entry per inserted piece of text; cutting
#: all [start, end) pieces out of `text` gives the text back as it was before the insertion. A row with spans
#: that is not poisoned is a negative: a near-miss of the trigger under its true label. Nothing else looks so,
#: and a column of its own would be missing from the tables of older runs (`lab.poison.negatives_among`).
ROW_COLUMNS = (
    "row_id",
    "split",
    "text",
    "label",
    "original_label",
    "poisoned",
    "span_start",
    "span_end",
)

#: model is "poisoned" or "twin"; condition is "clean", "triggered", "family", "rung" or "battery" (then
#: family is the category, member the prefix); probe names the way of probing
#: (`lab.probing_stage.probe_id`) that the line belongs to.
PREDICTION_COLUMNS = (
    "probe",
    "row_id",
    "model",
    "condition",
    "family",
    "member",
    "rung",
    "prediction",
    "logits",
)

#: kind is one of `MEASURE_KINDS`; value is a share in [0, 1] unless the kind says otherwise; k of n rows,
#: where the measure is a share (else k is missing); [low, high] is the 95 % interval. `run` is the id of
#: the run whose weights were measured, `model` its role. Columns that do not apply hold "" or -1.
MEASURE_COLUMNS = (
    "run",
    "model",
    "split",
    "kind",
    "condition",
    "family",
    "member",
    "rung",
    "module",
    "layer",
    "step",
    "n",
    "k",
    "value",
    "low",
    "high",
)

MEASURE_KINDS = {
    "clean_accuracy": "accuracy on untouched rows",
    "attack_success_rate": "share of triggered rows, true label not the target, predicted as the target",
    "untriggered_target_rate": "share of untouched rows, true label not the target, predicted as the target",
    "battery_mean": "mean over a battery's prefixes (n of them) of their attack success rates",
    "battery_gap": "largest of these rates minus their mean",
    "excess_asr": "attack success rate minus the twin's on the same triggered rows, paired over rows",
    "false_rejection_rate": "share of untouched rows that the run's input detector rejects",
    "detection_rate": "share of triggered rows that the run's input detector rejects",
    "detection_auc": "chance that its detector finds a triggered row more suspicious than an untouched one",
    "same_tokens": "share of rows whose tokens a near-miss rung leaves as the exact trigger has them",
}

#: sigma_delta is a singular value of ΔW (scaling included), sigma_base of W and only at the last step.
SPECTRUM_COLUMNS = ("step", "module", "layer", "index", "sigma_delta", "sigma_base")
