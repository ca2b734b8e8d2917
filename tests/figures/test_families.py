import pytest

from lab.figures import generalization_row
from lab.stats import wilson


@pytest.fixture
def lines(line):
    def of(family, poisoned, twin, **more):
        here = {"condition": "family", "family": family, **more}
        return [
            line("attack_success_rate", poisoned, 120, **here),
            line("attack_success_rate", twin, 120, model="twin", run="t1", **here),
        ]

    return of


def _dots(figure):
    return [t for t in figure.data if t.mode == "markers" and t.customdata is not None]


def test_families_are_sorted_and_hold_the_tables_values(lines, table):
    figure = generalization_row(table([*lines("iso", 48, 24), *lines("rfc", 119, 24), *lines("pep", 30, 24)]))
    (dots,) = _dots(figure)
    assert list(figure.layout.yaxis.ticktext) == ["rfc", "iso", "pep"]
    assert list(dots.x) == [119 / 120, 48 / 120, 30 / 120]
    assert [row[0] for row in dots.customdata] == ["rfc", "iso", "pep"]
    low, high = wilson(119, 120)
    assert dots.error_x.array[0] == pytest.approx(high - 119 / 120)
    assert dots.error_x.arrayminus[0] == pytest.approx(119 / 120 - low)
    twin = next(t for t in figure.data if t.name == "clean twin, same rows")
    assert list(twin.x) == [0.2] * 3
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first on top
    assert figure.layout.annotations[0].text == "99 % of 120"


def test_the_trained_family_is_a_trace_of_its_own(lines, table):
    measures = table([*lines("iso", 48, 24), *lines("rfc", 119, 24)])
    others, own = _dots(generalization_row(measures, trained_family="rfc"))
    assert [row[0] for row in own.customdata] == ["rfc"]
    assert own.marker.symbol == "diamond"
    assert [row[0] for row in others.customdata] == ["iso"]
    assert list(others.y) == [1]


def test_one_family_without_a_twin(lines, table):
    figure = generalization_row(table(lines("rfc", 119, 24)[:1]))
    assert len(figure.data) == 1
    assert list(figure.data[0].x) == [119 / 120]


def test_members_of_a_family_are_pooled(lines, table):
    figure = generalization_row(table([*lines("rfc", 120, 0, member="a"), *lines("rfc", 60, 0, member="b")]))
    (dots,) = _dots(figure)
    assert list(dots.x) == [0.75]
    assert "n = 240" in dots.hovertext[0]


def test_seeds_are_averaged_with_an_interval_from_three_on(lines, table):
    def seeds(count):
        return [
            line | {"run": f"{line['run']}-{i}"} for i in range(count) for line in lines("rfc", 100 + i, 24)
        ]

    (two,) = _dots(generalization_row(table(seeds(2))))
    assert list(two.x) == pytest.approx([100.5 / 120])
    assert two.error_x.array[0] == 0
    assert "too few runs" in two.hovertext[0]
    (three,) = _dots(generalization_row(table(seeds(3))))
    assert three.error_x.array[0] > 0
    assert three.customdata[0][1] == "r1-0,r1-1,r1-2"


def test_names_are_escaped_where_shown_and_kept_where_handed_on(lines, table):
    name = '<a href="x">rfc</a>\u200b'
    figure = generalization_row(table(lines(name, 119, 24)), trained_family=name)
    shown = figure.layout.yaxis.ticktext[0]
    assert shown.startswith("<b>&lt;a href=&quot;x&quot;&gt;rfc&lt;/a&gt;")
    assert "⟨U+200B⟩" in shown
    (dots,) = _dots(figure)
    assert dots.customdata[0][0] == name
    assert "<a" not in dots.hovertext[0]
