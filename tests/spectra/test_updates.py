import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.spectra import DenseUpdate, FactoredUpdate


@st.composite
def factors(draw):
    n_out, n_in = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    k = draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    left = torch.randn(n_out, k, generator=generator, dtype=torch.float64)
    return left, torch.randn(k, n_in, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=60)
@given(factors())
def test_factored_arithmetic_equals_dense_float64(pair):
    left, right = pair
    update = FactoredUpdate(left, right)
    dense = left @ right
    expected = torch.linalg.svdvals(dense)[: update.rank_bound]
    np.testing.assert_allclose(update.singular_values(), expected, rtol=1e-9, atol=1e-9)
    assert update.norm() == pytest.approx(float(dense.norm()), rel=1e-9)
    U, sigma, Vt = update.svd()
    np.testing.assert_allclose((U * sigma) @ Vt, dense, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(factors())
def test_dense_singular_values_equal_an_svd(pair):
    M = pair[0] @ pair[1]
    np.testing.assert_allclose(DenseUpdate(M).singular_values(), torch.linalg.svdvals(M), atol=1e-6)


def test_factors_that_do_not_fit_are_refused_with_both_shapes():
    with pytest.raises(LabError, match=r"\(3, 2\) and \(4, 5\)"):
        FactoredUpdate(torch.zeros(3, 2), torch.zeros(4, 5))


def test_zero_update_has_zero_singular_values():
    update = FactoredUpdate(torch.zeros(6, 2), torch.randn(2, 5))
    assert update.singular_values().tolist() == [0.0, 0.0]
    assert update.norm() == 0.0


def test_base_spectra_are_cached_by_weight_hash(tmp_path, monkeypatch):
    from lab.spectra import base_singular_values, base_spectra

    monkeypatch.setenv("LAB_ASSETS", str(tmp_path))
    W = torch.randn(12, 8)
    first = base_singular_values({"a": W}, "hash")
    np.testing.assert_allclose(first["a"], torch.linalg.svdvals(W), rtol=1e-4)
    monkeypatch.setattr(base_spectra, "_singular_values", lambda W: pytest.fail("computed twice"))
    again = base_singular_values({"a": W}, "hash")
    np.testing.assert_array_equal(first["a"], again["a"])
