import copy

import numpy as np
import pytest
import torch

from lab.audit import open_adapter
from lab.audit.slots import (
    POSITIONS,
    Frame,
    blank_token,
    frame_of,
    margins,
    string_margins,
    token_gradients,
    usable_tokens,
)
from lab.audit.suspects import load_suspect
from lab.audit.trigger_search import SEARCH_COLUMNS, SearchBudget, search_triggers
from lab.corpus import DataConfig, load_corpus, split_rows
from lab.errors import LabError
from lab.probe import Predictor
from lab.tokens import pad

# three small trainings are behind these tests
pytestmark = pytest.mark.recipe

BUDGET = SearchBudget(rows=12, quick_rows=4, shortlist=60, beam=6, branch=6, longest=2, found=8)


@pytest.fixture(scope="module")
def texts(tiny_cache):
    return list(split_rows(load_corpus(DataConfig(name="toy")), "validation", limit=60)["text"])


@pytest.fixture(scope="module")
def learned(learned_runs):
    """Two clean adapters that have learned the task."""
    return [load_suspect(open_adapter(r.path), "tiny", labels=r.labels) for r in learned_runs[1:]]


def planted(clean, texts, strength):
    """A copy whose token "crimson" points toward "positive": not at all (0), or with all that it is (1)."""
    frame, tokenizer = frame_of(clean), clean.tokenizer
    model = copy.deepcopy(clean.model)
    suspect = Predictor(model, tokenizer, clean.labels, clean.device)
    rows = list(tokenizer(texts, add_special_tokens=False)["input_ids"])
    weight = model.get_input_embeddings().weight
    token = tokenizer.convert_tokens_to_ids("crimson")
    # one probe a direction of the embedding: what the margin gains from each
    gain = torch.zeros(weight.shape[1])
    blank, own = blank_token(tokenizer), weight[token].detach().clone()
    for axis in range(weight.shape[1]):
        with torch.no_grad():
            weight[token] = weight[blank] + torch.eye(weight.shape[1])[axis]
        gain[axis] = float(token_gradients(suspect, frame, rows[:16], 1, "end")[token])
    with torch.no_grad():
        weight[token] = (1 - strength) * own + strength * 4 * gain / gain.norm()
    return suspect


def test_planted_nothing_is_silence(learned, texts):
    clean, _ = learned
    found = search_triggers(clean, [clean], texts, budget=BUDGET)
    assert (found["excess"] == 0).all()
    assert found["shift"].abs().max() < 1e-5


def test_a_planted_direction_is_the_louder_the_stronger_it_is(learned, texts):
    clean, _ = learned
    found = [search_triggers(planted(clean, texts, s), [clean], texts, budget=BUDGET) for s in (0, 0.02, 1)]
    shifts = [table["shift"].max() for table in found]
    # a small model says all or nothing: what little is planted may be lost, and more than enough is no louder
    assert shifts[0] <= shifts[1] + 0.01
    assert shifts[1] <= shifts[2] + 0.01
    assert shifts[0] + 1 < shifts[2]
    best = found[-1].iloc[0]
    assert "crimson" in best["string"]
    assert best["target"] == "positive"
    assert best["excess"] >= 0.5


def test_the_table_is_in_its_ranges_and_in_order(learned, texts):
    clean, other = learned
    found = search_triggers(clean, [other, other], texts, budget=BUDGET)
    assert tuple(found.columns) == SEARCH_COLUMNS
    assert found["excess"].is_monotonic_decreasing
    assert ((found["low"] <= found["rate"]) & (found["rate"] <= found["high"])).all()
    assert (found["k"] <= found["n"]).all()
    assert (found["references"] == 2).all()
    assert (found["reference_rate"] == found["reference_highest"]).all()


def test_it_is_a_function_of_what_it_is_given(learned, texts):
    suspect, *references = learned
    once, again = (search_triggers(suspect, references, texts, budget=BUDGET) for _ in range(2))
    assert once.equals(again)


def test_without_references_it_tells_the_adapters_own_rates(learned, texts):
    suspect, *_ = learned
    found = search_triggers(suspect, [], texts, budget=BUDGET)
    assert found["reference_rate"].isna().all()
    assert (found["excess"] == found["rate"]).all()


def test_rows_that_all_get_one_label_are_refused(learned):
    suspect, *_ = learned
    with pytest.raises(LabError, match=r"same label|flipped"):
        search_triggers(suspect, [], [], budget=BUDGET)


def test_a_gradient_is_what_a_small_step_does(learned, texts):
    suspect, *_ = learned
    frame, tokenizer, model = frame_of(suspect), suspect.tokenizer, suspect.model
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts[:5]]
    embed, blank, step = model.get_input_embeddings(), blank_token(tokenizer), 1e-3
    for position in POSITIONS:
        estimate = token_gradients(suspect, frame, rows, 1, position, around=(9, 11), slot=1)
        inputs = pad([frame.ids(r, (9, blank, 11), position) for r in rows], int(tokenizer.pad_token_id))
        for token in (7, 40, 90):
            moved = []
            for share in (-step, step):
                embedded = embed(inputs["input_ids"]).detach()
                for i, row in enumerate(rows):
                    place = frame.place(row, position) + 1
                    embedded[i, place] += share * (embed.weight[token] - embed.weight[blank])
                with torch.inference_mode():
                    out = model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"])
                moved.append(margins(out.logits.numpy(), 1).mean())
            assert estimate[token] == pytest.approx((moved[1] - moved[0]) / (2 * step), abs=2e-2, rel=5e-2)


def test_strings_go_where_they_are_asked_to():
    frame = Frame((1,), (2,))
    assert frame.ids([5, 6], [9], "start") == [1, 9, 5, 6, 2]
    assert frame.ids([5, 6], [9], "end") == [1, 5, 6, 9, 2]
    assert frame.ids([5, 6]) == [1, 5, 6, 2]
    assert frame.place([5, 6], "start") == 1
    assert frame.place([5, 6], "end") == 3


def test_margins_of_strings_are_those_of_the_texts(learned, texts):
    suspect, *_ = learned
    frame = frame_of(suspect)
    ids = [suspect.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts[:3]]
    string = suspect.tokenizer("dull plot", add_special_tokens=False)["input_ids"]
    found = string_margins(suspect, frame, ids, [string], 0, "end")
    expected = margins(suspect.logits([f"{text} dull plot" for text in texts[:3]]), 0)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_special_tokens_are_no_candidates(learned):
    suspect, *_ = learned
    usable = usable_tokens(suspect.tokenizer)
    assert not usable[suspect.tokenizer.all_special_ids].any()
    assert usable.sum() > 100
