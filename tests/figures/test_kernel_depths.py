import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import kernel_by_layer, style


def line(kernel, at, layer, value, measure="effective_rank", *, rank=np.nan, low=np.nan, high=np.nan):
    return {"kernel": kernel, "at": at, "layer": layer, "value": value, "measure": measure, "rank": rank,
            "index": -1, "n": 9, "low": low, "high": high}  # fmt: skip


@pytest.fixture
def table():
    lines = [
        line(kernel, at, layer, 1 + layer + (kernel == "full"), rank=4 if kernel == "lora" else np.nan)
        for kernel in ("full", "lora") for at in ("start", "trained") for layer in (-1, 1, 0)
    ]  # fmt: skip
    only = [line("lora", "trained", layer, 0.9, "full_cka", rank=4) for layer in (0, 1)]
    cosine = [line("full", "trained", 0, 0.5, "poison_cosine", low=0.4, high=0.7)]
    return pd.DataFrame([*lines, *only, *cosine, {**line("full", "start", 0, 7.0, "eigenvalue"), "index": 0}])


def test_a_line_for_each_kernel_and_place(table):
    figure = kernel_by_layer(table, "effective_rank")
    assert [trace.name for trace in figure.data] == [
        "LoRA, rank 4, start", "LoRA, rank 4, as trained", "full fine-tuning, start",
        "full fine-tuning, as trained",
    ]  # fmt: skip
    assert list(figure.data[0].x) == [0, 1], "all layers together are no layer"
    assert list(figure.data[0].y) == [1, 2]
    assert list(figure.data[2].y) == [2, 3]
    assert [trace.line.dash for trace in figure.data] == ["dot", "solid"] * 2
    assert figure.data[3].line.color == style.COLOURS["quiet"]
    assert list(figure.data[3].customdata[1]) == ["full", "trained", 1, 3.0]
    assert "n = 9" in figure.layout.xaxis.title.text


def test_a_comparison_with_full_fine_tuning_has_no_line_of_its_own(table):
    assert [trace.name for trace in kernel_by_layer(table).data] == ["LoRA, rank 4, as trained"]


def test_an_interval_is_drawn_where_there_is_one_and_a_mean_has_none(table):
    figure = kernel_by_layer(table, "poison_cosine")
    np.testing.assert_allclose(
        [figure.data[0].error_y.array[0], figure.data[0].error_y.arrayminus[0]], [0.2, 0.1]
    )
    twice = pd.concat([table, table.assign(value=table["value"] + 0.2)])
    figure = kernel_by_layer(twice, "poison_cosine")
    np.testing.assert_allclose(figure.data[0].y, [0.6])
    assert figure.data[0].error_y.array[0] == 0


def test_values_far_apart_lie_on_a_logarithmic_axis(table):
    assert kernel_by_layer(table, "effective_rank").layout.yaxis.type is None
    far = table.assign(value=np.where(table["kernel"] == "lora", table["value"] / 1000, table["value"]))
    assert kernel_by_layer(far, "effective_rank").layout.yaxis.type == "log"


@pytest.mark.parametrize("measure", ["eigenvalue", "nonsense"])
def test_what_layers_do_not_have_is_said(table, measure):
    with pytest.raises(LabError, match=f"measure is '{measure}'; layers have effective_rank"):
        kernel_by_layer(table, measure)


def test_it_can_be_stored(table, survives_json):
    survives_json(kernel_by_layer(table, "effective_rank"))
