import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.probe.attention_entropy import (
    ENTROPIES,
    ENTROPY_COLUMNS,
    attention_entropies,
    attention_entropy_shift,
)


def test_entropies_by_hand():
    looks_at_itself, looks_at_one = np.eye(4), np.tile([1.0, 0, 0, 0], (4, 1))
    uniform, mixed = np.full((4, 4), 0.25), np.tile([0.5, 0.25, 0.25, 0], (4, 1))
    found = attention_entropies(np.stack([looks_at_itself, looks_at_one, uniform, mixed])[None])
    np.testing.assert_allclose(
        found["column_mean"], [[math.log(4), 0, math.log(4), 1.5 * math.log(2)]], atol=1e-12
    )
    np.testing.assert_allclose(found["per_query"], [[0, 0, math.log(4), 1.5 * math.log(2)]], atol=1e-12)


@given(st.integers(1, 8), st.integers(0, 10**6))
def test_the_entropy_of_the_mean_is_the_larger_one_and_at_most_log_n(tokens, seed):
    weights = np.random.default_rng(seed).dirichlet(np.full(tokens, 0.3), size=(2, 3, tokens))
    found = attention_entropies(weights)
    assert found["column_mean"].shape == (2, 3)
    assert (found["per_query"] <= found["column_mean"] + 1e-9).all()
    assert (found["column_mean"] <= math.log(tokens) + 1e-9).all()
    assert (found["per_query"] >= 0).all()


class Stub:
    """Gives each text its attention by its words: "flat" ones look everywhere, "sharp" ones at one token."""

    class Reading:
        @staticmethod
        def token_ids(texts):
            return [[1 if word == "sharp" else 0 for word in text.split()] for text in texts]

    reading = Reading()

    @staticmethod
    def attention_of_tokens(ids):
        n = len(ids)
        flat, sharp = np.full((n, n), 1 / n), np.zeros((n, n))
        sharp[:, 0] = 1
        return np.stack([flat, sharp if 1 in ids else flat])[None].astype(np.float32)


def test_a_trigger_that_draws_all_attention_lowers_the_entropy_of_its_head():
    clean = ["a b c d", "a b", "a b c"]
    injected = [f"{text} sharp" for text in clean]
    table = attention_entropy_shift(Stub(), clean, injected)
    assert tuple(table.columns) == ENTROPY_COLUMNS
    assert len(table) == 1 * 2 * len(ENTROPIES) * 2
    sharp = table[(table["head"] == 1) & (table["entropy"] == "column_mean")].set_index("unit")
    logs = np.log([4, 2, 3])
    assert sharp.loc["nats", "value"] == pytest.approx(-logs.mean(), abs=1e-6)
    assert sharp.loc["nats", "low"] <= -logs.mean() <= sharp.loc["nats", "high"] < 0
    assert sharp.loc["share", ["clean", "injected", "value"]].tolist() == pytest.approx([1, 0, -1], abs=1e-6)
    flat = table[(table["head"] == 0) & (table["unit"] == "share")]
    np.testing.assert_allclose(flat["value"], 0, atol=1e-6)
    nats = table[(table["head"] == 0) & (table["unit"] == "nats")]
    assert (nats["value"] > 0).all(), "in nats, length alone raises a flat head's entropy"
    assert set(table["n"]) == {3}


def test_a_text_of_one_token_has_no_share_and_two_texts_no_interval():
    table = attention_entropy_shift(Stub(), ["a", "a b"], ["a sharp", "a b sharp"])
    share = table[table["unit"] == "share"]
    assert set(share["n"]) == {1}
    assert table["low"].isna().all()
    assert table["value"].notna().all()


def test_texts_come_in_pairs():
    with pytest.raises(LabError, match="1 clean and 2 injected"):
        attention_entropy_shift(Stub(), ["a"], ["a b", "c d"])
    with pytest.raises(LabError, match="0 clean"):
        attention_entropy_shift(Stub(), [], [])
    with pytest.raises(LabError, match="without tokens"):
        attention_entropy_shift(Stub(), [""], ["a"])


def test_a_run_says_what_its_trigger_does_to_attention(finished):
    told = []
    table = finished.attention_entropy(rows=6, on_progress=lambda *done: told.append(done))
    assert set(table["n"]) == {6}
    assert told[-1] == (12, 12)
    assert sorted(set(zip(table["layer"], table["head"], strict=True))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    same = finished.attention_entropy(rows=6)
    assert same.equals(table)
    assert table["clean"].between(0, math.log(200)).all()


def test_a_clean_run_has_nothing_to_inject(finished):
    with pytest.raises(LabError, match="knows no trigger"):
        finished.twin.attention_entropy(rows=4)
