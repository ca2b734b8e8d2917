"""The generalization row: which other families of triggers open the same backdoor."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._pairs import add_poisoned, add_twin, add_values, canvas, pairs
from lab.figures._tables import MEASURED, need, pick
from lab.figures.text import safe_text


def generalization_row(measures: pd.DataFrame, trained_family: str = "") -> go.Figure:
    """Attack success per probed family, highest on top, beside the clean twin on the same rows.

    Args:
        measures: A measures table (`lab.tables.MEASURE_COLUMNS`) of one run and its twin, or of several
            seeds of one experiment, which are averaged. Used: kind "attack_success_rate" with condition
            "family". Members of a family are pooled.
        trained_family: The family the backdoor was trained with, shown as a diamond with a bold name.

    Returns:
        One named line per family: a dot with its 95 % interval for the poisoned model, a tick for the twin,
        the stretch between them. customdata of a dot: [family, run ids].

    Raises:
        LabError: If the table lacks a column.
    """
    measures = need(measures, [*MEASURED, "family"], "The generalization row")
    rows = pick(measures, kind="attack_success_rate", condition="family")
    lines = pairs(rows, "family").sort_values("value", ascending=False, kind="stable", ignore_index=True)
    if lines.empty:
        return style.empty_figure("No trigger family was probed.")
    families = lines["family"].astype(str).tolist()
    heads = [safe_text(family) for family in families]
    trained = [bool(trained_family) and family == trained_family for family in families]
    labels = [
        f"<b>{safe_text(family, 32)}</b>" if own else safe_text(family, 32)
        for family, own in zip(families, trained, strict=True)
    ]
    figure = canvas(labels, "attack success rate on rows with a trigger of this family")
    add_twin(figure, lines, range(len(lines)), heads)
    for own, name, symbol, size in (
        (False, "poisoned model", "circle", 9),
        (True, "poisoned model, family it was trained with", "diamond", 13),
    ):
        places = [i for i, is_own in enumerate(trained) if is_own == own]
        add_poisoned(
            figure,
            lines.iloc[places],
            places,
            [heads[i] for i in places],
            [families[i] for i in places],
            name=name,
            symbol=symbol,
            size=size,
        )
    add_values(figure, lines, range(len(lines)))
    return figure
