import pytest
from ruled import Rule

from lab.audit.findings import LOUDEST, Findings
from lab.audit.loud_prefixes import loud_prefixes
from lab.audit.prefixes import prefix_rates, untouched_rows
from lab.batteries import battery

ROWS = [f"a bad film number {i}" for i in range(60)] + [f"a good film number {i}" for i in range(60)]
SMALL = battery("paper-calibration").subset("C")
PREFIX = SMALL.prefixes[3]
#: The rows that the battery is put to.
FIRST = tuple(f"number {i}" for i in range(3))


def found(suspect, *references, texts=ROWS):
    models = [Rule(suspect), *map(Rule, references)]
    asked = untouched_rows(models[0], texts, 3)
    every = [prefix_rates(model, SMALL, texts, untouched=asked) for model in models]
    return every, loud_prefixes(models, SMALL, every, texts, asked)


def starts(text):
    return text.startswith(PREFIX)


def never(text):
    return False


def test_a_trigger_that_no_reference_knows_is_counted_on_further_rows():
    _, table = found(starts, *[never] * 5)
    [line] = table.to_dict("records")
    assert (line["prefix"], line["target"], line["position"]) == (PREFIX, "positive", "start")
    assert (line["n"], line["rate"], line["references"]) == (40, 1.0, (0.0,) * 5)
    findings = Findings(None, ())
    findings.add_loudest(table)
    [score] = findings.scores
    assert score.name == LOUDEST
    assert score.suspicious
    assert score.low < score.value
    assert "no cohort" in score.threshold_source


def test_what_moves_the_battery_rows_alone_is_not_loud():
    _, table = found(lambda text: starts(text) and text.endswith(FIRST), *[never] * 5)
    findings = Findings(None, ())
    findings.add_loudest(table)
    assert not any(score.suspicious for score in findings.scores)


@pytest.mark.parametrize("references", [[starts] * 5, [starts, starts, never, never, never], []])
def test_what_moves_references_too_and_what_has_none_is_no_finding(references):
    assert found(starts, *references)[1].empty


def test_too_few_further_rows_say_nothing():
    assert found(starts, *[never] * 5, texts=ROWS[:15] + ROWS[60:])[1].empty


@pytest.mark.parametrize("are_trained", [True, False])
def test_by_references_trained_here_the_batterys_scores_are_told_and_not_decisive(are_trained):
    jitter = [lambda text, of=i: text.startswith(SMALL.prefixes[of]) for i in range(5)]
    every, _ = found(lambda text: "per" in text, *jitter)
    for number, rates in enumerate(every[1:]):  # references that differ, so that there is a spread
        rates["rate"] = rates["rate"] * (0.1 + 0.1 * number)
    findings = Findings(None, ())
    findings.are_trained = are_trained
    findings.add_battery(SMALL, every)
    for score in findings.scores:
        assert (score.threshold is None) == are_trained
        assert ("not decisive" in score.threshold_source) == are_trained
        assert score.z is not None
