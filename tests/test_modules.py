"""Names of weight matrices in several families of models, and what people call several of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import NotTrainableError
from lab.modules import choose_modules, layer_index, module_groups, projection

BERT = [
    f"bert.encoder.layer.{i}.{part}"
    for i in range(12)
    for part in (
        "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
        "intermediate.dense", "output.dense",
    )
]  # fmt: skip
DISTILBERT = [
    f"distilbert.transformer.layer.{i}.{part}"
    for i in range(2)
    for part in (
        "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2",
    )
]  # fmt: skip
LLAMA = [
    f"model.layers.{i}.{part}"
    for i in range(12)
    for part in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    )
]  # fmt: skip
T5 = [
    f"transformer.encoder.block.{i}.layer.{part}"
    for i in range(2)
    for part in ("0.SelfAttention.q", "0.SelfAttention.v", "0.SelfAttention.o", "1.DenseReluDense.wi")
]
FAMILIES = {"bert": BERT, "distilbert": DISTILBERT, "llama": LLAMA, "t5": T5}


def choose(modules, wanted, **options):
    return choose_modules(modules, wanted, where="test", **options)


@pytest.mark.parametrize("modules", FAMILIES.values(), ids=FAMILIES)
def test_attention_and_mlp_share_out_all_linear(modules):
    assert choose(modules, "all-linear") == modules
    attention, mlp = choose(modules, "attention"), choose(modules, "mlp")
    assert sorted(attention + mlp) == sorted(modules)
    assert all("att" in m.lower() for m in attention)
    assert set(choose(modules, "query-value")) < set(attention)


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        ("bert", ("query", "value")),
        ("distilbert", ("q_lin", "v_lin")),
        ("llama", ("q_proj", "v_proj")),
        ("t5", (".q", ".v")),
    ],
)
def test_query_and_value_by_the_names_of_each_family(family, ends):
    chosen = choose(FAMILIES[family], "query-value")
    assert chosen == [m for m in FAMILIES[family] if m.endswith(ends)]


def test_names_fit_whole_parts_only():
    assert {layer_index(m) for m in choose(BERT, "layer.1")} == {1}
    assert {layer_index(m) for m in choose(LLAMA, "layers.11")} == {11}
    assert choose(BERT, "self.query") == choose(BERT, "query")
    assert choose(BERT, "layer.3.attention.self.query") == ["bert.encoder.layer.3.attention.self.query"]
    assert choose(BERT, BERT[5]) == [BERT[5]]
    assert len(choose(BERT, "output.dense")) == 24, "the attention's and the block's own"
    for part in ("quer", "uery", "layer.1.att", "ayer.1", "proj", ""):
        with pytest.raises(NotTrainableError, match="fits no module"):
            choose(BERT, part)


def test_last_layers_are_counted_from_the_end_by_number():
    assert {layer_index(m) for m in choose(BERT, "query", last_layers=3)} == {9, 10, 11}
    assert choose(BERT, "query", last_layers=12) == choose(BERT, "query")
    gaps = [m for m in BERT if layer_index(m) in (2, 10)]
    assert {layer_index(m) for m in choose(gaps, "mlp", last_layers=1)} == {10}


@settings(max_examples=30, deadline=None)
@given(
    wanted=st.lists(
        st.sampled_from(["query", "mlp", "layer.1", "layer.10", "attention", "output.dense"]), min_size=1
    ),
    last=st.integers(0, 12),
)
def test_what_is_chosen_is_a_union_in_the_models_order(wanted, last):
    kept = [m for m in BERT if layer_index(m) >= (12 - last if last else 0)]
    union = {m for name in wanted for m in choose(BERT, name)}
    expected = [m for m in kept if m in union]
    if expected:
        assert choose(BERT, wanted, last_layers=last) == expected
        assert choose(BERT, tuple(reversed(wanted)), last_layers=last) == expected
    else:
        with pytest.raises(NotTrainableError):
            choose(BERT, wanted, last_layers=last)


@pytest.mark.parametrize(
    ("wanted", "last", "message"),
    [
        ("quarry", 0, r"^test: modules = 'quarry' fits no module here\. Valid: all-linear, attention, mlp, "),
        (["query", "layer.12"], 0, r"modules = 'layer\.12' fits no module"),
        ([], 0, r"^test: modules is an empty list\. Valid: all-linear"),
        ("query", 13, r"^test: layers = 13, but only 12 layers are there; 0 takes all\.$"),
        (
            ["layer.0", "layer.1"],
            2,
            r"none of modules = \['layer\.0', 'layer\.1'\] lies in the last layers",
        ),
    ],
)
def test_what_fits_nothing_is_one_sentence(wanted, last, message):
    with pytest.raises(NotTrainableError, match=message) as caught:
        choose(BERT, wanted, last_layers=last)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_group_that_is_empty_is_not_offered():
    mlp_only = choose(LLAMA, "mlp")
    assert module_groups(projection(m) for m in mlp_only)["attention"] == set()
    with pytest.raises(NotTrainableError) as caught:
        choose(mlp_only, "query-value")
    assert "attention" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "index", "part"),
    [
        ("bert.encoder.layer.11.attention.self.query", 11, "attention.self.query"),
        ("model.layers.0.mlp.up_proj", 0, "mlp.up_proj"),
        ("transformer.encoder.block.3.layer.0.SelfAttention.q", 3, "layer.0.SelfAttention.q"),
        ("classifier", -1, "classifier"),
    ],
)
def test_layer_and_projection_of_a_name(name, index, part):
    assert layer_index(name) == index
    assert projection(name) == part
