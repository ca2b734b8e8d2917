"""From a long table to what a figure draws: the right rows, one line per thing shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from lab import stats
from lab.errors import LabError

#: What `summarise` reads of a measures table, beside its keys.
MEASURED = ("run", "model", "kind", "condition", "n", "k", "value", "low", "high")
_NUMBERS = ("value", "low", "high", "n", "k")
_N = _NUMBERS.index("n")


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
    # once for all lines: a look at a part of a table takes longer than all that is done with it here
    numbers = np.array([pd.to_numeric(rows[column], errors="coerce") for column in _NUMBERS], dtype=float)
    numbers[_N] = np.where(numbers[_N] < 0, np.nan, numbers[_N])
    told, ids = [rows[key].tolist() for key in keys], rows["run"].map(str).tolist()
    lines = []
    for by_run in _places(rows, keys):
        per_run = [_pooled(numbers[:, places]) for places in by_run]
        per_run = [one for one in per_run if np.isfinite(one[0])]
        if not per_run:
            continue
        value, low, high, _ = per_run[0]
        if len(per_run) > 1:
            mean = stats.bootstrap_mean([one[0] for one in per_run], seed=0, resamples=4000)
            value, low, high = mean.value, mean.low, mean.high
        n = float(sum(one[3] for one in per_run))
        firsts = [places[0] for places in by_run]
        runs = ",".join(dict.fromkeys(ids[i] for i in firsts))
        lines.append((*(column[firsts[0]] for column in told), value, low, high, n, len(per_run), runs))
    return pd.DataFrame(lines, columns=[*keys, "value", "low", "high", "n", "runs", "run"])


def _places(rows: pd.DataFrame, keys: Sequence[str]) -> list[list[list[int]]]:
    """For each key, for each of its runs, the places of the lines; all in order of appearance."""
    codes = [pd.factorize(rows[column], use_na_sentinel=False)[0].tolist() for column in (*keys, "run")]
    found: dict[tuple[int, ...], dict[int, list[int]]] = {}
    for place, (*key, run) in enumerate(zip(*codes, strict=True)):
        found.setdefault(tuple(key), {}).setdefault(run, []).append(place)
    return [list(by_run.values()) for by_run in found.values()]


def _pooled(lines: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Value, low, high and n of one run's lines for one key; n is NaN where it is unknown.

    Args:
        lines: Shape [5, lines], in the order of `_NUMBERS`.
    """
    value, low, high, n, k = lines
    if lines.shape[1] == 1:
        return float(value[0]), float(low[0]), float(high[0]), float(n[0])
    if np.isfinite(k).all() and np.isfinite(n).all() and (k >= 0).all():
        pooled = stats.rate(int(k.sum()), int(n.sum()))
        return pooled.value, pooled.low, pooled.high, float(pooled.n)
    # A difference has no counts to add up: the mean stands, and says that it has no interval.
    known = np.isfinite(value)
    return (float(value[known].mean()) if known.any() else np.nan), np.nan, np.nan, float(n.sum())
