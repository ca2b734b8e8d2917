import json
import re

import pandas as pd
import pytest

from lab.paper_cards import CARD_COLUMNS, RESULT_COLUMNS, Card, PaperClaims, evaluate, load_claims, read_card

EVIL = "<script>alert(1)</script> | `x` *y* [z](javascript:1) \u202e${1}"


def claims_of(text):
    return PaperClaims.model_validate(
        {
            "name": "p",
            "paper": dict.fromkeys(["arxiv", "title", "says", "theirs", "ours"], text),
            "sources": {"s": {"command": "lab x"}},
            "claims": [
                {
                    "id": "a", "says": text, "place": text, "paper": text, "note": text,
                    "quantity": {"source": "s", "measure": "auc", "above": 0.5, "lines": [text]},
                },
                {"id": "b", "says": "x", "place": "y", "paper": "z"},
            ],
        }
    )  # fmt: skip


def results(**more):
    own = {"claim": "a", "value": 0.7, "low": 0.6, "high": 0.8, "n": 12, "seeds": "0 1 2"}
    own |= {"held": "committed", "machine": "m", "runs": ""}
    return pd.DataFrame([{**own, **more}], columns=list(RESULT_COLUMNS))


def test_a_claim_without_a_result_is_not_run_here():
    table = evaluate(claims_of("t"), results())
    assert list(table.columns) == list(CARD_COLUMNS)
    assert table["verdict"].tolist() == ["agrees", "not run here"]
    assert evaluate(claims_of("t"), results().iloc[:0])["verdict"].tolist() == ["not run here"] * 2


def test_evaluation_changes_nothing_that_it_is_given():
    given = results()
    before = given.copy()
    evaluate(claims_of("t"), given)
    pd.testing.assert_frame_equal(given, before)


@pytest.mark.parametrize("machine", ["m", EVIL])
def test_hostile_text_is_shown_and_not_obeyed(machine):
    card = Card(claims_of(EVIL), evaluate(claims_of(EVIL), results(machine=machine)), {"fact": EVIL})
    for html in (card.to_html().partition("<script>\n")[0], card._repr_html_()):
        assert "<script>alert" not in html.partition("</title>")[2].partition('type="application/json"')[0]
        assert "\u202e" not in html
    markdown = card.to_markdown()
    assert "<script>" not in markdown
    assert "\u202e" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert "[z](" not in markdown.replace("\\[", "")


def test_json_has_null_for_what_is_not_known():
    card = Card(claims_of("t"), evaluate(claims_of("t"), results()))
    told = json.loads(card.to_json())
    assert told["counts"]["agrees"] == 1
    assert told["claims"][1]["value"] is None
    assert told["claims"][0]["n"] == 12


def test_a_card_from_committed_numbers(tmp_path):
    card = read_card("rora", runs=tmp_path)
    lines = card.table.set_index("claim")
    assert lines.loc["lora-keeps-word", "verdict"] == "agrees"
    assert lines.loc["lora-keeps-word", "held"] == "committed"
    assert lines.loc["lora-keeps-word", "n"] == 1170
    assert lines.loc["tr-weakens-word", "verdict"] == "disagrees"
    assert lines.loc["rora-removes-word", "verdict"] == "direction only"
    assert lines.loc["rora-removes-word", "seeds"] == "0 1 2"
    assert lines.loc["threshold-word", "verdict"] == "cannot say"
    assert len(card.table) == len(load_claims("rora").claims)
    # what the paper does not claim is no claim of the paper
    assert sum(card.counts.values()) == len(card.table) - 1
    assert "and 1 check of our own" in card.summary
    assert "Own check: Refitting" in card.to_markdown()
    assert card.facts["numbers"] == "0 of this machine, 14 committed"
    assert "rora" in repr(card)
    assert "committed" in card.to_markdown()
    assert "<table" in card._repr_html_()


def test_a_card_is_printed_with_words_and_not_by_colour_alone(tmp_path, capsys):
    from rich.console import Console

    from lab.console import print_card

    console = Console(width=160, no_color=True)
    print_card(read_card("rora", runs=tmp_path), console)
    told = capsys.readouterr().out
    assert "✓ agrees" in told
    assert "✗ disagrees" in told
