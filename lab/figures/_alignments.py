"""What the two figures of alignment share: which table they read, and which of its lines."""

from __future__ import annotations

import pandas as pd

from lab.figures._tables import need, with_numbers

COLUMNS = ("module", "layer", "side", "k", "share", "uniform")

#: What the singular vectors of W span, in the field's word and in the reader's.
SIDES = {"left": "left (W's output side)", "right": "right (W's input side)"}


def alignment_rows(alignment: pd.DataFrame, figure: str) -> pd.DataFrame:
    """The lines of an alignment table that have a share and something to compare it with.

    Raises:
        LabError: If the table lacks a column.
    """
    rows = with_numbers(need(alignment, COLUMNS, figure), ["k", "share", "uniform"])
    return rows[rows["share"].notna() & (rows["k"] > 0) & (rows["uniform"] > 0)]
