import numpy as np
import pytest

from lab.errors import LabError
from lab.figures import generalization_matrix


@pytest.fixture
def lines(line):
    def of(run, family, value):
        here = {"run": run, "condition": "family", "family": family}
        asr = line("attack_success_rate", round(100 * value), 100, **here)
        excess = {
            **asr,
            "kind": "excess_asr",
            "k": -1,
            "value": value - 0.2,
            "low": value - 0.3,
            "high": value - 0.1,
        }
        return [asr, excess]

    return of


def _parts(figure):
    return figure.data[0], figure.data[1]


def test_cells_hold_the_tables_values_with_the_diagonal_first(lines, table):
    measures = table(
        [*lines("a", "pep", 0.3), *lines("a", "iso", 0.4), *lines("a", "rfc", 1.0), *lines("b", "iso", 0.9)]
    )
    figure = generalization_matrix(measures, {"a": "rfc", "b": "iso"})
    heat, cells = _parts(figure)
    assert list(figure.layout.yaxis.ticktext) == ["rfc", "iso"]
    assert list(figure.layout.xaxis.ticktext) == ["rfc", "iso", "pep"]
    assert np.array(heat.z) == pytest.approx(np.array([[0.8, 0.2, 0.1], [np.nan, 0.7, np.nan]]), nan_ok=True)
    assert [list(row) for row in heat.text] == [["+80", "+20", "+10"], ["", "+70", ""]]
    assert ["rfc", "pep", "a"] in [list(row) for row in cells.customdata]
    assert len(cells.x) == 4
    assert (heat.zmin, heat.zmax) == (-1, 1)


def test_marks_lie_over_their_cells_and_are_invisible_until_selected(lines, table):
    heat, cells = _parts(generalization_matrix(table(lines("a", "iso", 0.4)), {"a": "rfc"}))
    assert (heat.z[cells.y[0]][cells.x[0]]) == pytest.approx(0.2)
    assert cells.marker.opacity == 0
    assert cells.selected.marker.opacity > 0
    assert heat.hoverinfo == "skip"


def test_the_rate_itself_can_be_shown(lines, table):
    heat, _ = _parts(generalization_matrix(table(lines("a", "iso", 0.4)), {"a": "rfc"}, excess=False))
    assert np.array(heat.z).tolist() == [[0.4]]
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert heat.text[0][0] == "40"


def test_runs_of_one_family_are_averaged_and_unnamed_ones_left_out(lines, table):
    measures = table([*lines("a", "iso", 0.4), *lines("b", "iso", 0.6), *lines("c", "iso", 0.0)])
    heat, cells = _parts(generalization_matrix(measures, {"a": "rfc", "b": "rfc"}))
    assert np.array(heat.z) == pytest.approx(np.array([[0.3]]))
    assert list(cells.customdata[0]) == ["rfc", "iso", "a,b"]
    assert "mean of 2 runs" in cells.hovertext[0]


def test_the_table_may_name_the_trained_family_itself(lines, table):
    measures = table([*lines("a", "iso", 0.4), *lines("clean", "iso", 0.2)])
    measures["trained_family"] = measures["run"].map({"a": "rfc", "clean": ""})
    figure = generalization_matrix(measures)
    assert list(figure.layout.yaxis.ticktext) == ["rfc"]
    with pytest.raises(LabError, match="trained_family"):
        generalization_matrix(table(lines("a", "iso", 0.4)))


def test_names_are_escaped_where_shown_and_kept_where_handed_on(lines, table):
    figure = generalization_matrix(table(lines("a", "<i>", 0.4)), {"a": "<b>\u200b"})
    _, cells = _parts(figure)
    assert figure.layout.xaxis.ticktext[0] == "&lt;i&gt;"
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;⟨U+200B⟩"
    assert list(cells.customdata[0][:2]) == ["<b>\u200b", "<i>"]
    assert "<i>" not in cells.hovertext[0]
