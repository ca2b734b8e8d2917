import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.spectra.lora_shift import expected_largest, expected_scale, lora_shift, paper_entropy


def drawn(rank, width, variance=1.0, seed=0, kind="gaussian"):
    rng = torch.Generator().manual_seed(seed)
    std = math.sqrt(variance / width)
    if kind == "gaussian":
        return torch.randn(rank, width, generator=rng, dtype=torch.float64) * std
    return (torch.rand(rank, width, generator=rng, dtype=torch.float64) * 2 - 1) * math.sqrt(3) * std


@given(st.integers(1, 8), st.integers(0, 12), st.floats(0.01, 4), st.floats(0.1, 3), st.integers(0, 99))
def test_eigenvalues_are_those_of_the_dense_matrix(rank, more, variance, scaling, seed):
    width = rank + more
    A = drawn(rank, width, variance, seed)
    shift = lora_shift(A, scaling)
    dense = np.linalg.eigvalsh((scaling**2 * A.T @ A).numpy() - np.eye(width))[::-1]
    every = np.concatenate([shift.own, np.full(width - rank, -1.0)])
    np.testing.assert_allclose(every, dense, atol=1e-9 * scaling**2 * max(1, variance))
    assert shift.largest == pytest.approx(dense[0], abs=1e-9 * scaling**2 * max(1, variance))
    assert shift.mean_scale == pytest.approx(dense.mean() + 1)


def test_the_share_below_zero_counts_what_a_leaves_out():
    shift = lora_shift(torch.diag(torch.tensor([2.0, 0.5, 0.1]))[:2], 1.0)
    np.testing.assert_allclose(shift.own, [3, -0.75])
    assert shift.share_negative == pytest.approx(2 / 3)
    assert lora_shift(torch.eye(3), 1.0).share_negative == 0, "zero is not below zero: LoRA is full tuning"


def test_the_scaling_counts_squared():
    A = drawn(4, 32)
    np.testing.assert_allclose(lora_shift(A, 2.0).own + 1, 4 * (lora_shift(A, 1.0).own + 1), rtol=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "kaiming"])
def test_drawn_matrices_have_the_expected_scale_and_edge(kind):
    rank, width, variance, scaling = 16, 384, 1 / 3, 2.0
    made = [lora_shift(drawn(rank, width, variance, seed, kind), scaling) for seed in range(20)]
    scale = np.mean([s.mean_scale for s in made])
    assert scale == pytest.approx(expected_scale(rank, variance, width, scaling), rel=0.02)
    edge = np.mean([s.largest for s in made]) + 1
    expected = expected_largest(rank, variance, width, scaling) + 1
    assert edge < expected, "finite matrices stay below the law's edge"
    assert edge == pytest.approx(expected, rel=0.08)


def test_the_papers_condition_holds_on_average_and_not_for_one_draw():
    """σ_a² just below 1/n_in and r ≤ n_in: the mean is below the identity, one A is not."""
    rank, width = 64, 128
    assert expected_scale(rank, 0.99, width, 1.0) < 1
    assert lora_shift(drawn(rank, width, 0.99), 1.0).largest > 1
    assert expected_scale(width, 1.0, width, 1.0) == 1, "Corollary 3.5"


@pytest.mark.parametrize("kind", ["gaussian", "kaiming"])
def test_the_papers_closed_forms_are_sums_over_the_diagonal(kind):
    rank, width, variance = 5, 24, 0.7
    made = torch.stack([drawn(rank, width, variance, seed, kind) for seed in range(3000)])
    diagonal = made.square().sum(dim=1)
    first, second = diagonal.sum(dim=1).mean(), diagonal.square().sum(dim=1).mean()
    assert paper_entropy(1, rank, variance, width, kind) / 1e10 == pytest.approx(math.log(first), abs=0.01)
    assert paper_entropy(2, rank, variance, width, kind) == pytest.approx(math.log(second), abs=0.02)


def test_what_the_paper_has_no_form_for_is_refused():
    with pytest.raises(LabError, match="closed forms for 1 and 2"):
        paper_entropy(3, 4, 1.0, 32)
    with pytest.raises(LabError, match=r"'pissa'.*Valid: gaussian, kaiming"):
        paper_entropy(1, 4, 1.0, 32, "pissa")
    with pytest.raises(LabError, match="4 rows and 3 columns"):
        lora_shift(torch.zeros(4, 3), 1.0)
