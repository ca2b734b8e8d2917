"""Rows of a run beside their triggered copies: what kernels and attention entropy are measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import LabError, unknown_name
from lab.seeds import row_uniforms

if TYPE_CHECKING:
    import pandas as pd

    from lab.prepare import Prepared


def rows_with_copies(prepared: Prepared, rows: int, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clean rows of every label, and a triggered copy of each whose label is not the target.

    Rows are drawn by row id: fewer are among those of more.

    Args:
        prepared: The run's rows and trigger.
        rows: How many clean rows, at most.
        split: "validation" or "test".

    Returns:
        Both as `lab.probe.headline_texts` gives them; without a trigger there are no copies.
    """
    clean, copies = _drawn(prepared, split)
    clean = clean.head(rows)
    return clean, copies[copies["row_id"].isin(clean["row_id"])]


def triggered_pairs(prepared: Prepared, rows: int, split: str) -> tuple[list[str], list[str]]:
    """So many texts whose label is not the target, without the trigger and with it, in one order.

    Args:
        prepared: The run's rows and trigger.
        rows: How many pairs, at most.
        split: "validation" or "test".

    Returns:
        Two lists of one length, empty without a trigger.
    """
    if rows < 1:
        raise LabError(f"rows = {rows}; at least one pair of a clean and a triggered text is needed.")
    clean, copies = _drawn(prepared, split)
    copies = copies.head(rows)
    text = dict(zip(clean["row_id"], clean["text"], strict=True))
    return [text[row_id] for row_id in copies["row_id"]], list(copies["text"])


def _drawn(prepared: Prepared, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows and all copies, in the order in which they are drawn."""
    if split not in ("validation", "test"):
        raise unknown_name("split", split, ["validation", "test"])
    texts = prepared.headline_texts(prepared.evaluation_rows(split, 0))
    place = row_uniforms(prepared.experiment.seed, "paired texts", texts["row_id"]).argsort(kind="stable")
    drawn = texts.iloc[place]
    return drawn[drawn["condition"] == "clean"], drawn[drawn["condition"] == "triggered"]
