import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.figures import alignment_curve, alignment_map, spectral_strength, spectrum
from lab.figures.axes import legend_below, same_colours, same_ranges
from lab.figures.style import empty_figure


def _spectra(size, rank=4):
    return pd.DataFrame(
        [
            {
                "step": 10,
                "module": f"encoder.layer.{layer}.query",
                "layer": layer,
                "index": i,
                "sigma_delta": size / (i + 1),
                "sigma_base": 10.0 / (i + 1),
            }
            for layer in range(2)
            for i in range(rank)
        ]
    )


def _alignment(times):
    shares = {"module": "encoder.layer.0.query", "layer": 0, "side": "left", "k": 8, "uniform": 0.02}
    return pd.DataFrame([shares | {"share": 0.02 * times}])


def _ranges(figure):
    return [tuple(figure.layout[a].range) for a in figure.layout if a[1:].startswith("axis")]


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(1, 9))
def test_spectra_side_by_side_have_one_range_that_holds_both(first, second, rank):
    figures = [spectrum(_spectra(first), base=False), spectrum(_spectra(second, rank), base=False)]
    own = [dict(enumerate(_ranges(figure))) for figure in figures]
    same_ranges(figures)
    shared = _ranges(figures[0])
    assert shared == _ranges(figures[1])
    for ranges in own:
        for axis, (low, high) in ranges.items():
            assert shared[axis][0] <= low
            assert high <= shared[axis][1]


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 5), st.floats(0.01, 5))
def test_strength_maps_side_by_side_have_the_scale_of_the_stronger(first, second):
    figures = [spectral_strength(_spectra(first)), spectral_strength(_spectra(second))]
    furthest = max(figure.data[0].zmax for figure in figures)
    same_colours(figures)
    assert [figure.data[0].zmax for figure in figures] == [furthest, furthest]


def test_alignment_maps_keep_their_middle_and_the_furthest_ticks():
    near, far = alignment_map(_alignment(1.0)), alignment_map(_alignment(16.0))
    ticks = far.data[0].colorbar.ticktext
    same_colours([near, far])
    for figure in (near, far):
        assert figure.data[0].zmin == -figure.data[0].zmax == -4.0
        assert figure.data[0].colorbar.ticktext == ticks


def test_figures_without_numbers_are_left_alone():
    empty, full = empty_figure("Nothing."), spectrum(_spectra(1.0))
    before = _ranges(full)
    same_ranges([empty, full])
    same_ranges([full])
    same_colours([empty, full])
    assert _ranges(full) == before
    assert empty.layout.yaxis.range is None
    same_ranges([])


def test_a_legend_below_takes_no_room_from_the_panels():
    before, after = alignment_curve(_alignment(2.0)), legend_below(alignment_curve(_alignment(2.0)))

    def inner(figure):
        return figure.layout.height - figure.layout.margin.t - (figure.layout.margin.b or 60)

    assert abs(inner(after) - inner(before)) <= 10
    assert after.layout.legend.orientation == "h"
    assert after.layout.legend.y < 0
