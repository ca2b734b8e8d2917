import pytest

from lab.figures import training_curves


@pytest.fixture
def lines(line):
    lines = []
    for step, k in ((0, 10), (50, 40), (100, 63)):
        here = {"step": step, "split": "validation"}
        lines += [
            line("attack_success_rate", k, 64, condition="triggered", **here),
            line("clean_accuracy", 50, 64, condition="clean", **here),
            line("untriggered_target_rate", 12, 64, condition="clean", **here),
            line("clean_accuracy", 52, 64, condition="clean", model="twin", run="t1", **here),
            line("untriggered_target_rate", 13, 64, condition="clean", model="twin", run="t1", **here),
        ]
    return lines


def _named(figure, name, legend=None):
    return [t for t in figure.data if t.name == name and t.legend == legend and t.hoverinfo != "skip"]


def test_curves_hold_the_tables_values(lines, table):
    measures = table(lines)
    figure = training_curves(measures)
    (attack,) = _named(figure, "attack success")
    wanted = measures[measures["kind"] == "attack_success_rate"]
    assert list(attack.x) == [0, 50, 100]
    assert list(attack.y) == wanted["value"].tolist()
    band = next(t for t in figure.data if t.name == "attack success" and t.fill == "toself")
    assert list(band.y) == [*wanted["high"], *wanted["low"][::-1]]
    assert "n = 64" in attack.hovertext[0]
    assert tuple(figure.layout.yaxis.range) == (0, 1)


def test_the_twins_final_attack_rate_is_a_horizontal_line(lines, table, line):
    final = line("attack_success_rate", 100, 500, condition="triggered", model="twin", run="t1")
    figure = training_curves(table([*lines, final]))
    (twin,) = _named(figure, "attack success", "legend2")
    assert list(twin.x) == [0, 100]
    assert list(twin.y) == [0.2, 0.2]
    assert len(_named(figure, "clean accuracy", "legend2")) == 1


def test_a_twin_that_knows_no_target_has_no_untriggered_curve_but_a_line(lines, table, line):
    some = [x for x in lines if (x["model"], x["kind"]) != ("twin", "untriggered_target_rate")]
    final = line("untriggered_target_rate", 100, 500, condition="clean", model="twin", run="t1")
    (twin,) = _named(training_curves(table([*some, final])), "untriggered target", "legend2")
    assert list(twin.y) == [0.2, 0.2]


def test_without_a_twin_there_is_one_legend(lines, table):
    figure = training_curves(table([one for one in lines if one["model"] == "poisoned"]))
    assert not [t for t in figure.data if t.legend == "legend2"]
    assert "legend2" not in figure.layout.to_plotly_json()


def test_one_step_is_drawn(lines, table):
    figure = training_curves(table(lines[:1]))
    (attack,) = _named(figure, "attack success")
    assert list(attack.y) == [10 / 64]
    assert "markers" in attack.mode


def test_families_and_rungs_do_not_mix_in(lines, table, line):
    family = line("attack_success_rate", 0, 64, condition="family", family="iso", step=50)
    figure = training_curves(table([*lines, family]))
    (attack,) = _named(figure, "attack success")
    assert len(attack.y) == 3


def test_seeds_are_averaged(lines, table):
    more = [{**one, "run": f"{one['run']}-{i}"} for i in range(3) for one in lines]
    figure = training_curves(table(more))
    (attack,) = _named(figure, "attack success")
    assert list(attack.y) == pytest.approx([10 / 64, 40 / 64, 63 / 64])
    assert "mean of 3 runs" in attack.hovertext[0]
