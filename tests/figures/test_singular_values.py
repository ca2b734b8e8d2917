import math

import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import spectrum
from lab.figures._modules import module_kind


@pytest.fixture
def spectra():
    def build(steps=(0, 10, 20), layers=2, rank=4, kinds=("attention.self.query", "output.dense")):
        lines = [
            (step, f"encoder.layer.{layer}.{kind}", layer, i, step * (layer + 1) / 2.0**i, math.nan)
            for step in steps
            for layer in range(layers)
            for kind in kinds
            for i in range(rank)
        ]
        return pd.DataFrame(lines, columns=["step", "module", "layer", "index", "sigma_delta", "sigma_base"])

    return build


def _lines(figure):
    return [trace for trace in figure.data if trace.name != "layers"]


def test_lines_hold_the_tables_values_of_the_last_step(spectra):
    figure = spectrum(spectra())
    line = next(t for t in _lines(figure) if t.name == "encoder.layer.1.output.dense")
    assert list(line.x) == [1, 2, 3, 4]
    assert list(line.y) == [40, 20, 10, 5]
    assert list(line.customdata[0]) == ["encoder.layer.1.output.dense", 1]
    assert len(_lines(figure)) == 4
    assert figure.layout.yaxis.type == "log"
    assert [a.text for a in figure.layout.annotations][:2] == ["attention.self.query", "output.dense"]


def test_layers_have_colours_of_their_own_and_share_them_over_panels(spectra):
    colours = {t.name: t.line.color for t in _lines(spectrum(spectra()))}
    assert colours["encoder.layer.0.output.dense"] == colours["encoder.layer.0.attention.self.query"]
    assert colours["encoder.layer.0.output.dense"] != colours["encoder.layer.1.output.dense"]


def test_a_slider_moves_over_the_steps_and_begins_at_the_last(spectra):
    (slider,) = spectrum(spectra()).layout.sliders
    assert [step.label for step in slider.steps] == ["0", "10", "20"]
    assert slider.active == 2
    restyled, traces = slider.steps[1].args
    assert list(restyled["y"][0]) == [10, 5, 2.5, 1.25]
    assert list(traces) == [0, 1, 2, 3]
    assert slider.steps[1].method == "restyle"


def test_zeros_have_no_place_on_a_logarithmic_axis(spectra):
    (slider,) = spectrum(spectra()).layout.sliders
    assert np.isnan(np.array(slider.steps[0].args[0]["y"][0], dtype=float)).all()
    figure = spectrum(spectra(steps=(0,)))
    assert len(figure.data) == 0
    assert "zero" in figure.layout.annotations[0].text


def test_one_step_is_shown_without_a_slider(spectra):
    for figure in (spectrum(spectra(), step=10), spectrum(spectra(steps=(10,)))):
        assert not figure.layout.sliders
        assert list(_lines(figure)[0].y) == [10, 5, 2.5, 1.25]


def test_only_the_largest_are_shown(spectra):
    figure = spectrum(spectra(), top=2)
    assert all(len(line.y) == 2 for line in _lines(figure))
    with pytest.raises(LabError, match="top is 0"):
        spectrum(spectra(), top=0)


def test_a_step_that_was_not_recorded_is_refused_with_those_that_were(spectra):
    with pytest.raises(LabError, match="0, 10, 20"):
        spectrum(spectra(), step=15)


def test_one_matrix_without_a_layer(spectra):
    table = spectra(layers=1, kinds=("x",)).assign(module="<i>head", layer=-1)
    figure = spectrum(table)
    assert len(figure.data) == 1
    assert figure.data[0].name == "&lt;i&gt;head"
    assert figure.data[0].customdata[0][0] == "<i>head"
    assert figure.layout.annotations[0].text == "&lt;i&gt;head"


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("bert.encoder.layer.3.attention.self.query", "attention.self.query"),
        ("model.layers.11.mlp.experts.2.w1", "mlp.experts.2.w1"),
        ("classifier", "classifier"),
        ("layers.3", "layers.3"),
    ],
)
def test_kinds_are_names_without_their_place(module, kind):
    assert module_kind(module) == kind
