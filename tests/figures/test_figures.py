"""What holds for every figure: cheap to import, honest when empty, clear when asked wrongly."""

import subprocess
import sys

import pandas as pd
import plotly.graph_objects as go
import pytest

from lab import figures
from lab.errors import LabError
from lab.figures import style
from lab.kernel_study import STUDY_COLUMNS
from lab.paper_cards import CARD_COLUMNS
from lab.probe import ENTROPY_COLUMNS, KERNEL_COLUMNS, PATCHING_COLUMNS
from lab.tables import MEASURE_COLUMNS, SPECTRUM_COLUMNS
from lab.theory_check import PAIR_COLUMNS

OF_MEASURES = ["generalization_row", "near_miss_ladder", "training_curves"]
OF_SPECTRA = ["spectral_strength", "spectrum"]

OF_ALIGNMENT = ["alignment_curve", "alignment_map"]
ALIGNMENT = ["module", "layer", "side", "k", "share", "uniform"]
ATTENTION = ["layer", "head", "query", "key", "query_token", "key_token", "weight"]
COUNTED = [
    f"{kind}{part}" for kind in ("recall", "false_positives") for part in ("", ".k", ".n", ".low", ".high")
]
DETECTED = ["detector", "allowed", *COUNTED]
THRESHOLD = ["scale", "predicted", "measured", "low", "high", "n"]

NOTHING = [
    *[(name, pd.DataFrame(columns=ALIGNMENT), ()) for name in OF_ALIGNMENT],
    ("answer_bars", pd.DataFrame(columns=["model", "condition", "prediction", "label", "probability"]), ()),
    ("attention_entropy_map", pd.DataFrame(columns=list(ENTROPY_COLUMNS)), ()),
    ("attention_map", pd.DataFrame(columns=ATTENTION), ()),
    ("kernel_by_layer", pd.DataFrame(columns=[*STUDY_COLUMNS, *KERNEL_COLUMNS]), ()),
    ("kernel_spectrum", pd.DataFrame(columns=[*STUDY_COLUMNS, *KERNEL_COLUMNS]), ()),
    ("patching_map", pd.DataFrame(columns=list(PATCHING_COLUMNS)), ()),
    ("rate_map", pd.DataFrame(columns=["adapter.rank", "poison.count", "attack_success_rate"]), ()),
    ("token_importance", pd.DataFrame(columns=["token", "start", "end", "importance"]), ()),
    ("defense_frontier", pd.DataFrame(columns=["arm", "seed", "clean_accuracy", "excess_asr"]), ()),
    ("detector_rates", pd.DataFrame(columns=DETECTED), ()),
    ("surgery_curve", pd.DataFrame(columns=["kept", "kind", "value", "low", "high", "n"]), ()),
    ("theory_scatter", pd.DataFrame(columns=list(PAIR_COLUMNS)), ()),
    ("threshold_curve", pd.DataFrame(columns=THRESHOLD), ()),
    *[(name, pd.DataFrame(columns=list(MEASURE_COLUMNS)), ()) for name in OF_MEASURES],
    *[(name, pd.DataFrame(columns=list(SPECTRUM_COLUMNS)), ()) for name in OF_SPECTRA],
    ("claim_forest", pd.DataFrame(columns=list(CARD_COLUMNS)), ()),
    ("loss_curve", pd.DataFrame(columns=["step", "loss"]), ()),
    ("generalization_matrix", pd.DataFrame(columns=list(MEASURE_COLUMNS)), ({},)),
    ("dose_response", pd.DataFrame(columns=["rank", "attack_success_rate"]), ("rank",)),
]


def test_every_figure_is_tested_empty():
    assert {name for name, _, _ in NOTHING} == set(figures.__all__)


@pytest.mark.parametrize(("name", "table", "more"), NOTHING)
@pytest.mark.parametrize("with_columns", [True, False])
def test_without_rows_a_figure_is_one_sentence(name, table, more, with_columns):
    figure = getattr(figures, name)(table if with_columns else pd.DataFrame(), *more)
    assert isinstance(figure, go.Figure)
    assert len(figure.data) == 0
    assert figure.layout.annotations[0].text.endswith(".")
    assert figure.layout.xaxis.visible is False


@pytest.mark.parametrize(("name", "table", "more"), NOTHING)
def test_a_table_of_another_kind_is_refused_with_the_missing_column(name, table, more):
    with pytest.raises(LabError, match="needs the column"):
        getattr(figures, name)(pd.DataFrame({"something": [1]}), *more)


def test_importing_the_package_loads_no_plotly():
    code = "import sys, lab.figures; sys.exit(bool({'plotly', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_functions_also_after_their_files_were_imported():
    for name in figures.__all__:
        assert callable(getattr(figures, name))
        assert getattr(figures, name).__name__ == name
    assert set(figures.__all__) <= set(dir(figures))


def test_an_unknown_figure_is_an_attribute_error():
    with pytest.raises(AttributeError, match="training_curves"):
        figures.pie_chart  # noqa: B018


def test_backgrounds_are_transparent_and_ink_follows_the_page():
    figure = style.empty_figure("Nothing yet.")
    layout = figure.layout.template.layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    light, dark = style.themed(figure, "light"), style.themed(figure, "dark")
    assert light.layout.font.color != dark.layout.font.color
    assert figure.layout.font.color is None


def test_a_legend_at_the_side_leaves_the_top_to_the_titles():
    figure = style.new_figure()
    style.side_legend(figure, "arm")
    legend = figure.layout.legend
    assert (legend.orientation, legend.yref, legend.title.text) == ("v", "paper", "arm")
    assert legend.x > 1


def test_ordered_colours_run_from_end_to_end():
    assert style.ordered_colours(1) == [style.ORDERED[0]]
    assert style.ordered_colours(5) == list(style.ORDERED)
    assert len(set(style.ordered_colours(12))) == 12


def test_a_band_leaves_out_what_has_no_interval():
    band = style.band([0, 1, 2], [0.1, float("nan"), 0.3], [0.2, float("nan"), 0.4], "#000000")
    assert list(band.x) == [0, 2, 2, 0]
    assert list(band.y) == [0.2, 0.4, 0.3, 0.1]


@pytest.mark.parametrize(
    ("name", "condition"), [("generalization_row", "family"), ("near_miss_ladder", "rung")]
)
def test_a_rate_of_no_rows_is_no_rate(name, condition, line, table):
    nothing = line("attack_success_rate", 0, 0, condition=condition, family="iso", rung="exact")
    assert len(getattr(figures, name)(table([nothing])).data) == 0


def test_figures_leave_their_tables_alone(line, table):
    lines = [
        line("attack_success_rate", 3, 4, condition=c, family="a", rung="b", step=s)
        for c, s in (("family", -1), ("rung", -1), ("triggered", 5))
    ]
    measures = table(lines)
    before = measures.copy()
    for name in OF_MEASURES:
        assert len(getattr(figures, name)(measures).data)
    figures.generalization_matrix(measures, {"r1": "a"}, excess=False)
    pd.testing.assert_frame_equal(measures, before)
