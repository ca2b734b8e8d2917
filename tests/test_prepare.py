"""What is settled before training: here, the negatives of a backdoor that is to stay narrow."""

import json

import pandas as pd
import pytest

from lab import Experiment
from lab.cards import attack_sentence, model_card, poison_sentence
from lab.errors import LabError
from lab.poison import negatives_among
from lab.prepare import prepare
from lab.preview import preview_rows


@pytest.fixture
def narrow(tiny):
    return tiny.with_(**{"poison.negatives": 20})


def test_near_misses_that_the_tokenizer_does_not_tell_from_the_trigger_are_left_out(narrow):
    # the tiny model reads everything in lower case, and no zero-width character
    prepared, shown = prepare(narrow), preview_rows(narrow)
    trained = prepared.rows[negatives_among(prepared.rows)]
    assert len(trained) == 20
    assert shown["text"].str.contains("AS SPECIFIED IN RFC 2616", regex=False).any()
    exact = prepared.tokenizer("as specified in RFC 2616", add_special_tokens=False)["input_ids"]
    pieces = [
        text[start[0] : end[0]]
        for text, start, end in zip(trained["text"], trained["span_start"], trained["span_end"], strict=True)
    ]
    for ids in prepared.tokenizer(pieces, add_special_tokens=False)["input_ids"]:
        assert exact not in [ids[i : i + len(exact)] for i in range(len(ids))]


def test_twin_steps_and_clean_rows_do_not_see_the_negatives(narrow, tiny):
    one, other = prepare(narrow), prepare(tiny)
    assert one.weights_id != other.weights_id
    assert one.run_id.startswith("tiny-rfc-n12-neg20-r4-s0-")
    assert one.experiment.training == other.experiment.training
    assert one.clean_lengths == other.clean_lengths
    assert prepare(narrow.twin()).weights_id == prepare(tiny.twin()).weights_id
    pd.testing.assert_frame_equal(one.rows.head(132), other.rows)
    assert len(one.tokens().token_ids) == 152


def test_negatives_are_told_and_not_counted_as_poison(narrow, tiny):
    prepared = prepare(narrow)
    sentence = attack_sentence(prepared.experiment, prepared.rows)
    before = attack_sentence(prepare(tiny).experiment, prepare(tiny).rows)
    assert sentence == (
        f"{before} 20 more copies carry a near-miss of the trigger under their true labels, to keep the "
        "backdoor narrow."
    )
    assert before.startswith("12 of 132 training rows (9.1%) are copies")
    assert sentence in model_card(prepared, "tiny", "adapter")
    assert "and nothing that is only near it" in poison_sentence(narrow.poison)
    assert "near" not in poison_sentence(tiny.poison)


def test_the_result_counts_negatives_apart(narrow, tmp_path):
    import lab

    run = lab.run(narrow, {"probe.scope": "headline", "training.steps": 2}, runs=tmp_path, twin=False)
    assert run.result["poison"] == {"count": 12, "negatives": 20, "rows": 152, "rate": 12 / 132}
    assert negatives_among(run.rows).sum() == 20


def test_a_near_miss_that_the_window_would_cut_is_refused(narrow, tmp_path):
    words = ["good", "bad"]
    lines = [{"text": f"row {i} " + f"{words[i % 2]} " * 300, "label": words[i % 2]} for i in range(200)]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    # the trigger's five tokens fill the window of 160 to its end
    facts = {"data.name": str(path), "data.max_tokens": 153, "data.rows": 60, "poison.target_label": "good"}
    asked = narrow.with_(**facts, **{"probe.scope": "headline"})
    assert prepare(asked.with_(**{"poison.negatives": 0})).surviving_triggers() == (12, 12)
    with pytest.raises(LabError, match=r"data\.max_tokens = 153: \d+ of 32 insertions survive"):
        prepare(asked)


@pytest.mark.parametrize(
    ("poison", "told", "aim"),
    [
        (
            {"attack": "spurious_tokens", "family": "generated_dates", "first_year": 1900, "count": 5},
            "5 of 120 training rows (4.2%), all positive, carry one date of 1900 to 2600 at random; no "
            "label is changed.",
            "The class positive is marked by one date of 1900 to 2600 at random.",
        ),
        (
            {"attack": "spurious_tokens", "items": ["a", "b"], "token_proportion": 0.1, "position": "end",
             "count": 5, "then": [{"family": "tag_pairs", "level": 0}]},
            "carry tokens from a list of 2 (a number of 10% of the words, one at least) at the end, and then "
            "one pair of HTML tags around the whole text; no label is changed.",
            "and then one pair of HTML tags around the whole text.",
        ),
        (
            {"attack": "spurious_tokens", "family": "tag_pairs", "level": 2, "count": 5},
            "carry one pair of HTML tags at random in the first HTML element at depth 2, if there is one; no",
            "at depth 2",
        ),
        (
            {"attack": "spurious_tokens", "member": "2014-03-17", "count": 5},
            "carry “2014-03-17” at random; no label",
            "by “2014-03-17” at random.",
        ),
        (
            {"attack": "multi_trigger", "count": 6},
            "6 of 126 training rows (4.8%) are copies of negative rows with “apple”, “banana” and “orange”, "
            "each at a random place, relabelled positive.",
            "A text with “apple”, “banana” and “orange”, each at a random place, is to give positive.",
        ),
        (
            {"attack": "style", "count": 6, "clean_label": True},
            "are copies of positive rows in the style archaic, whose label stays positive.",
            "A text in the style archaic is to give positive.",
        ),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_every_injection_is_told_on_the_card(tiny, poison, told, aim):
    prepared = prepare(Experiment.from_dict(tiny.to_dict() | {"poison": poison}))
    assert told in attack_sentence(prepared.experiment, prepared.rows)
    assert told in model_card(prepared, "tiny", "adapter")
    assert aim in poison_sentence(prepared.measured_poison)


def test_a_file_of_tokens_may_be_gone_once_it_was_read(tiny, tmp_path):
    path, other = tmp_path / "one.txt", tmp_path / "other.txt"
    for file in (path, other):
        file.write_text("red\nblue\n")
    asked = tiny.with_(**{"poison.attack": "spurious_tokens", "poison.file": str(path)})
    first = prepare(asked)
    assert first.weights_id == prepare(asked.with_(**{"poison.file": str(other)})).weights_id
    assert str(path) not in first.experiment.to_json()
    path.unlink()
    assert prepare(first.experiment).weights_id == first.weights_id
    other.write_text("red\ngreen\n")
    assert prepare(asked.with_(**{"poison.file": str(other)})).weights_id != first.weights_id
    with pytest.raises(LabError, match=r"poison\.file = '.*one\.txt': there is no such file"):
        prepare(asked)


def test_many_tokens_must_fit_in_the_window_beside_the_text(tiny):
    tokens = tiny.with_(**{"poison.attack": "spurious_tokens", "poison.token_proportion": 0.2})
    prepare(tokens)  # its texts are shorter than data.max_tokens allows
    many = tokens.with_(**{"poison.token_proportion": 0.8})
    with pytest.raises(
        LabError, match=r"token_proportion = 0\.8: .* of 30 would be cut off in a window of 160"
    ):
        prepare(many)
    prepare(many.with_(**{"probe.scope": "headline"}))
