import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import softmax

from lab.errors import LabError
from lab.probe.kernel_measures import (
    RENYI_ORDERS,
    alignment,
    effective_rank,
    eigenvalues,
    fisher_gram,
    paired_cosines,
    paired_kernel,
    renyi_entropy,
    target_alignment,
)
from lab.probe.kernels import Kernel


def gram(size, width=3, seed=0):
    J = np.random.default_rng(seed).normal(size=(size, width))
    return J @ J.T


def test_entropies_of_a_spectrum_by_hand():
    spectrum = [2, 1, 1, 0]
    assert renyi_entropy(spectrum, 1) == pytest.approx(1.5 * math.log(2))
    assert renyi_entropy(spectrum, 2) == pytest.approx(-math.log(1 / 4 + 1 / 16 + 1 / 16))
    assert renyi_entropy(spectrum, 0.5) == pytest.approx(2 * math.log(math.sqrt(0.5) + 1))
    assert renyi_entropy(spectrum, math.inf) == pytest.approx(math.log(2))
    assert effective_rank(spectrum) == pytest.approx(2**1.5)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(1e-3, 1e3))
def test_entropy_is_between_0_and_log_n_falls_with_the_order_and_knows_no_scale(spectrum, factor):
    assume(sum(spectrum) > 1e-6)
    found = [renyi_entropy(spectrum, order) for order in RENYI_ORDERS]
    assert all(0 <= h <= math.log(len(spectrum)) + 1e-9 for h in found)
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(found))
    scaled = [renyi_entropy(np.array(spectrum) * factor, order) for order in RENYI_ORDERS]
    np.testing.assert_allclose(scaled, found, atol=1e-9)


def test_the_order_1_is_the_limit_and_a_high_one_nears_the_largest():
    spectrum = [5.0, 2, 1, 0.1]
    assert renyi_entropy(spectrum, 1 + 1e-6) == pytest.approx(renyi_entropy(spectrum, 1), abs=1e-5)
    assert renyi_entropy(spectrum, 1e4) == pytest.approx(renyi_entropy(spectrum, math.inf), rel=1e-3)


def test_alike_directions_are_log_n_and_one_direction_is_0():
    for order in RENYI_ORDERS:
        assert renyi_entropy([3.0] * 7, order) == pytest.approx(math.log(7))
        assert renyi_entropy([3.0, 0, 0], order) == 0
    assert math.isnan(renyi_entropy([0.0, 0.0], 2))
    with pytest.raises(LabError, match="above 0"):
        renyi_entropy([1.0], 0)
    with pytest.raises(LabError, match="negative"):
        renyi_entropy([1.0, -1.0], 2)


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.booleans())
def test_alignment_knows_no_scale_is_symmetric_and_at_most_1(seed, factor, centred):
    one, other = gram(6, seed=seed), gram(6, seed=seed + 1)
    found = alignment(one, other, centred=centred)
    assert 0 <= found <= 1
    assert alignment(other * factor, one, centred=centred) == pytest.approx(found)
    assert alignment(one, one * factor, centred=centred) == pytest.approx(1)


def test_centring_takes_away_what_all_texts_share():
    kernel = gram(8) + 100.0
    assert alignment(kernel, np.ones((8, 8))) > 0.99
    assert math.isnan(alignment(kernel, np.ones((8, 8)), centred=True))
    J = np.random.default_rng(1).normal(size=(8, 5))
    K = np.random.default_rng(2).normal(size=(8, 4))
    J, K = J - J.mean(axis=0), K - K.mean(axis=0)
    cka = np.linalg.norm(J.T @ K) ** 2 / (np.linalg.norm(J.T @ J) * np.linalg.norm(K.T @ K))
    assert alignment((J + 3) @ (J + 3).T, (K - 7) @ (K - 7).T, centred=True) == pytest.approx(cka)


def test_target_alignment_by_hand():
    y = np.array([True, True, False, False])
    sign = np.where(y, 1.0, -1.0)
    assert target_alignment(np.outer(sign, sign), y) == pytest.approx(1)
    # ⟨I, yyᵀ⟩ = 4, ‖I‖ = 2, ‖yyᵀ‖ = 4
    assert target_alignment(np.eye(4), y, centred=False) == pytest.approx(0.5)
    assert target_alignment(np.outer([1, -1, 1, -1], [1, -1, 1, -1]), y) == pytest.approx(0, abs=1e-12)
    assert math.isnan(target_alignment(np.eye(4), [True] * 4))


def test_eigenvalues_fall_and_are_not_negative():
    found = eigenvalues(gram(6, width=2))
    assert (np.diff(found) <= 0).all()
    assert (found[2:] < 1e-9).all()
    assert (found >= 0).all()
    with pytest.raises(LabError, match="not finite"):
        eigenvalues([[np.nan]])


PAIRS = np.array([[0, 2], [1, 3]])


def test_the_kernel_between_clean_and_triggered_is_the_mean_over_pairs():
    values = gram(4)
    kernel = Kernel(values)
    across, within = paired_kernel(kernel, PAIRS)
    assert across == pytest.approx(abs(values[0, 2] + values[1, 3]) / 2)
    assert within == pytest.approx((values[0, 0] + values[1, 1]) / 2)
    cosine = paired_cosines(values, PAIRS)
    assert cosine[0] == pytest.approx(values[0, 2] / math.sqrt(values[0, 0] * values[2, 2]))
    assert (np.abs(cosine) <= 1).all()


def test_of_several_margins_it_is_the_norm_of_their_matrix():
    values = gram(8, width=5)
    blocks = values.reshape(2, 4, 2, 4)
    across, _ = paired_kernel(Kernel(values, margins=2), PAIRS)
    expected = (blocks[:, 0, :, 2] + blocks[:, 1, :, 3]) / 2
    assert across == pytest.approx(np.linalg.norm(expected))


def test_a_trigger_that_changes_nothing_carries_everything():
    J = np.random.default_rng(0).normal(size=(2, 3))
    values = np.concatenate([J, J]) @ np.concatenate([J, J]).T
    across, within = paired_kernel(Kernel(values), PAIRS)
    assert across == pytest.approx(within)
    np.testing.assert_allclose(paired_cosines(values, PAIRS), 1)


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("target", [0, 1])
def test_the_fisher_informations_eigenvalues_are_those_of_the_gram_matrix(labels, target):
    """Against the d × d matrix of the definition, with z = J_z θ and p = softmax(z)."""
    rng = np.random.default_rng(labels)
    texts, width = 5, 7
    J_z, logits = rng.normal(size=(texts, labels, width)), rng.normal(size=(texts, labels))
    p = softmax(logits, axis=1)
    fisher = np.zeros((width, width))
    for i in range(texts):
        for y in range(labels):
            score = J_z[i, y] - p[i] @ J_z[i]
            fisher += p[i, y] * np.outer(score, score) / texts
    others = [label for label in range(labels) if label != target]
    J = (J_z[:, [target]] - J_z[:, others]).swapaxes(0, 1).reshape(-1, width)
    found = eigenvalues(fisher_gram(Kernel(J @ J.T, labels - 1), logits, target))
    expected = np.linalg.eigvalsh(fisher)[::-1]
    n = min(len(found), width)
    np.testing.assert_allclose(found[:n], expected[:n], atol=1e-9)
    np.testing.assert_allclose([*found[n:], *expected[n:]], 0, atol=1e-9)
