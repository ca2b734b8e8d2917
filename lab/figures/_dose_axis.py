"""The axis of what was varied: numbers on a scale that fits them, names one beside the other."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from lab.figures.text import safe_text

_TICKS = 12  # doses: with more, a linear or logarithmic axis chooses its own numbers
_LOG_FROM = 15  # largest over smallest dose: ranks 1 to 16, counts 4 to 60


class Doses:
    """The doses of a column and where they lie.

    Numbers lie on a number axis, logarithmic where they span a factor of 15; with a dose of zero among
    those they are evenly spaced, as is everything that is no number, in order of appearance.
    """

    def __init__(self, column: pd.Series) -> None:
        """Find the scale.

        Args:
            column: The dose of each row, at least one, none missing.
        """
        self.values: list[Any] = column.unique().tolist()
        self.numbers = is_numeric_dtype(column) and not is_bool_dtype(column)
        self.scale = "even"
        if self.numbers:
            self.values = doses = sorted(self.values)
            wide = len(doses) > 2 and doses[-1] >= _LOG_FROM * max(doses[0], doses[1] / 2) > 0
            # A logarithm has no place for a dose of none, and none is the control that must be seen.
            with_none = "log" if doses[0] > 0 else "even"
            self.scale = with_none if wide and doses[0] >= 0 else "linear"

    def places(self, column: pd.Series) -> pd.Series:
        """Where each row lies along the axis, in the axis' own numbers."""
        if self.scale != "even":
            return column.astype(float)
        return column.map({dose: float(i) for i, dose in enumerate(self.values)})

    def axis(self) -> dict[str, Any]:
        """Plotly properties of the axis, without its title."""
        doses = self.values
        if self.scale == "even":
            # Of many numbers some may go unnamed, as on any axis; of names none.
            every = max(1, -(-len(doses) // _TICKS)) if self.numbers else 1
            labels = [safe_text(f"{dose:g}" if isinstance(dose, float) else dose, 24) for dose in doses]
            return {
                "tickvals": list(range(len(doses)))[::every],
                "ticktext": labels[::every],
                "range": [-0.5, len(doses) - 0.5],
            }
        axis: dict[str, Any] = {"type": self.scale}
        if len(doses) <= _TICKS:
            axis |= {"tickvals": doses, "ticktext": [f"{dose:g}" for dose in doses]}
        if len(doses) == 1:
            axis["range"] = [doses[0] - 1, doses[0] + 1]
        return axis
