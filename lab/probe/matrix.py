"""The train-family × probe-family matrix over many runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run


def generalization_matrix(runs: Iterable[Run]) -> pd.DataFrame:
    """The family measures of many runs in one table, each line with the family its run was trained on.

    Args:
        runs: Finished runs with a poison that has a trigger family.

    Returns:
        Measures (`lab.tables.MEASURE_COLUMNS`) with the columns `trained_family` and `seed` in front;
        `lab.figures.generalization_matrix` draws it.
    """
    import pandas as pd

    parts = []
    for run in runs:
        measures = run.measures
        part = measures[(measures["condition"] == "family") & (measures["model"] == "poisoned")].copy()
        part.insert(0, "seed", run.experiment.seed)
        part.insert(0, "trained_family", getattr(run.measured_poison, "family", ""))
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
