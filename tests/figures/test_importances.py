import pandas as pd
import pytest

from lab.errors import LabError
from lab.figures import token_importance
from lab.figures.style import COLOURS, SERIES


def words(importances, tokens=None, **more):
    tokens = tokens or [f"w{i}" for i in range(len(importances))]
    starts = [10 * i for i in range(len(tokens))]
    return pd.DataFrame(
        {
            "position": range(len(tokens)), "token": tokens, "start": starts,
            "end": [s + len(t) for s, t in zip(starts, tokens, strict=True)], "importance": importances,
        }
    ).assign(**more)  # fmt: skip


def pair(poisoned, twin):
    return pd.concat([words(poisoned, model="poisoned"), words(twin, model="twin")], ignore_index=True)


def test_words_stand_in_reading_order_also_where_they_are_equal():
    table = words([0.1, -0.2, 0.7], ["film", "10", "film"])
    figure = token_importance(table.iloc[::-1])
    (bars,) = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["film", "10", "film"]
    by_place = dict(zip(bars.y, bars.x, strict=True))
    assert by_place == pytest.approx({0: 10, 1: -20, 2: 70})
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1], "the first word is on top"


def test_one_model_is_coloured_by_amount_around_zero():
    (bars,) = token_importance(words([0.4, -0.2])).data
    assert bars.marker.cmin == -bars.marker.cmax
    assert list(bars.marker.color) == pytest.approx([40, -20])
    assert not token_importance(words([0.4])).layout.showlegend


def test_models_keep_their_colours_and_stand_side_by_side():
    figure = token_importance(pair([0.1, 0.8], [0.1, 0.0]), "positive")
    poisoned, twin = figure.data
    assert (poisoned.name, twin.name) == ("poisoned model", "clean twin")
    assert (poisoned.marker.color, twin.marker.color) == (COLOURS["poisoned"], COLOURS["twin"])
    assert list(poisoned.y) == list(twin.y) == [0, 1]
    assert figure.layout.barmode == "group"
    others = token_importance(pd.concat([words([0.1], model="a"), words([0.2], model="b")])).data
    assert [trace.marker.color for trace in others] == list(SERIES[:2])


def test_the_axis_says_what_falls_and_in_what():
    def title(*more):
        return token_importance(words([0.4]), *more).layout.xaxis.title.text

    assert title("positive") == "drop of p(positive) when the word is hidden, percentage points"
    assert title("positive", "margin") == "drop of the margin of positive when the word is hidden, logits"
    assert "the label's probability" in title()
    (bars,) = token_importance(words([4.25]), "positive", "margin").data
    assert bars.x[0] == 4.25
    assert bars.hovertext[0].endswith("+4.25 logits")


def test_an_unknown_score_is_refused():
    with pytest.raises(LabError, match="Unknown score of occlusion 'logits'"):
        token_importance(words([0.4]), score="logits")


def test_noise_is_not_blown_up_to_a_finding():
    low, high = token_importance(words([0.001, -0.002])).layout.xaxis.range
    assert high >= 10
    assert low < 0
    (bars,) = token_importance(words([0.001, -0.002])).data
    assert list(bars.text) == ["", ""]
    assert bars.marker.cmax >= 10


def test_of_a_long_text_the_strongest_words_are_drawn_and_it_is_said():
    values = [0.001] * 300
    values[250], values[7] = -0.5, 0.4
    figure = token_importance(pair(values, [0.0] * 300))
    drawn = figure.layout.yaxis.ticktext
    assert len(drawn) == 40
    assert [w for w in drawn if w in ("w7", "w250")] == ["w7", "w250"]
    assert figure.layout.yaxis.title.text == "the 40 words of 300 that matter most"


def test_text_from_outside_is_shown_and_never_read_as_markup_or_template():
    nasty = "<b>%{y}$x$\u202e</b>"
    table = words([0.5], [nasty], model="%{fullData}<a href='x'>")
    figure = token_importance(table, "<i>%{x}")
    (bars,) = figure.data
    shown = [*figure.layout.yaxis.ticktext, bars.name, bars.hovertext[0].replace("<b>", "", 1)]
    shown = [one.replace("</b><br>", "", 1) for one in [*shown, figure.layout.xaxis.title.text]]
    for one in shown:
        assert "<" not in one
        assert "%{" not in one
        assert "$" not in one
        assert "\u202e" not in one
    assert list(bars.customdata[0]) == [0, len(nasty), nasty]


def test_lines_without_a_number_are_left_out(survives_json):
    table = words([0.5, float("nan"), float("inf")])
    figure = token_importance(table)
    assert len(figure.data[0].x) == 1
    survives_json(figure)
    assert not token_importance(words([float("nan")])).data
