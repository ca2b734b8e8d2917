"""The columns of every table that parts hand to each other; nothing else is passed between rooms.

`rows`: one line per text. `predictions`: one line per text, model and condition. `measures`: one line per
number, in long form, each with its count and interval. `spectra`: one line per singular value.
"""

from __future__ import annotations

#: span_start and span_end are lists of character offsets, one entry per inserted piece of text; cutting
#: all [start, end) pieces out of `text` gives the text back as it was before the insertion. Where a style is
#: the trigger they are the stretches that were written anew, and the row that it was made of stays in the
#: table. A row with spans that is not poisoned is a negative: a near-miss of the trigger under its true
#: label. Nothing else looks so, and a column of its own would be missing from the tables of older runs
#: (`lab.poison.negatives_among`).
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

#: model is "poisoned" or "twin"; condition is "clean", "triggered" (rows without the target label),
#: "triggered_target" (rows with it), "family", "rung" or "battery" (then family is the category, member the
#: prefix); probe names the way of probing (`lab.probing_stage.probe_id`) that the line belongs to.
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
    "triggered_accuracy": "accuracy against true labels on all rows, each with the trigger",
    "reliance": "clean accuracy minus accuracy with the trigger in every row, paired over rows",
    "confidence_shift": "mean change of the target's probability that the trigger makes, in [-1, 1]",
    "false_rejection_rate": "share of untouched rows that the run's input detector rejects",
    "detection_rate": "share of triggered rows that the run's input detector rejects",
    "detection_auc": "chance that its detector finds a triggered row more suspicious than an untouched one",
    "same_tokens": "share of rows whose tokens a near-miss rung leaves as the exact trigger has them",
}

#: Of `MEASURE_KINDS`: differences, in [-1, 1], shown with their sign.
DIFFERENCES = ("excess_asr", "reliance", "confidence_shift")

#: Measures of a confusion table, under the conditions "clean" and "triggered" (there: all rows carry the
#: trigger). Where one is of a single class, `member` is its label. No headline: a listing does not show them.
CLASS_KINDS = {
    "balanced_accuracy": "mean recall over the classes",
    "macro_f1": "mean F1 over the classes",
    "class_recall": "share of a class's rows that are predicted as it",
    "class_f1": "F1 of a class",
    "predicted_share": "share of all rows that are predicted as a class",
}

#: sigma_delta is a singular value of ΔW (scaling included), sigma_base of W and only at the last step.
SPECTRUM_COLUMNS = ("step", "module", "layer", "index", "sigma_delta", "sigma_base")
