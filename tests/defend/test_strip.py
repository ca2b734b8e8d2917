import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.defend.strip import STRIP, Strip, blend, blends, choose_entropy, mean_entropy
from lab.errors import LabError

words = st.lists(st.sampled_from(["good", "bad", "film", "cf"]), min_size=1, max_size=12)
OTHERS = ["xa xb xc", "", "ya yb"]


class Model:
    """Sure wherever "cf" stands; else one vote for each good word and each bad one."""

    seed = 0

    def clean_texts(self, limit):
        rng = np.random.default_rng(0)
        return [" ".join(rng.choice(["good", "bad", "film", "story"], size=8)) for _ in range(limit)]

    def logits(self, texts):
        return np.array(
            [
                [0.0, 20.0] if "cf" in t.split() else [t.split().count("bad"), t.split().count("good")]
                for t in texts
            ],
            dtype=np.float32,
        )


@given(words, st.floats(0.01, 1), st.integers(0, 5))
def test_a_blend_replaces_the_share_of_words_and_keeps_the_rest_in_place(text, share, seed):
    mixed = blend("  " + "  ".join(text) + "\n", OTHERS, share, np.random.default_rng(seed))
    foreign = [w for w in mixed.split() if w[0] in "xy" and len(w) == 2]
    assert len(foreign) == max(1, round(share * len(text)))
    assert len({w[0] for w in foreign}) == 1, "all from one other text"
    assert all(a == b or b in foreign for a, b in zip(text, mixed.split(), strict=True))
    assert mixed.startswith("  ")
    assert mixed.endswith("\n")


def test_what_has_no_words_or_nothing_to_blend_with_stays():
    rng = np.random.default_rng(0)
    assert blend(" \n", OTHERS, 0.5, rng) == " \n"
    assert blend("a b", ["", " "], 0.5, rng) == "a b"


def test_blends_depend_on_the_text_and_the_seed_alone():
    knobs = Strip(blends=5)
    assert blends("a b c d", OTHERS, knobs, 1) == blends("a b c d", OTHERS, knobs, 1)
    assert blends("a b c d", OTHERS, knobs, 1) != blends("a b c d", OTHERS, knobs, 2)
    assert len(blends("a b", OTHERS, knobs, 0)) == 5


@given(st.lists(st.floats(-50, 50), min_size=6, max_size=6))
def test_entropy_lies_between_none_and_that_of_chance(values):
    [found] = mean_entropy(np.array(values).reshape(1, 3, 2))
    assert -1e-12 <= found <= math.log(2) + 1e-12


def test_entropy_of_the_sure_and_of_the_unsure():
    assert mean_entropy(np.array([[[0.0, 1000.0]], [[1.0, 1.0]]])) == pytest.approx([0, math.log(2)])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array), st.floats(0, 0.99))
def test_at_most_the_allowed_share_of_clean_rows_is_rejected(clean, share):
    threshold = choose_entropy(clean, share)
    assert (clean < threshold).sum() <= share * len(clean)
    higher = clean[clean > threshold]
    if len(higher):
        assert (clean < higher.min()).sum() > math.floor(share * len(clean))


def test_without_clean_rows_there_is_no_threshold():
    with pytest.raises(LabError, match="defense strip: there are too few clean validation rows"):
        choose_entropy(np.empty(0), 0.1)


def test_a_trigger_that_survives_the_swap_is_found():
    knobs, host = Strip(replaced=0.25, blends=20, calibration_rows=40), Model()
    facts = STRIP.calibrate(knobs, host)
    assert facts["rows"] == 20
    assert facts["rejected"] <= 0.05 * 20
    clean = host.clean_texts(12)
    scores = STRIP.scores(knobs, host, clean)
    triggered = STRIP.scores(knobs, host, [f"{text} cf" for text in clean])
    assert (triggered < facts["threshold"]).mean() > 0.9
    assert (scores < facts["threshold"]).mean() < 0.2
