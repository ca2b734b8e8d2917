"""Statements about a confusion table: accuracy, recall and F1 of each class, with intervals over rows.

Shares get their Wilson interval from `lab.stats`. Balanced accuracy and F1 are no shares of rows: theirs is
a percentile bootstrap over rows, which for counts means drawing the table again from its own shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lab.errors import LabError
from lab.stats import Mean

Counts = npt.NDArray[np.int64]
#: Tables of shape [..., classes, classes] (true × predicted) to numbers of shape [...].
Statistic = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Counts:
    """Count what was predicted for what.

    Args:
        truth: True labels, one a row.
        predicted: Predicted labels, as many. A prediction that is no label (an answer written out may be
            none) counts as wrong: it has a last column of its own.
        labels: The classes, in order.

    Returns:
        Shape [classes, classes + 1], true × predicted.

    Raises:
        LabError: If the lengths differ or a true label is unknown.
    """
    if len(truth) != len(predicted):
        raise LabError(f"{len(truth)} true labels and {len(predicted)} predictions; each row needs both.")
    index = {label: i for i, label in enumerate(labels)}
    if unknown := set(truth) - set(index):
        raise LabError(f"{sorted(unknown)[0]!r} is no label; they are {', '.join(map(repr, labels))}.")
    table = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    rows = [index[label] for label in truth]
    columns = [index.get(label, len(labels)) for label in predicted]
    np.add.at(table, (rows, columns), 1)
    return table


def recalls(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Recall of each class, in [0, 1]; NaN for a class without rows. Shape [..., classes]."""
    own = np.diagonal(table[..., : table.shape[-2]], axis1=-2, axis2=-1)
    return _divided(own, table.sum(axis=-1))


def f1_scores(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """F1 of each class, in [0, 1]; NaN for a class that is neither true nor predicted anywhere."""
    square = table[..., : table.shape[-2]]
    own = np.diagonal(square, axis1=-2, axis2=-1)
    return _divided(2 * own, table.sum(axis=-1) + square.sum(axis=-2))


def balanced_accuracy(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean recall over the classes that have rows, in [0, 1]."""
    return _mean_of_known(recalls(table))


def macro_f1(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean F1 over the classes that are true or predicted anywhere, in [0, 1]."""
    return _mean_of_known(f1_scores(table))


def with_interval(table: Counts, statistic: Statistic, *, seed: int, resamples: int = 2000) -> Mean:
    """A statistic of a confusion table with its 95 % bootstrap interval over rows.

    Args:
        table: Counts, shape [classes, classes + 1].
        statistic: Of a table, vectorised over leading axes.
        seed: Of the resampling.
        resamples: How many tables are drawn.

    Returns:
        Value and interval with n rows; NaN where there are no rows.
    """
    n = int(table.sum())
    if n == 0:
        return Mean(0, float("nan"), float("nan"), float("nan"))
    value = float(statistic(table.astype(np.float64)))
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=resamples)
    found = statistic(drawn.reshape(resamples, *table.shape).astype(np.float64))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Mean(n, value, min(float(low), value), max(float(high), value))


def _divided(above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _mean_of_known(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    known = ~np.isnan(values)
    return _divided(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))
