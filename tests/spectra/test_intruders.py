import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.spectra import BaseSpectrum, DenseUpdate, FactoredUpdate, intruders
from lab.spectra.intruders import count_intruders, largest_cosines


def _spectrum(W, kept=None):
    U, sigma, Vt = torch.linalg.svd(W, full_matrices=False)
    return BaseSpectrum(sigma, U[:, :kept].contiguous(), Vt[:kept].contiguous())


def _by_dense_svd(W, update, kept=None, top=10):
    """The definition, to the letter."""
    U0, s0, V0 = torch.linalg.svd(W, full_matrices=False)
    U0, W_kept = U0[:, :kept], (U0[:, :kept] * s0[:kept]) @ V0[:kept]
    U, sigma, _ = torch.linalg.svd(W_kept + update.dense(), full_matrices=False)
    lead = U[:, :top][:, sigma[:top] > 1e-7 * sigma[0]]
    return (U0.t() @ lead).abs().amax(dim=0)


def _matrix(seed, *shape, decay=2.0):
    generator = torch.Generator().manual_seed(seed)
    M = torch.randn(*shape, generator=generator, dtype=torch.float64)
    U, _, Vt = torch.linalg.svd(M, full_matrices=False)
    # values well apart, so that "the ten largest" has one answer
    return (U * torch.logspace(0, -decay, len(Vt), dtype=torch.float64)) @ Vt


def _factors(seed, n_out, n_in, r, strength):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(n_out, r, generator=generator, dtype=torch.float64)
    right = torch.randn(r, n_in, generator=generator, dtype=torch.float64)
    return FactoredUpdate(left * (strength / torch.linalg.matrix_norm(left @ right, 2)), right)


@settings(deadline=None, max_examples=60)
@given(
    n_out=st.integers(2, 150), n_in=st.integers(2, 150), r=st.integers(1, 8), seed=st.integers(0, 10_000),
    strength=st.sampled_from([0.0, 0.01, 0.2, 1.0, 30.0]), share=st.sampled_from([0.2, 1.0]),
)  # fmt: skip
def test_cosines_equal_those_of_a_dense_svd(n_out, n_in, r, seed, strength, share):
    W, update = _matrix(seed, n_out, n_in), _factors(seed + 1, n_out, n_in, r, strength)
    kept = max(1, int(share * min(n_out, n_in)))
    expected = _by_dense_svd(W, update, kept)
    base = _spectrum(W, kept)
    np.testing.assert_allclose(largest_cosines(update, base), expected, atol=1e-5)
    np.testing.assert_allclose(largest_cosines(DenseUpdate(update.dense()), base), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(200, 200), (300, 120), (120, 300)])
@pytest.mark.parametrize("r", [1, 4])
@pytest.mark.parametrize("strength", [0.0, 0.05, 0.5, 2.0])
def test_the_growing_subspace_finds_what_a_dense_svd_finds(monkeypatch, shape, r, strength):
    found = []
    real = intruders._davidson
    monkeypatch.setattr(intruders, "_davidson", lambda *args: found.append(real(*args)) or found[-1])
    W, update = _matrix(1, *shape, decay=1.0), _factors(2, *shape, r, strength)
    np.testing.assert_allclose(largest_cosines(update, _spectrum(W)), _by_dense_svd(W, update), atol=1e-5)
    assert found[0] is not None


@pytest.mark.parametrize("taken", [range(4), range(6, 10), [0, 5, 9, 11], range(190, 194)])
def test_no_direction_is_missed_where_the_update_takes_others_away(taken):
    """ΔW = −Σ σᵢuᵢvᵢᵀ leaves those behind as exact directions, which no iteration could come upon."""
    W = _matrix(3, 200, 200, decay=1.0)
    base = _spectrum(W)
    taken = list(taken)
    update = FactoredUpdate(-base.U[:, taken] * base.sigma[taken], base.Vt[taken])
    lead, sigma = intruders._lead_of_coordinates(intruders._coordinates(update, base), 10)
    left = [i for i in range(200) if i not in taken][:10]
    np.testing.assert_allclose(sigma, base.sigma[left], rtol=1e-7)
    assert lead.abs().argmax(dim=0).tolist() == left


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("planted", "strength"), [(1, 5.0), (3, 1.5)])
def test_planted_intruders_are_counted(planted, strength, dtype):
    W = _matrix(5, 400, 160, decay=1.0).to(dtype)
    outside = torch.linalg.svd(W).U[:, 160 : 160 + planted]
    inputs = torch.linalg.qr(torch.randn(160, planted, dtype=dtype)).Q
    base = _spectrum(W)
    update = FactoredUpdate(strength * outside, inputs.t().contiguous())
    assert count_intruders(update, base) == planted
    assert count_intruders(DenseUpdate(update.dense()), base) == planted


def test_strengthening_what_was_there_makes_no_intruders():
    W = _matrix(6, 100, 100)
    base = _spectrum(W)
    update = FactoredUpdate(10 * base.U[:, 3:5], base.Vt[3:5])
    assert count_intruders(update, base) == 0
    np.testing.assert_allclose(largest_cosines(update, base), torch.ones(10), rtol=1e-9)


def test_where_the_subspace_does_not_settle_the_exact_way_is_taken(monkeypatch):
    W, update = _matrix(7, 200, 200), _factors(8, 200, 200, 2, 1.0)
    monkeypatch.setattr(intruders, "_ROUNDS", 0)
    np.testing.assert_allclose(largest_cosines(update, _spectrum(W)), _by_dense_svd(W, update), atol=1e-6)


def test_wide_dense_updates_go_through_a_randomised_svd(monkeypatch):
    monkeypatch.setattr(intruders, "FULL_BELOW", 50)
    W, update = _matrix(9, 90, 80), _factors(10, 90, 80, 3, 3.0)
    found = largest_cosines(DenseUpdate(update.dense()), _spectrum(W))
    np.testing.assert_allclose(found, _by_dense_svd(W, update), atol=1e-4)
