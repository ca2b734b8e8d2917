"""What a run and its clean twin say to the same texts, with probabilities: asked now, or as recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from lab.record import Run

#: One line per model, text and label: role of the model, name of the text, what is said, a label and its
#: probability in [0, 1]; those of one answer sum to 1.
ANSWER_COLUMNS = ("model", "condition", "prediction", "label", "probability")


def ask(models: Mapping[str, Run], texts: Mapping[str, str]) -> pd.DataFrame:
    """Put the same texts to several runs.

    Args:
        models: Run by role: "poisoned", "twin".
        texts: Text by name: "clean", "triggered".

    Returns:
        A table with `ANSWER_COLUMNS`, models and texts in the order given.

    Raises:
        LabError: A run's model cannot be loaded.
    """
    import pandas as pd

    parts = [_empty()]
    for role, run in models.items():
        told = run.predict(list(texts.values()))
        shares = told[[f"p({label})" for label in run.labels]].to_numpy()
        parts.append(_lines(role, list(texts), run.labels, shares))
    return pd.concat(parts, ignore_index=True)


def recorded(run: Run, row_id: str) -> pd.DataFrame:
    """The recorded answers to a probed row, untouched and with the run's trigger: no model is needed.

    Args:
        run: A finished run.
        row_id: The row.

    Returns:
        A table with `ANSWER_COLUMNS` for the conditions "clean" and "triggered", without lines for a row that
        was not probed.

    Raises:
        LabError: The run has no predictions.
    """
    import numpy as np
    import pandas as pd
    from scipy.special import softmax

    found = run.predictions
    found = found[(found["row_id"] == row_id) & found["condition"].isin(["clean", "triggered"])]
    found = found.drop_duplicates(["model", "condition"])
    parts = [_empty()]
    for role, lines in found.groupby("model", sort=False):
        shares = softmax(np.stack([np.asarray(row, dtype=float) for row in lines["logits"]]), axis=1)
        parts.append(_lines(str(role), list(lines["condition"]), run.labels, shares))
    return pd.concat(parts, ignore_index=True)


def _lines(role: str, conditions: Sequence[str], labels: Sequence[str], shares: np.ndarray) -> pd.DataFrame:
    """The lines of one model from its probabilities, texts × labels."""
    import pandas as pd

    return pd.DataFrame(
        [
            (role, condition, labels[int(row.argmax())], label, float(share))
            for condition, row in zip(conditions, shares, strict=True)
            for label, share in zip(labels, row, strict=True)
        ],
        columns=list(ANSWER_COLUMNS),
    )


def _empty() -> pd.DataFrame:
    import pandas as pd

    kinds = dict.fromkeys(ANSWER_COLUMNS, "object") | {"probability": "float64"}
    return pd.DataFrame(columns=list(ANSWER_COLUMNS)).astype(kinds)
