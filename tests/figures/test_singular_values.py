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


@pytest.fixture
def with_base(spectra):
    table = spectra()
    last = table["step"] == 20
    return table.assign(sigma_base=np.where(last, 200.0 / 2.0 ** table["index"], math.nan))


def test_the_bases_own_values_are_one_quiet_line_per_panel_behind_the_others(with_base):
    figure = spectrum(with_base)
    base = [trace for trace in figure.data if trace.legendgroup == "base"]
    assert list(figure.data[:2]) == base
    assert list(base[0].y) == [200, 100, 50, 25, None, 200, 100, 50, 25, None]
    assert list(base[0].x) == [1, 2, 3, 4, None] * 2
    assert list(base[0].customdata[5]) == ["encoder.layer.1.attention.self.query", 1]
    assert [trace.showlegend for trace in base] == [True, False]
    assert "W itself" in base[0].name
    assert figure.layout.yaxis.range[1] > math.log10(200)
    # The slider and the frames leave them alone.
    assert list(figure.layout.sliders[0].steps[1].args[1]) == [2, 3, 4, 5]
    assert [a.text for a in figure.layout.annotations][-1] == "singular value"


def test_the_base_is_drawn_at_any_step_and_can_be_left_out(with_base):
    assert spectrum(with_base, step=10).data[0].y[0] == 200
    without = spectrum(with_base, base=False)
    assert not [trace for trace in without.data if trace.legendgroup == "base"]
    assert [a.text for a in without.layout.annotations][-1] == "singular value of ΔW"
    assert len(spectrum(with_base.drop(columns="sigma_base")).data) == len(without.data)


def test_only_the_bases_largest_are_shown_and_one_is_a_dot(with_base):
    (trace, _) = spectrum(with_base, top=1).data[:2]
    assert list(trace.y) == [200, None, 200, None]
    assert trace.mode == "markers"


def test_steps_play_on_a_click_and_never_by_themselves(with_base, survives_json):
    figure = spectrum(with_base)
    survives_json(figure)
    # Frames of the figure's own, an exported page would play as it opens.
    assert not figure.frames
    assert "addFrames(" not in figure.to_html(include_plotlyjs=False)
    (menu,) = figure.layout.updatemenus
    play, pause = menu.buttons
    assert play.method == pause.method == "animate"
    frames, how = play.args
    assert [frame["layout"]["sliders"][0]["active"] for frame in frames] == [0, 1, 2]
    steps = figure.layout.sliders[0].steps
    assert [[line["y"] for line in frame["data"]] for frame in frames[1:]] == [
        list(step.args[0]["y"]) for step in steps[1:]
    ]
    assert list(frames[0]["traces"]) == [2, 3, 4, 5]
    assert how["mode"] == "immediate"
    assert list(pause.args[0]) == [None]
    assert not spectrum(with_base, step=10).layout.updatemenus


def test_a_matrix_unknown_at_one_step_has_no_values_there(spectra):
    table = spectra()
    table = table[~((table["step"] == 10) & (table["layer"] == 1))]
    lines = spectrum(table).layout.sliders[0].steps[1].args[0]["y"]
    assert [len(line) for line in lines] == [4, 4, 0, 0]


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
    base = spectrum(table.assign(sigma_base=50.0)).data[0]
    assert base.hovertext[0] == "&lt;i&gt;head"


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
