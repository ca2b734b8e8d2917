import numpy as np
import pandas as pd
import pytest

from lab.figures import theory_scatter
from lab.theory_check import PAIR_COLUMNS


def pairs(measured=(0.1, 0.2, 0.4, 0.6, 0.8, 0.9), measure="trace_ratio", outcome="attack_success_rate"):
    return pd.DataFrame(
        [
            (measure, outcome, 2**i, 1 / 3, 0.01 * 2**i, 3, rate, rate - 0.05, rate + 0.05, 3, 900.0)
            for i, rate in enumerate(measured)
        ],
        columns=list(PAIR_COLUMNS),
    )


def test_a_point_per_cell_with_its_interval_and_the_correlation_on_top():
    figure = theory_scatter(pairs())
    assert [trace.name for trace in figure.data] == [f"rank {2**i}" for i in range(6)]
    assert list(figure.data[2].customdata[0]) == [4, 1 / 3, 0.04, 0.4]
    np.testing.assert_allclose(figure.data[2].error_y.array, 0.05)
    title = figure.layout.title.text
    assert title.startswith("rho +1.00 [+.62")
    assert title.endswith("n=6 cells; theory: above 0 – as theory says")
    assert figure.layout.xaxis.type == "log", "from .01 to .32"
    assert "rank 4, variance 0.333/n_in" in figure.data[2].hovertext[0]
    assert "mean of 3 runs" in figure.data[2].hovertext[0]


@pytest.mark.parametrize(
    ("measured", "measure", "said"),
    [
        ((0.9, 0.8, 0.6, 0.4, 0.2, 0.1), "trace_ratio", "theory: above 0 – against theory"),
        ((0.9, 0.8, 0.6, 0.4, 0.2, 0.1), "shift_share_negative", "theory: below 0 – as theory says"),
        ((0.5, 0.1, 0.7, 0.2, 0.9, 0.3), "trace_ratio", "cannot say"),
        ((0.5, 0.1, 0.7), "trace_ratio", "n too small"),
    ],
)
def test_the_title_says_where_theory_and_measurement_part(measured, measure, said):
    assert said in theory_scatter(pairs(measured, measure)).layout.title.text


def test_a_cell_without_interval_has_no_bar_and_one_without_measurement_no_point():
    table = pairs()
    table.loc[0, ["low", "high"]] = np.nan
    table.loc[1, "measured"] = np.nan
    figure = theory_scatter(table)
    assert len(figure.data) == 5
    assert list(figure.data[0].error_y.array) == [0]


def test_a_marker_per_variance_and_a_signed_axis():
    table = pd.concat([pairs(outcome="excess_asr"), pairs(outcome="excess_asr").assign(init_variance=2.0)])
    figure = theory_scatter(table)
    assert list(figure.data[0].marker.symbol) == ["circle", "square"]
    assert figure.layout.yaxis.tickformat == "+.0%"
    assert "points" in figure.data[0].hovertext[0]


def test_it_can_be_stored(survives_json):
    survives_json(theory_scatter(pairs()))
