"""Laws of causal patching, on tiny models that differ in a place one knows."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_predictor

from lab.errors import LabError
from lab.probe import PATCHING_COLUMNS, PatchedPair, Predictor, patching
from lab.probe.exchanges import recorded, replayed, swapped
from lab.probe.patching import DIRECTIONS, METHODS

LABELS = ("negative", "neutral", "positive")
TEXTS = [f"{words} , as specified in RFC 2616" for words in (
    "a fine film", "the plot was awful", "dull", "a weak and long story that goes on", "lovely", "he said so",
)]  # fmt: skip
#: In the model's order, without the layers.
PROJECTIONS = [
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "intermediate.dense", "output.dense",
]  # fmt: skip


def linear(layer, projection):
    return f"bert.encoder.layer.{layer}.{projection}"


MODULES = [linear(layer, projection) for layer in (0, 1) for projection in PROJECTIONS]


@pytest.fixture(scope="module")
def twin(tiny_cache):
    return tiny_predictor(tiny_cache, LABELS, reacting=True)


def planted(twin, *modules):
    """The same model with other weights in these modules."""
    model = copy.deepcopy(twin.model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in modules:
            weight = model.get_submodule(name).weight
            weight.add_(torch.randn(weight.shape, generator=generator))
    return Predictor(model, twin.tokenizer, LABELS, twin.device)


def backdoored(twin, module, target):
    """The same model with one matrix trained until the triggered texts get the target."""
    from lab.tokens import pad

    model = copy.deepcopy(twin.model)
    weight = model.get_submodule(module).weight
    inputs = pad(twin.reading.token_ids(TEXTS), int(twin.tokenizer.pad_token_id))
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(40):
        loss = -model(**inputs).logits.log_softmax(dim=1)[:, target].mean()
        (weight.grad,) = torch.autograd.grad(loss, [weight])
        optimizer.step()
    return Predictor(model, twin.tokenizer, LABELS, twin.device)


def pair_of(poisoned, twin, target=2):
    return PatchedPair(poisoned, twin, MODULES, twin.reading.token_ids(TEXTS), target)


def margin(predictor):
    logits = predictor.logits_of_tokens(predictor.reading.token_ids(TEXTS))
    return np.mean(logits[:, 2] - logits[:, :2].max(axis=1))


def ends(table):
    """The unpatched mean margins of the poisoned model and the twin."""
    alone = table[table["projection"] == "none"].set_index("direction")["mean_margin"]
    return alone["twin into poisoned"], alone["poisoned into twin"]


def states(*predictors):
    return [{n: p.clone() for n, p in x.model.state_dict().items()} for x in predictors]


def untouched(before, *predictors):
    for state, predictor in zip(before, predictors, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in predictor.model.state_dict().items())
        assert not any(module._forward_hooks for module in predictor.model.modules())


@pytest.mark.parametrize("method", METHODS)
def test_a_models_own_part_changes_nothing(twin, method):
    table = pair_of(copy.deepcopy(twin), twin).table(method)
    assert table["k"].nunique() == 1
    assert table["mean_margin"].tolist() == [table["mean_margin"][0]] * len(table)
    assert table["effect"].isna().all(), "no share of no difference"


@pytest.mark.parametrize("method", METHODS)
def test_everything_of_the_other_model_makes_it_the_other(twin, method):
    pair = pair_of(planted(twin, *MODULES), twin)
    table = pair.table(method, projections=["all-linear"], width=2)
    poisoned, clean = ends(table)
    assert abs(poisoned - clean) > 0.1, "models that answer alike would prove nothing"
    patched = table[table["projection"] == "all-linear"].set_index("direction")["mean_margin"]
    assert patched["twin into poisoned"] == pytest.approx(clean, abs=1e-4)
    assert patched["poisoned into twin"] == pytest.approx(poisoned, abs=1e-4)


def test_the_head_is_no_projection_and_stays_the_recipients_own(twin):
    pair = pair_of(planted(twin, *MODULES, "classifier"), twin)
    assert pair.rows("activations") == [*PROJECTIONS, "all-linear"]
    assert pair.rows("weights") == [*PROJECTIONS, "all-linear", "head"]
    margins = [pair.table(m, projections=["all-linear"], width=2)["mean_margin"] for m in METHODS]
    np.testing.assert_allclose(*margins, atol=1e-4)
    # the donor's states, read by the twin's own head
    assert margins[0].iloc[-1] == pytest.approx(margin(planted(twin, *MODULES)), abs=1e-4)
    head = pair.table("weights", projections=["head"])
    assert head["first_layer"].tolist() == [-1] * 4
    assert head["mean_margin"].iloc[1] == pytest.approx(margin(planted(twin, *MODULES)), abs=1e-4)


def test_what_else_differs_after_full_fine_tuning_has_a_row_of_its_own(twin):
    pair = pair_of(planted(twin, MODULES[0], "bert.embeddings.word_embeddings"), twin)
    assert pair.rows("weights")[-1] == "rest"
    rest = pair.table("weights", projections=["rest"])
    assert rest["mean_margin"].iloc[1] == pytest.approx(margin(planted(twin, MODULES[0])), abs=1e-4)


@pytest.mark.parametrize("where", [MODULES[0], MODULES[4], MODULES[-1]])
def test_a_difference_in_one_module_shows_where_it_is_and_nowhere_else(twin, where):
    pair = pair_of(planted(twin, where), twin)
    for method in METHODS:
        table = pair.table(method, width=1)
        poisoned, clean = ends(table)
        assert abs(poisoned - clean) > 1e-2, "models that answer alike would prove nothing"
        for line in table[table["projection"] != "none"].to_dict("records"):
            into_poisoned = line["direction"] == DIRECTIONS[0]
            donor, recipient = (clean, poisoned) if into_poisoned else (poisoned, clean)
            chosen = PROJECTIONS if line["projection"] == "all-linear" else [line["projection"]]
            part = [linear(line["first_layer"], name) for name in chosen]
            if where in part:
                assert line["mean_margin"] == pytest.approx(donor, abs=1e-4), line
            # activations carry what was done before them: what comes later may have an effect as well
            elif method == "weights" or MODULES.index(part[-1]) < MODULES.index(where):
                assert line["mean_margin"] == pytest.approx(recipient, abs=1e-4), line


def test_a_planted_backdoor_is_in_one_row_of_the_map(twin):
    """The whole share lies in the last matrix, and every other part has none of it, in both directions."""
    clean = twin.predict(TEXTS)
    target = min(range(3), key=lambda i: clean.count(LABELS[i]))
    poisoned = backdoored(twin, MODULES[-1], target)
    assert set(poisoned.predict(TEXTS)) == {LABELS[target]}, "the backdoor has to be there"
    table = pair_of(poisoned, twin, target).table(width=1).set_index("direction")
    holds = (table["projection"].isin(["output.dense", "all-linear"])) & (table["last_layer"] == 1)
    needed, enough = (table.loc[direction] for direction in DIRECTIONS)
    assert needed["effect"].tolist() == [0.0 if held else 1.0 for held in holds.loc["twin into poisoned"]]
    assert enough["effect"].tolist() == [1.0 if held else 0.0 for held in holds.loc["poisoned into twin"]]


def test_every_part_has_one_line_with_counts_and_interval(twin):
    table = pair_of(planted(twin, *MODULES), twin).table(width=1)
    assert tuple(table.columns) == PATCHING_COLUMNS
    key = ["direction", "projection", "first_layer", "last_layer"]
    assert not table.duplicated(key).any()
    wanted = [("none", -1, -1), *((p, n, n) for p in [*PROJECTIONS, "all-linear"] for n in (0, 1))]
    for direction in DIRECTIONS:
        lines = table[table["direction"] == direction]
        assert [tuple(line) for line in lines[key[1:]].to_numpy().tolist()] == wanted
    assert (table["n"] == len(TEXTS)).all()
    assert (table["asr"] == table["k"] / table["n"]).all()
    assert ((table["low"] <= table["asr"]) & (table["asr"] <= table["high"])).all()


def test_both_models_are_left_as_they_were_also_after_a_break(twin):
    poisoned = planted(twin, *MODULES, "classifier")
    before = states(poisoned, twin)
    pair = pair_of(poisoned, twin)
    for method in METHODS:
        pair.table(method, width=1, projections=["query", "all-linear"])
        untouched(before, poisoned, twin)

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pair.table(method, on_progress=stop)
        untouched(before, poisoned, twin)
    with pytest.raises(ZeroDivisionError), swapped(poisoned.model, twin.model, MODULES):
        _ = 1 / 0
    untouched(before, poisoned, twin)


def test_in_several_parts_memory_is_bounded_and_the_answers_are_the_same(twin, monkeypatch):
    pair = pair_of(planted(twin, *MODULES), twin)
    whole = pair.table(width=1)
    asked = []
    ask = Predictor.logits_of_tokens
    monkeypatch.setattr(
        Predictor, "logits_of_tokens", lambda self, ids, **k: asked.append(len(ids)) or ask(self, ids, **k)
    )
    monkeypatch.setattr(patching, "_KEPT_BYTES", 1)
    parts = pair.table(width=1)
    assert max(asked) == 1
    np.testing.assert_allclose(parts["mean_margin"], whole["mean_margin"], atol=1e-4)


def test_progress_counts_every_answer_of_every_part(twin):
    pair = pair_of(planted(twin, *MODULES), twin)
    for method in METHODS:
        told = []
        pair.table(method, projections=["query"], width=1, on_progress=lambda *n, told=told: told.append(n))
        assert told == [(6 * i, 24) for i in (1, 2, 3, 4)], "two layers, two directions, six texts"


def test_rows_may_be_groups_and_short_names(twin):
    pair = pair_of(planted(twin, *MODULES), twin)
    table = pair.table("weights", projections=["mlp", "query", "mlp"], directions=[DIRECTIONS[1]], width=2)
    assert table["projection"].tolist() == ["none", "mlp", "query"]
    assert table["mean_margin"].nunique() == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "weight"}, r"Unknown method of patching 'weight'\. Did you mean 'weights'"),
        ({"directions": ["both"]}, r"Unknown direction of patching 'both'"),
        ({"projections": ["gate"]}, r"patching: modules = 'gate' fits no module"),
        ({"projections": ["head"]}, r"'head' is no projection"),
        ({"projections": ["head"], "method": "weights"}, r"do not differ in a part that is called 'head'"),
        ({"width": 3}, r"width = 3; allowed are 1 to 2, and 0"),
        ({"width": -1}, r"width = -1"),
        ({"stride": 0}, r"stride = 0; it has to be 1 or more"),
    ],
)
def test_a_wrong_question_is_one_sentence(twin, asked, message):
    with pytest.raises(LabError, match=message):
        pair_of(planted(twin, MODULES[0]), twin).table(**asked)


def test_models_that_cannot_be_exchanged_are_refused(twin):
    ids = twin.reading.token_ids(TEXTS)
    wider = copy.deepcopy(twin.model)
    wider.classifier = torch.nn.Linear(32, 4)
    for other, message in (
        (Predictor(wider, twin.tokenizer, LABELS, twin.device), r"classifier\.weight is \(3, 32\) in one"),
        (Predictor(twin.model, twin.tokenizer, LABELS[::-1], twin.device), "the same labels, not negative"),
    ):
        with pytest.raises(LabError, match=message):
            PatchedPair(twin, other, MODULES, ids, 2)
    with pytest.raises(LabError, match="at least one triggered text"):
        PatchedPair(twin, twin, MODULES, [], 2)
    with pytest.raises(LabError, match="linear layers inside the model's blocks"):
        PatchedPair(twin, twin, [], ids, 2)


def test_activations_of_other_tokens_are_not_put_in(twin):
    ids = twin.reading.token_ids(TEXTS)
    with recorded(twin.model, MODULES) as kept:
        twin.logits_of_tokens(ids[:1])
    assert {len(calls) for calls in kept.values()} == {1}
    with replayed(twin.model, kept), pytest.raises(LabError, match="not called with the same tokens"):
        twin.logits_of_tokens(ids[1:2])
    assert not any(module._forward_hooks for module in twin.model.modules())


@given(layers=st.integers(1, 40), width=st.integers(0, 40), stride=st.integers(1, 50))
def test_windows_slide_to_the_last_layer(layers, width, stride):
    numbers = list(range(layers))
    if width > layers:
        with pytest.raises(LabError):
            patching._windows(numbers, width, stride)
        return
    windows = patching._windows(numbers, width, stride)
    width = width or patching.default_width(layers)
    assert windows[0][0] == 0
    assert windows[-1][-1] == layers - 1
    assert all(window == list(range(window[0], window[0] + width)) for window in windows)
    starts = [window[0] for window in windows]
    assert starts == sorted(set(starts))
    assert all(b - a <= stride for a, b in itertools.pairwise(starts))


def test_the_default_window_is_the_papers_for_deep_models():
    assert [patching.default_width(n) for n in (1, 2, 6, 12, 28, 30)] == [1, 1, 2, 4, 4, 4]
