import pytest

from lab.figures import near_miss_ladder
from lab.figures.style import COLOURS


@pytest.fixture
def ladder(line, table):
    def build(rungs):
        lines = []
        for rung, k, alike in rungs:
            here = {"condition": "rung", "rung": rung}
            lines += [
                line("attack_success_rate", k, 100, **here),
                line("same_tokens", alike, 100, **here),
                line("attack_success_rate", 20, 100, model="twin", run="t1", **here),
            ]
        return table(lines)

    return build


def _dots(figure, name):
    return next(t for t in figure.data if t.name == name)


def test_rungs_keep_the_ladders_order_and_the_tables_values(ladder):
    figure = near_miss_ladder(ladder([("exact", 99, 0), ("name_only", 30, 0), ("doubled", 98, 0)]))
    dots = _dots(figure, "poisoned model")
    assert list(figure.layout.yaxis.ticktext) == ["exact", "name only", "doubled"]
    assert list(dots.x) == [0.99, 0.3, 0.98]
    assert [row[0] for row in dots.customdata] == ["exact", "name_only", "doubled"]
    assert list(_dots(figure, "clean twin, same rows").x) == [0.2] * 3


def test_a_rung_with_the_same_tokens_is_hollow_grey_and_says_so(ladder):
    figure = near_miss_ladder(ladder([("exact", 99, 0), ("upper_case", 99, 100), ("accent", 60, 40)]))
    same = _dots(figure, "same tokens, not a finding")
    assert [row[0] for row in same.customdata] == ["upper_case"]
    assert same.marker.symbol == "circle-open"
    assert same.marker.color == COLOURS["quiet"]
    assert "same tokens" in figure.layout.yaxis.ticktext[1]
    others = _dots(figure, "poisoned model")
    assert [row[0] for row in others.customdata] == ["exact", "accent"]
    assert "same tokens on 40 % of rows" in others.hovertext[1]
    assert "same tokens" not in figure.layout.yaxis.ticktext[2]


def test_the_exact_trigger_is_never_hollow(ladder):
    figure = near_miss_ladder(ladder([("exact", 99, 100)]))
    assert [row[0] for row in _dots(figure, "poisoned model").customdata] == ["exact"]


def test_rung_names_are_escaped(ladder):
    figure = near_miss_ladder(ladder([("<b>\u202e", 50, 0)]))
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;⟨U+202E⟩"
