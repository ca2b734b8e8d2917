"""Which points of a sweep may be compared, and whose excess over the twin is the trigger's.

A rank, a variance or a way of training that has learned less is also harder to poison. So a difference
between two points says something of robustness only where their *clean* accuracies agree.

And a poisoned model may end up giving the target label to nearly every row, with the trigger or without. Its
excess ASR over the twin is large then, although no trigger is at work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Points within so much of the best one's clean accuracy count as matched.
WITHIN = 0.01
MATCHED, NOT_MATCHED = "matched", "not matched"
#: A poisoned model whose untriggered target rate is so much above its twin's has drifted to the target.
DRIFT = 0.25
DRIFTED = "drifted"
_TWIN = "twin.clean_accuracy"
_UNTRIGGERED = "untriggered_target_rate"


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
    return _beside_the_run(table, "matched", words)


def with_drifted(table: pd.DataFrame, *, drift: float = DRIFT) -> pd.DataFrame:
    """A sweep's table with a column `drifted` beside the run.

    Args:
        table: One line per cell, as `lab.sweep` makes them; it stays as it is without the twins' rates.
        drift: From which difference on, as a share.

    Returns:
        The same lines. `drifted` is "drifted" where the poisoned model's target rate on rows *without* the
        trigger is at least `drift` above its twin's: so much of its excess ASR is there without a trigger.
        Else, and where no such rate was measured, it is "".
    """
    if _UNTRIGGERED not in table or f"twin.{_UNTRIGGERED}" not in table or not len(table):
        return table
    gone = table[_UNTRIGGERED] - table[f"twin.{_UNTRIGGERED}"] >= drift - 1e-9
    return _beside_the_run(table, "drifted", gone.map({True: DRIFTED, False: ""}))


def _beside_the_run(table: pd.DataFrame, name: str, words: pd.Series) -> pd.DataFrame:
    """The table with another column before the settings that stand beside the run."""
    place = list(table.columns).index("alpha/r") if "alpha/r" in table else len(table.columns)
    out = table.copy()
    out.insert(place, name, words)
    return out
