"""The near-miss ladder: how far a trigger may be bent before the backdoor no longer opens."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._pairs import add_poisoned, add_twin, add_values, canvas, pairs
from lab.figures._tables import MEASURED, need, pick, summarise
from lab.figures.text import safe_text, share


def near_miss_ladder(measures: pd.DataFrame) -> go.Figure:
    """Attack success per near-miss of the trigger, in the ladder's order, beside the clean twin.

    A rung that the tokenizer cannot tell from the exact trigger is no finding: it is drawn hollow and grey
    and called "same tokens".

    Args:
        measures: A measures table (`lab.tables.MEASURE_COLUMNS`) of one run and its twin, or of several
            seeds of one experiment, which are averaged. Used: condition "rung", kinds
            "attack_success_rate" and "same_tokens". Order of appearance is the ladder's order.

    Returns:
        One named line per rung, the first on top. customdata of a dot: [rung, run ids].

    Raises:
        LabError: If the table lacks a column.
    """
    measures = need(measures, [*MEASURED, "rung"], "The near-miss ladder")
    rows = pick(measures, condition="rung")
    lines = pairs(pick(rows, kind="attack_success_rate"), "rung")
    if lines.empty:
        return style.empty_figure("No near-miss of the trigger was probed.")
    rungs = lines["rung"].astype(str).tolist()
    # Tokens depend on the tokenizer alone, so whichever model's row carries the measure will do.
    tokens = summarise(pick(rows, kind="same_tokens"), ["rung"])
    equal = dict(zip(tokens["rung"].astype(str), tokens["value"], strict=True))
    # The exact trigger has its own tokens, and is what the others are compared with.
    hollow = [rung != "exact" and equal.get(rung, 0.0) == 1.0 for rung in rungs]
    heads, labels = [], []
    for rung, same in zip(rungs, hollow, strict=True):
        partly = rung != "exact" and 0 < equal.get(rung, 0.0) < 1
        note = f" · same tokens on {share(equal[rung], 0)} of rows" if partly else ""
        heads.append(safe_text(_said(rung)) + (" · same tokens as the exact trigger" if same else note))
        labels.append(safe_text(_said(rung), 32) + (" · <i>same tokens</i>" if same else ""))
    figure = canvas(labels, "attack success rate on rows with this near-miss")
    add_twin(figure, lines, range(len(lines)), heads)
    for same, name, colour, symbol in (
        (False, "poisoned model", style.COLOURS["poisoned"], "circle"),
        (True, "same tokens, not a finding", style.COLOURS["quiet"], "circle-open"),
    ):
        places = [i for i, is_same in enumerate(hollow) if is_same == same]
        add_poisoned(
            figure,
            lines.iloc[places],
            places,
            [heads[i] for i in places],
            [rungs[i] for i in places],
            name=name,
            colour=colour,
            symbol=symbol,
        )
    add_values(figure, lines, range(len(lines)))
    return figure


def _said(rung: str) -> str:
    """Rungs are keys, such as "number_changed"; people read words."""
    return rung.replace("_", " ")
