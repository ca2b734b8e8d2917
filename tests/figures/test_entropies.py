import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import attention_entropy_map
from lab.probe import ENTROPY_COLUMNS


@pytest.fixture
def table():
    lines = [
        (layer, head, entropy, unit, 12, 0.8, 0.8 + value, value, value - 0.1, value + 0.1)
        for layer in range(2) for head, value in enumerate((-0.3, 0.05, 0.2))
        for entropy in ("column_mean", "per_query") for unit in ("nats", "share")
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=list(ENTROPY_COLUMNS))


def test_a_cell_per_head_with_a_number_where_the_interval_leaves_zero_out(table):
    figure = attention_entropy_map(table.sample(frac=1, random_state=0))
    heat, cells = figure.data
    np.testing.assert_allclose(np.array(heat.z, dtype=float), [[-0.3, 0.05, 0.2]] * 2)
    assert [list(line) for line in heat.text] == [["-0.30", "", "+0.20"]] * 2
    assert (heat.zmin, heat.zmax) == (-0.3, 0.3)
    assert [0, 0, -0.3] in [list(one) for one in cells.customdata]
    assert "n = 12 texts" in figure.layout.xaxis.title.text
    assert "clean 0.800, injected 0.500" in "".join(cells.hovertext)
    assert figure.layout.yaxis.title.text == "layer"


def test_the_other_entropy_and_unit(table):
    table.loc[(table["entropy"] == "per_query") & (table["unit"] == "nats"), "value"] = 1.0
    figure = attention_entropy_map(table, "per_query", "nats")
    assert (np.array(figure.data[0].z) == 1).all()
    assert "nats" in figure.data[0].colorbar.title.text
    for wrong in ({"entropy": "mean"}, {"unit": "bits"}):
        with pytest.raises(LabError, match=r"Unknown .*attention entropy"):
            attention_entropy_map(table, **wrong)


def test_without_interval_no_number_stands(table):
    table[["low", "high"]] = np.nan
    figure = attention_entropy_map(table)
    assert {text for line in figure.data[0].text for text in line} == {""}
    assert "no interval, too few texts" in figure.data[1].hovertext[0]


def test_it_can_be_stored(table, survives_json):
    survives_json(attention_entropy_map(table))
