"""The alignment map: where in the model ΔW lies along the strong directions of the weights it sits on."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.errors import LabError
from lab.figures import style
from lab.figures._alignments import alignment_rows
from lab.figures._cells import colour_bar
from lab.figures._layer_map import layer_map
from lab.figures.text import safe_text, share


def alignment_map(alignment: pd.DataFrame, side: str = "left", k: int = 8) -> go.Figure:
    """How many times more of ΔW lies in W's top k directions than of a random update, per matrix.

    Near 1 everywhere: training wrote beside what the base knows. Far above 1: it strengthened directions
    the base already uses.

    Args:
        alignment: One line per matrix, side and k: module, layer (-1 for none), side ("left": output side,
            "right": input side), k (how many of W's singular vectors, from 1), share (of ΔW's squared
            Frobenius norm that lies in their span, in [0, 1]), uniform (the same share of a random update:
            k over the matrix' width on that side, in (0, 1]). Lines without a share are left out.
        side: Which singular vectors of W.
        k: How many of them; one of those in the table.

    Returns:
        A heat map of share / uniform, from 0 up, pale at 1, blue below and orange above, on a logarithmic
        colour scale. Over each cell lies a selectable marker with customdata [module, layer, ratio].

    Raises:
        LabError: If the table lacks a column, or side or k was not measured; the message lists what was.
    """
    rows = alignment_rows(alignment, "The alignment map")
    if rows.empty:
        return style.empty_figure("No alignment of ΔW with W was measured.")
    sides = sorted(map(str, rows["side"].unique()))
    if side not in sides:
        raise LabError(f"side is {side!r}; measured: {', '.join(sides)}.")
    rows = rows[rows["side"] == side]
    counts = sorted(rows["k"].unique())
    if k not in counts:
        raise LabError(f"k is {k}; measured on the {side} side: {', '.join(f'{one:g}' for one in counts)}.")
    cells = rows[rows["k"] == k]
    cells = cells.assign(value=cells["share"] / cells["uniform"])
    cells = cells.assign(
        hover=[
            f"{_number(value)} times a random update's share<br>"
            f"share {share(part)} · random {share(uniform)} · {safe_text(side)} side, k = {k}"
            for value, part, uniform in cells[["value", "share", "uniform"]].itertuples(index=False)
        ]
    )
    ends = _ends(cells["value"])
    reach = math.floor(ends)
    ticks = [tick for tick in range(-reach, reach + 1) if tick % math.ceil(reach / 4) == 0]
    return layer_map(
        cells,
        number=_number,
        shade=lambda values: _shade(values, ends),
        zmin=-ends,
        zmax=ends,
        colorscale=[list(stop) for stop in style.LESS_MORE],
        colorbar=colour_bar(
            f"times random<br>({safe_text(side)} side, k = {k})",
            tickvals=ticks,
            ticktext=[_power(tick) for tick in ticks],
        ),
        name="alignment",
    )


def _ends(ratios: pd.Series) -> float:
    """Powers of two that the colour scale reaches either way, at least 1: noise around 1 stays pale."""
    logs = np.log2(ratios[ratios > 0].to_numpy(dtype=float))
    return max(1.0, float(np.abs(logs).max())) if len(logs) else 1.0


def _shade(values: np.ndarray, ends: float) -> np.ndarray:
    """Powers of two, shape as values; a share of nothing has none and takes the end of the scale."""
    with np.errstate(divide="ignore"):
        return np.clip(np.log2(values), -ends, ends)


def _power(tick: int) -> str:
    if tick == 0:
        return "<b>1</b>"
    return f"{2**tick}" if tick > 0 else f"1/{2**-tick}"


def _number(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"
