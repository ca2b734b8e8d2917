"""Which points of a sweep may be compared: those whose clean twins have learned as much.

A rank, a variance or a way of training that has learned less is also harder to poison. So a difference
between two points says something of robustness only where their *clean* accuracies agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Points within so much of the best one's clean accuracy count as matched.
WITHIN = 0.01
MATCHED, NOT_MATCHED = "matched", "not matched"
_TWIN = "twin.clean_accuracy"


def with_matched(table: pd.DataFrame, points: Sequence[str], *, within: float = WITHIN) -> pd.DataFrame:
    """A sweep's table with a column `matched` beside the run.

    Args:
        table: One line per cell, as `lab.sweep` makes them; without the twins' accuracy it stays as it is.
        points: The columns that tell points apart, seeds aside.
        within: The largest difference to the best point, as a share.

    Returns:
        The same lines. `matched` is "matched" where the mean of the twins' accuracy over seeds is at most
        `within` below that of the best point, else "not matched"; "" where a point has no twin.
    """
    if _TWIN not in table or not len(table):
        return table
    groups = [column for column in points if column in table]
    keys = table[groups].astype(str).agg("|".join, axis=1) if groups else table["seed"].map(lambda _: "")
    means = table.groupby(keys)[_TWIN].transform("mean")
    # a mean of shares may miss the border by a unit in the last place
    words = (means >= means.max() - within - 1e-9).map({True: MATCHED, False: NOT_MATCHED})
    words[means.isna()] = ""
    place = list(table.columns).index("alpha/r") if "alpha/r" in table else len(table.columns)
    out = table.copy()
    out.insert(place, "matched", words)
    return out
