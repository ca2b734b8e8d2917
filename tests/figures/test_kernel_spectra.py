import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import kernel_spectrum, style


def line(kernel, index, value, *, rank=np.nan, variance=np.nan, layer=-1, at="start", draw=0):
    return {
        "at": at, "kernel": kernel, "measure": "eigenvalue", "layer": layer, "index": index, "rank": rank,
        "init_variance": variance, "draw": draw, "n": 3, "value": value,
    }  # fmt: skip


@pytest.fixture
def table():
    full = [line("full", i, v) for i, v in enumerate([8.0, 4.0, 1e-15])]
    lora = [
        line("lora", i, v * rank, rank=rank, variance=1 / 3, draw=draw)
        for rank in (1, 4) for i, v in enumerate([0.2, 0.1, 0.0]) for draw in (0, 1)
    ]  # fmt: skip
    other = [line("full", 0, 99.0, layer=0), line("full", 0, 77.0, at="trained"),
             {**line("full", -1, 5.0), "measure": "effective_rank"}]  # fmt: skip
    return pd.DataFrame([*full, *lora, *other])


def test_a_line_per_rank_and_one_for_full_fine_tuning(table):
    figure = kernel_spectrum(table)
    assert [trace.name for trace in figure.data] == ["LoRA, rank 1", "LoRA, rank 4", "full fine-tuning"]
    assert list(figure.data[1].x) == [1, 2]
    np.testing.assert_allclose(figure.data[1].y, [0.8, 0.4])
    assert list(figure.data[2].y) == [8.0, 4.0], "what rounding leaves of zero is no eigenvalue"
    assert figure.data[2].line.color == style.COLOURS["quiet"]
    assert list(figure.data[1].customdata[1]) == ["lora", 4.0, 1 / 3, 1]
    assert list(figure.data[2].customdata[0]) == ["full", None, None, 0]
    assert "all adapted layers, start, n = 3 texts" in figure.layout.xaxis.title.text
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"


def test_shapes_alone_can_be_compared(table):
    figure = kernel_spectrum(table, normalised=True)
    np.testing.assert_allclose(figure.data[0].y, figure.data[1].y)
    assert figure.layout.yaxis.title.text == "share of their sum"


def test_another_layer_or_place(table):
    assert list(kernel_spectrum(table, layer=0).data[0].y) == [99.0]
    assert list(kernel_spectrum(table, "trained").data[0].y) == [77.0]
    with pytest.raises(LabError, match="layer is 7; measured: -1, 0"):
        kernel_spectrum(table, layer=7)


def test_variances_are_named_where_they_differ(table):
    more = pd.DataFrame([line("lora", 0, 1.0, rank=4, variance=2.0)])
    names = [trace.name for trace in kernel_spectrum(pd.concat([table, more])).data]
    assert names[:3] == ["LoRA, rank 1, variance 0.333/n_in", "LoRA, rank 4, variance 0.333/n_in",
                         "LoRA, rank 4, variance 2/n_in"]  # fmt: skip


def test_it_can_be_stored(table, survives_json):
    survives_json(kernel_spectrum(table))
