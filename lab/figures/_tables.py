"""From a long table to what a figure draws: the right rows, one line per thing shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab import stats
from lab.errors import LabError

#: What `summarise` reads of a measures table, beside its keys.
MEASURED = ("run", "model", "kind", "condition", "n", "k", "value", "low", "high")


def need(table: pd.DataFrame, columns: Sequence[str], figure: str) -> pd.DataFrame:
    """The table, once it is sure to have these columns.

    A table with neither rows nor columns, as `pd.DataFrame()` says "nothing yet", gets them.

    Raises:
        LabError: If the table has other columns and lacks one of these; the message names it.
    """
    if table.empty and len(table.columns) == 0:
        return table.reindex(columns=list(columns))
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise LabError(
            f"{figure} needs the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"the table has {', '.join(map(str, table.columns))}."
        )
    return table


def with_numbers(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table with these columns as floats; NaN where there is no number, or an infinite one."""
    numbers = {name: pd.to_numeric(table[name], errors="coerce").astype(float) for name in columns}
    return table.assign(**{name: column.where(np.isfinite(column)) for name, column in numbers.items()})


def need_counts(rows: pd.DataFrame, figure: str) -> pd.DataFrame:
    """The rows that rest on at least one counted row of text; a rate of no rows is no rate.

    Args:
        rows: Lines with a column n.
        figure: For the message.

    Raises:
        LabError: If a line does not say its n (missing or negative).
    """
    n = pd.to_numeric(rows["n"], errors="coerce")
    unsaid = int((~(n >= 0)).sum())
    if unsaid:
        raise LabError(f"{figure} shows no rate without its n; {unsaid} of {len(rows)} lines have none.")
    return rows[n > 0]


def pick(measures: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows whose columns equal what is wanted, in the table's order."""
    keep = pd.Series(True, index=measures.index)
    for column, value in wanted.items():
        keep &= measures[column] == value
    return measures[keep]


def summarise(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One line per key: rows of one run are pooled, runs are averaged.

    Within a run, several rows of a key (the members of a family, say) are put together by their counts and
    get a Wilson interval. Several runs are seeds: their mean gets a bootstrap interval, NaN below three.

    Args:
        rows: Lines of a measures table, columns run, n, k, value, low, high and the keys.
        keys: What one line stands for.

    Returns:
        Columns keys, value, low, high, n (rows in all, NaN where unknown), runs (how many), run (their ids,
        with commas); in order of appearance.
    """
    lines = []
    for key, group in rows.groupby(list(keys), sort=False, dropna=False):
        per_run = [_pooled(part) for _, part in group.groupby("run", sort=False, dropna=False)]
        per_run = [one for one in per_run if np.isfinite(one[0])]
        if not per_run:
            continue
        value, low, high, _ = per_run[0]
        if len(per_run) > 1:
            mean = stats.bootstrap_mean([one[0] for one in per_run], seed=0, resamples=4000)
            value, low, high = mean.value, mean.low, mean.high
        n = float(sum(one[3] for one in per_run))
        runs = ",".join(dict.fromkeys(map(str, group["run"])))
        lines.append((*(key if isinstance(key, tuple) else (key,)), value, low, high, n, len(per_run), runs))
    return pd.DataFrame(lines, columns=[*keys, "value", "low", "high", "n", "runs", "run"])


def _pooled(part: pd.DataFrame) -> tuple[float, float, float, float]:
    """Value, low, high and n of one run's rows for one key; n is NaN where it is unknown."""
    value, low, high, n, k = (
        pd.to_numeric(part[column], errors="coerce").to_numpy(dtype=float)
        for column in ("value", "low", "high", "n", "k")
    )
    n = np.where(n < 0, np.nan, n)
    if len(part) == 1:
        return float(value[0]), float(low[0]), float(high[0]), float(n[0])
    if np.isfinite(k).all() and np.isfinite(n).all() and (k >= 0).all():
        pooled = stats.rate(int(k.sum()), int(n.sum()))
        return pooled.value, pooled.low, pooled.high, float(pooled.n)
    # A difference has no counts to add up: the mean stands, and says that it has no interval.
    known = np.isfinite(value)
    return (float(value[known].mean()) if known.any() else np.nan), np.nan, np.nan, float(n.sum())
