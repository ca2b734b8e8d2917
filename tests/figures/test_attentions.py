import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import attention_map


def attention(weights, names):
    """Long form of weights, layers × heads × queries × keys."""
    layer, head, query, key = (index.ravel() for index in np.indices(weights.shape))
    return pd.DataFrame(
        {
            "layer": layer, "head": head, "query": query, "key": key,
            "query_token": pd.Categorical([names[i] for i in query]),
            "key_token": pd.Categorical([names[i] for i in key]), "weight": weights.ravel(),
        }
    )  # fmt: skip


@pytest.fixture
def weights():
    raw = np.random.default_rng(0).random((3, 2, 4, 4))
    return raw / raw.sum(axis=-1, keepdims=True)


NAMES = ["[CLS]", "film", "film", "[SEP]"]


def test_by_default_it_is_the_mean_over_the_heads_of_the_last_layer(weights):
    figure = attention_map(attention(weights, NAMES).sample(frac=1, random_state=1))
    (heat,) = figure.data
    np.testing.assert_allclose(np.array(heat.z), weights[2].mean(axis=0))
    assert figure.layout.xaxis.title.text == "key: the token that is looked at (layer 2, mean of 2 heads)"
    assert figure.layout.yaxis.title.text == "query: the token that looks"
    assert list(figure.layout.xaxis.ticktext) == list(figure.layout.yaxis.ticktext) == NAMES
    assert (heat.zmin, heat.zmax) == (0, pytest.approx(weights[2].mean(axis=0).max()))


def test_a_layer_and_a_head_can_be_chosen(weights):
    figure = attention_map(attention(weights, NAMES), layer=0, head=1)
    np.testing.assert_allclose(np.array(figure.data[0].z), weights[0, 1])
    assert "(layer 0, head 1)" in figure.layout.xaxis.title.text


def test_the_hover_says_who_looks_at_whom(weights):
    figure = attention_map(attention(weights, ["a", "b", "c", "d"]), layer=1, head=0)
    said = figure.data[0].hovertext[1][3]
    assert said.startswith(f"<b>b</b> looks at <b>d</b>: {100 * weights[1, 0, 1, 3]:.1f} %")


@pytest.mark.parametrize(
    ("asked", "message"), [({"layer": 3}, "no layer 3; .*0 to 2"), ({"head": -1}, "0, 1")]
)
def test_a_layer_or_head_that_is_not_there_is_refused(weights, asked, message):
    with pytest.raises(LabError, match=message):
        attention_map(attention(weights, NAMES), **asked)


def test_a_long_text_names_some_tokens_and_stays_light():
    n = 150
    weights = np.full((1, 1, n, n), 1 / n)
    figure = attention_map(attention(weights, [f"t{i}" for i in range(n)]))
    (heat,) = figure.data
    assert len(figure.layout.xaxis.ticktext) <= 48
    assert list(figure.layout.xaxis.ticktext[:2]) == ["t0", f"t{figure.layout.xaxis.tickvals[1]}"]
    assert heat.hovertext is None
    assert figure.layout.height <= 1100
    assert len(figure.to_json()) < 1_000_000


def test_tokens_are_shown_and_never_read_as_markup_or_template(weights, survives_json):
    nasty = ["<b>", "%{z}", "$x$", "\u200b"]
    figure = attention_map(attention(weights, nasty))
    shown = ["&lt;b&gt;", "&#37;{z}", "&#36;x&#36;", "⟨U+200B⟩"]
    assert list(figure.layout.xaxis.ticktext) == shown
    assert figure.data[0].hovertext[0][1].startswith("<b>&lt;b&gt;</b> looks at <b>&#37;{z}</b>")
    survives_json(figure)


def test_a_weight_that_is_missing_is_an_empty_cell(weights):
    table = attention(weights, NAMES)
    table.loc[(table["query"] == 1) & (table["key"] == 2), "weight"] = np.nan
    z = np.array(attention_map(table).data[0].z, dtype=float)
    assert np.isnan(z[1, 2])
    assert np.isnan(z).sum() == 1
