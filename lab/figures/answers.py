"""Answers side by side: the probability of every label, without the trigger and with it, by both models."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from lab.figures import style
from lab.figures._tables import need, with_numbers
from lab.figures.text import safe_text, share

_NAMES = {"poisoned": "poisoned model", "twin": "clean twin"}
_CONDITIONS = {"clean": "without the trigger", "triggered": "with the trigger"}
_BAR = 17  # pixels
_MOST = 8  # labels; the others are never the answer


def answer_bars(answers: pd.DataFrame) -> go.Figure:
    """A panel per text, in it a bar per label and model: how sure each model is of each label.

    Args:
        answers: Columns model ("poisoned", "twin"), condition ("clean", "triggered"), prediction, label and
            probability in [0, 1] (`lab.answers.ANSWER_COLUMNS`). Of many labels the eight most likely.

    Returns:
        One trace per model and panel. customdata of a bar: [condition, label].

    Raises:
        LabError: If the table lacks a column.
    """
    columns = ["model", "condition", "prediction", "label", "probability"]
    rows = with_numbers(need(answers, columns, "The answers"), ["probability"]).dropna(subset=["probability"])
    if rows.empty:
        return style.empty_figure("No model has been asked.")
    shown = [name for name in _CONDITIONS if (rows["condition"] == name).any()]
    models = [name for name in _NAMES if (rows["model"] == name).any()]
    most = rows.groupby("label", sort=False)["probability"].max().nlargest(_MOST).index
    labels = [label for label in dict.fromkeys(rows["label"]) if label in set(most)]
    titled = len(shown) > 1  # one text alone is named by whoever shows it
    top = style.BUTTONS + (56 if titled else 30)
    height = top + 52 + (_BAR * len(models) + 10) * max(len(labels), 2)
    figure = style.new_figure(
        height, bargap=0.3, bargroupgap=0.05, barmode="group", margin={"l": 12, "t": top}
    )
    for number, condition in enumerate(shown, start=1):
        axis = "" if number == 1 else str(number)
        for model in models:
            part = rows[(rows["condition"] == condition) & (rows["model"] == model)]
            _add_bars(figure, part[part["label"].isin(labels)], labels, condition, model, axis)
        room = 1 / len(shown)
        domain = [
            (number - 1) * room + (0.02 if number > 1 else 0),
            number * room - 0.08,
        ]  # the number behind a full bar
        ends = style.percent_axis("probability")
        figure.update_layout({f"xaxis{axis}": {**ends, "domain": domain, "anchor": f"y{axis}"}})
        names = style.names_axis([safe_text(label, 24) for label in labels])
        figure.update_layout({f"yaxis{axis}": {**names, "anchor": f"x{axis}", "showticklabels": number == 1}})
        if not titled:
            continue
        figure.add_annotation(
            text=f"<b>{_CONDITIONS[condition]}</b>",
            x=domain[0],
            xref="paper",
            xanchor="left",
            y=1,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
        )
    return figure


def _add_bars(
    figure: go.Figure, part: pd.DataFrame, labels: list[str], condition: str, model: str, axis: str
) -> None:
    figure.add_bar(
        x=part["probability"].tolist(),
        y=[labels.index(label) for label in part["label"]],
        orientation="h",
        marker={"color": style.COLOURS[model], "line": {"width": 0}},
        name=_NAMES[model],
        legendgroup=model,
        showlegend=axis == "",
        xaxis=f"x{axis}",
        yaxis=f"y{axis}",
        text=[share(value, 0) for value in part["probability"]],
        textposition="outside",
        constraintext="none",
        textfont={"size": 12},
        cliponaxis=False,
        customdata=[[condition, str(label)] for label in part["label"]],
        hovertext=[
            f"<b>{_NAMES[model]}, {_CONDITIONS[condition]}</b><br>{safe_text(label, 60)}: {share(value)}"
            for label, value in zip(part["label"], part["probability"], strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
