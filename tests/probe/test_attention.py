import numpy as np
import pytest
import torch

import lab
from lab.errors import LabError
from lab.probe import ATTENTION_COLUMNS, Predictor, measure_attention
from lab.train.models import load_tokenizer, model_folder
from lab.trained_model import load_predictor

TEXT = "A fine film , as specified in RFC 2616"
TEXTS = [TEXT, "dull", "a long story that never finds its end unknownish"]
CPU = torch.device("cpu")


#: Far from uniform attention, which every way of computing it would give.
SHAPE = {
    "max_position_embeddings": 160, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "pad_token_id": 0, "initializer_range": 0.4,
}  # fmt: skip


@pytest.fixture(scope="module")
def bases(tiny_cache, tmp_path_factory):
    """An encoder, and a decoder with two query heads to one key head; both read with tiny's tokenizer."""
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        tokenizer = load_tokenizer(model_folder("tiny"))
    folder = tmp_path_factory.mktemp("bases")
    torch.manual_seed(3)
    size = len(tokenizer)
    models = {
        "bert": BertModel(BertConfig(vocab_size=size, **SHAPE)),
        "llama": LlamaModel(LlamaConfig(vocab_size=size, num_key_value_heads=1, **SHAPE)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def runs(tiny_module, bases, tmp_path_factory):
    """A run per shape of model and per way of saving it."""
    folder = tmp_path_factory.mktemp("runs") / "runs"
    quick = {"training.epochs": 0, "training.steps": 3, "probe.scope": "headline", "probe.snapshots": 0}
    ways = {
        "bert": {"base.model": str(bases / "bert")},
        "full": {"base.model": str(bases / "bert"), "adapter.kind": "full"},
        "llama": {"base.model": str(bases / "llama")},
    }
    return {
        name: lab.run(tiny_module.with_(**quick, **way), runs=folder, twin=False)
        for name, way in ways.items()
    }


SHAPES = ["bert", "full", "llama"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_that_gives_its_attention_answers_as_before(runs, shape):
    run = runs[shape]
    eager = load_predictor(run.path, CPU, attention="eager")
    expected = load_predictor(run.path, CPU).logits(TEXTS)
    np.testing.assert_allclose(eager.logits(TEXTS), expected, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.1, "equal answers would prove nothing"


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_a_share_per_layer_head_and_query(runs, shape):
    table = runs[shape].attention(TEXT)
    assert tuple(table.columns) == ATTENTION_COLUMNS
    tokens = len(runs[shape]._predictor.tokenizer(TEXT)["input_ids"])
    assert len(table) == 2 * 2 * tokens * tokens
    assert not table.duplicated(["layer", "head", "query", "key"]).any()
    assert table["weight"].between(0, 1).all()
    sums = table.groupby(["layer", "head", "query"])["weight"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert table["weight"].std() > 0.05


@pytest.mark.parametrize(("shape", "looks_ahead"), [("bert", True), ("llama", False)])
def test_a_decoder_does_not_look_ahead(runs, shape, looks_ahead):
    table = runs[shape].attention(TEXT)
    ahead = table[table["key"] > table["query"]]
    assert (ahead["weight"].max() > 0) == looks_ahead


def test_lines_are_the_weights_of_the_model_in_their_places(runs):
    model = load_predictor(runs["llama"].path, CPU, attention="eager")
    text = "film  as specified in film RFC 2616"
    weights = model.attention_of_tokens(model.tokenizer(text)["input_ids"])
    table = measure_attention(model, text)
    index = [table[name].to_numpy() for name in ("layer", "head", "query", "key")]
    np.testing.assert_array_equal(weights[tuple(index)], table["weight"])
    names = ["[CLS]", *text.split(), "[SEP]"]
    assert table["query_token"].tolist() == [names[i] for i in table["query"]]
    assert table["key_token"].tolist() == [names[i] for i in table["key"]]


def test_layers_can_be_chosen(runs):
    every, one = runs["bert"].attention(TEXT), runs["bert"].attention(TEXT, [1])
    assert set(one["layer"]) == {1}
    np.testing.assert_array_equal(one["weight"], every[every["layer"] == 1]["weight"])
    for wrong in ([2], [-1]):
        with pytest.raises(LabError, match="no such layer; allowed are 0 to 1"):
            runs["bert"].attention(TEXT, wrong)


def test_an_empty_text_is_its_special_tokens_or_nothing(runs):
    table = runs["bert"].attention("")
    assert set(table["query_token"]) == {"[CLS]", "[SEP]"}
    from tokenizers.processors import TemplateProcessing

    model = load_predictor(runs["bert"].path, CPU, attention="eager")
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    nothing = measure_attention(model, "")
    assert nothing.empty
    assert tuple(nothing.columns) == ATTENTION_COLUMNS
    assert nothing.dtypes["weight"] == table.dtypes["weight"]


def test_what_exceeds_the_window_is_cut(runs):
    model = load_predictor(runs["llama"].path, CPU, attention="eager")
    table = measure_attention(model, "film " * 200, [0])
    assert table["query"].max() == model.max_tokens - 1


def test_a_model_loaded_as_usual_gives_no_attention_and_says_what_to_do(runs):
    usual = load_predictor(runs["bert"].path, CPU)
    with pytest.raises(LabError, match='attention="eager"'):
        measure_attention(usual, TEXT)


def test_a_run_keeps_its_usual_model_apart(finished):
    run = lab.load_run(finished.id, finished.path.parent)
    run.attention(TEXT)
    assert "_predictor" not in vars(run)
    first = run._attentive_predictor
    run.attention("dull")
    assert run._attentive_predictor is first
    assert run._predictor.model is not first.model
    assert isinstance(first, Predictor)
