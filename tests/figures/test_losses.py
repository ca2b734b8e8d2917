import math

import pandas as pd

from lab.figures import loss_curve


def test_a_short_curve_is_the_logged_loss():
    figure = loss_curve(pd.DataFrame({"step": [20, 10], "loss": [0.4, 0.7]}))
    assert len(figure.data) == 1
    assert list(figure.data[0].x) == [10, 20]
    assert list(figure.data[0].y) == [0.7, 0.4]


def test_one_loss_is_a_dot():
    assert loss_curve(pd.DataFrame({"step": [1], "loss": [0.7]})).data[0].mode == "markers"


def test_a_long_curve_is_smoothed_too():
    figure = loss_curve(pd.DataFrame({"step": range(100), "loss": [1.0] * 100}))
    assert [len(trace.y) for trace in figure.data] == [100, 100]
    assert figure.data[1].name == "loss, smoothed"


def test_lines_without_a_loss_and_infinite_ones_are_left_out():
    figure = loss_curve(pd.DataFrame({"step": [1, 2, 3], "loss": [0.7, math.nan, math.inf]}))
    assert list(figure.data[0].y) == [0.7]


def test_an_empty_model_column_is_one_curve():
    figure = loss_curve(pd.DataFrame({"step": [1, 2], "loss": [0.7, 0.6], "model": [math.nan, math.nan]}))
    assert list(figure.data[0].y) == [0.7, 0.6]


def test_a_twin_has_its_own_line():
    figure = loss_curve(
        pd.DataFrame({"step": [1, 2, 1, 2], "loss": [1, 2, 3, 4], "model": ["poisoned"] * 2 + ["twin"] * 2})
    )
    assert [trace.name for trace in figure.data] == ["loss", "clean twin's loss"]
