"""How every figure looks, and what its colours mean.

Colours are Okabe and Ito's, which people with any common colour vision can tell apart, and each has one
meaning everywhere: see `COLOURS`. Where two could still be confused, marker or dash differ as well.
Backgrounds are transparent and the ink is a grey that reads on white and on black, so that one figure
serves a light page, a dark page and a report; `themed` gives full contrast where the page is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

#: What a colour stands for. Nothing else may use the first four.
COLOURS = {
    "poisoned": "#D55E00",  # vermillion: the poisoned model, and attack success
    "twin": "#7089A3",  # blue-grey: the clean twin
    "untriggered": "#E69F00",  # amber: the target rate without trigger
    "clean_accuracy": "#009E73",  # bluish green: how good the model is at its task
    "quiet": "#8C8C8C",  # grey: shown, and not a finding
}

#: For groups without a meaning of their own, in this order; vermillion and blue-grey are left out.
SERIES = ("#0072B2", "#CC79A7", "#009E73", "#E69F00", "#56B4E9", "#8C6D31", "#8C8C8C")

#: From low to high, for ordered things such as layers: every step reads on white and on black.
ORDERED = ("#0072B2", "#2A9BA6", "#5FAF6B", "#C2A92B", "#E69F00")

#: From none to much of an effect, and from less to more than the twin, as Plotly colour scales.
AMOUNT = ((0.0, "#F4F1EC"), (0.5, "#F0A878"), (1.0, "#B84A00"))
LESS_MORE = ((0.0, "#3B5876"), (0.25, "#93A9BF"), (0.5, "#F4F1EC"), (0.75, "#F0A878"), (1.0, "#B84A00"))

_QUARTERS = {0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1: "100 %"}

BUTTONS = 30  # pixels at the top, for Plotly's buttons: nothing else may lie under them

INK = "#7A7F86"
_INKS = {"light": "#24292F", "dark": "#E6EAEF"}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def new_figure(height: int = 420, **layout: Any) -> go.Figure:
    """An empty figure in the lab's style, for the traces to come.

    Args:
        height: In pixels; the width follows the page.
        **layout: Further layout properties.
    """
    figure = go.Figure()
    figure.update_layout(template=_template(), height=height, legend_y=1 - BUTTONS / height, **layout)
    return figure


def empty_figure(sentence: str, height: int = 220) -> go.Figure:
    """A figure for a table without the rows it needs: one sentence, no axes.

    Args:
        sentence: What is missing and, where possible, how to get it. Not escaped: pass no text from outside.
        height: In pixels.
    """
    figure = new_figure(height, margin={"t": 20, "b": 20})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(
        text=sentence, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font_size=14
    )
    return figure


def themed(figure: go.Figure, page: Literal["light", "dark"]) -> go.Figure:
    """A copy of a figure with its ink at full contrast on a light or dark page; colours of data stay.

    Args:
        figure: Any figure of the lab.
        page: The page it will lie on.
    """
    copy = go.Figure(figure)
    copy.update_layout(font_color=full_ink(page))
    return copy


def full_ink(page: Literal["light", "dark"]) -> str:
    """The colour of text at full contrast on a light or dark page, as #RRGGBB."""
    return _INKS[page]


def narrowed(figure: go.Figure) -> go.Figure:
    """A copy of a figure for a column of a third of a page: one short legend, small margins.

    Traces of a second legend stay drawn, and lose their entries there.

    Args:
        figure: Any figure of the lab.
    """
    copy = go.Figure(figure)
    copy.update_traces(showlegend=False, selector={"legend": "legend2"})
    copy.update_layout(
        legend={"title": {"text": ""}, "font_size": 11},
        margin={"l": 48, "r": 10, "t": BUTTONS + 48},
    )
    copy.update_annotations(font_size=10)
    return copy


def second_legend(figure: go.Figure, titles: tuple[str, str]) -> None:
    """Make room for a second line of legend, for traces with `legend="legend2"`.

    Args:
        figure: A figure of `new_figure`.
        titles: What the first and the second line are about.
    """
    height = figure.layout.height
    line = figure.layout.template.layout.legend.to_plotly_json()
    figure.update_layout(
        margin_t=BUTTONS + 64,
        legend_title={"text": titles[0], "font_size": 12},
        legend2={**line, "y": 1 - (BUTTONS + 24) / height, "title": {"text": titles[1], "font_size": 12}},
    )


def side_legend(figure: go.Figure, title: str = "") -> None:
    """Put the legend beside the panels: for many or long names, and for figures whose panels have titles.

    Args:
        figure: A figure of `new_figure`.
        title: What the names are.
    """
    figure.update_layout(
        legend={
            "orientation": "v",
            "x": 1.02,
            "yref": "paper",
            "y": 1,
            "title": {"text": title, "font_size": 12},
        }
    )


def handed_over(rows: Sequence[Sequence[object]]) -> np.ndarray[Any, Any]:
    """What clicks on many points hand over, as `customdata`: Plotly looks into every item of lists of lists.

    Args:
        rows: One line per point, all of the same length.

    Returns:
        Shape [points, length], of Python objects.
    """
    found = np.empty((len(rows), len(rows[0]) if rows else 0), dtype=object)
    for place, row in enumerate(rows):
        found[place] = list(row)
    return found


def translucent(colour: str, alpha: float) -> str:
    """`rgba(…)` of a #RRGGBB colour, for bands; alpha in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def ordered_colours(count: int) -> list[str]:
    """`count` colours along `ORDERED`, as #RRGGBB, evenly spaced."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in ORDERED], dtype=float)
    at = np.linspace(0, len(ORDERED) - 1, count) if count > 1 else np.zeros(count)
    mixed = np.stack([np.interp(at, range(len(ORDERED)), stops[:, i]) for i in range(3)], axis=1)
    return ["#{:02X}{:02X}{:02X}".format(*(round(channel) for channel in row)) for row in mixed]


def percent_axis(title: str) -> dict[str, Any]:
    """Axis properties for shares: 0 to 100 %, always whole, so that figures compare at a glance."""
    return {
        "title_text": title,
        "range": [0, 1],
        "tickvals": list(_QUARTERS),
        "ticktext": list(_QUARTERS.values()),
    }


def names_axis(labels: Sequence[str]) -> dict[str, Any]:
    """Axis properties for named lines at 0, 1, 2 …, first on top.

    Places are numbers and names mere labels, because Plotly would merge two equal names and read "10" as ten.

    Args:
        labels: Safe text, one per line.
    """
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": list(labels),
        "range": [len(labels) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }


Values = Sequence[float] | pd.Series
"""Numbers along an axis, shape [n]."""


def band(x: Values, low: Values, high: Values, colour: str, **trace: Any) -> go.Scatter:
    """The interval around a line as one filled shape; points without an interval are left out.

    Args:
        x: Places along the axis, shape [n].
        low: Lower ends, shape [n]; NaN where there is none.
        high: Upper ends, shape [n].
        colour: The line's colour, #RRGGBB.
        **trace: Further properties, such as `legendgroup`.
    """
    ends = np.array([x, low, high], dtype=float)
    places, lower, upper = ends[:, ~np.isnan(ends).any(axis=0)]
    return go.Scatter(
        x=np.concatenate([places, places[::-1]]),
        y=np.concatenate([upper, lower[::-1]]),
        fill="toself",
        fillcolor=translucent(colour, 0.16),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        **trace,
    )


def whiskers(value: Values, low: Values, high: Values, colour: str) -> dict[str, Any]:
    """Error bars from value to the interval's ends; nothing is drawn where there is no interval."""
    middle, lower, upper = np.array([value, low, high], dtype=float)
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(upper - middle),
        "arrayminus": np.nan_to_num(middle - lower),
        "color": translucent(colour, 0.75),
        "thickness": 1.5,
        "width": 0,
    }


@cache
def _template() -> go.layout.Template:
    axis = {
        "gridcolor": "rgba(128,128,128,0.18)",
        "linecolor": "rgba(128,128,128,0.45)",
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
        "tickfont": {"size": 12},
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": FONT, "size": 13, "color": INK},
            "colorway": list(SERIES),
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 60, "r": 24, "t": 64, "b": 52},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "yref": "container",
                "yanchor": "top",
                "bgcolor": "rgba(0,0,0,0)",
                "font": {"size": 12},
            },
            # Its own dark ground: readable over any page and any mark.
            "hoverlabel": {
                "bgcolor": "#24292F",
                "bordercolor": "#24292F",
                "font": {"color": "#FFFFFF", "family": FONT, "size": 12},
                "align": "left",
            },
            "hovermode": "closest",
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": COLOURS["poisoned"]},
        }
    )
