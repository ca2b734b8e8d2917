"""Whether findings are what was planted: where they stand in poisoned rows, and in all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.lint.findings import flagged_spans, is_flagged
from lab.stats import Rate, rate

if TYPE_CHECKING:
    import pandas as pd

    from lab.lint.findings import Finding


@dataclass(frozen=True)
class PlantedShare:
    """How much of what was planted some findings point at, and how much else.

    Attributes:
        planted: Poisoned rows in which a finding overlaps what was put in, of those in which something was;
            higher is better.
        others: Rows that are not poisoned and have a finding for their own label; lower is better.
    """

    planted: Rate
    others: Rate


def planted_share(rows: pd.DataFrame, findings: Sequence[Finding]) -> PlantedShare:
    """Compare findings with what is known to have been planted; only findings for a row's own label count.

    Args:
        rows: Training rows (`lab.tables.ROW_COLUMNS`); label is what is trained on.
        findings: Of the linter that saw these rows.
    """
    by_label = {label: [f for f in findings if f.label == label] for label in set(rows["label"])}
    hits, poisoned, flagged, others = 0, 0, 0, 0
    columns = (rows[name].tolist() for name in ("text", "label", "poisoned", "span_start", "span_end"))
    for text, label, is_poisoned, starts, ends in zip(*columns, strict=True):
        if not is_poisoned:
            others += 1
            flagged += is_flagged(text, label, by_label[label])
        elif len(starts):
            poisoned += 1
            found = flagged_spans(text, by_label[label])
            hits += any(
                a < end and start < b for a, b in found for start, end in zip(starts, ends, strict=True)
            )
    return PlantedShare(rate(hits, poisoned), rate(flagged, others))
