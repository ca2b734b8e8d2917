import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.spectra import BaseSpectrum, DenseUpdate, DoraUpdate, FactoredUpdate, alignment
from lab.spectra.alignments import ALIGNMENT_COLUMNS


def _spectrum(W, kept=None):
    U, sigma, Vt = torch.linalg.svd(W, full_matrices=False)
    return BaseSpectrum(sigma, U[:, :kept].contiguous(), Vt[:kept].contiguous())


def _shares(update, base, side, ks=(1, 2, 4, 8, 16, 32, 64)):
    table = alignment({"a": update}, {"a": base}, ks)
    return table[table["side"] == side].set_index("k")["share"]


@settings(deadline=None, max_examples=40)
@given(n_out=st.integers(1, 40), n_in=st.integers(1, 40), r=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_shares_equal_their_definition_in_float64(n_out, n_in, r, seed):
    torch.manual_seed(seed)
    W, left, right = (torch.randn(*s, dtype=torch.float64) for s in ((n_out, n_in), (n_out, r), (r, n_in)))
    base = _spectrum(W)
    kinds = [
        FactoredUpdate(left, right),
        DenseUpdate(left @ right),
        DoraUpdate(W, left, right, 1.5 * W.norm(dim=1)),
    ]
    for update in kinds:
        M = update.dense()
        for k, share in _shares(update, base, "left").items():
            assert share == pytest.approx(float((base.U[:, :k].t() @ M).norm() / M.norm()) ** 2, rel=1e-9)
        for k, share in _shares(update, base, "right").items():
            assert share == pytest.approx(float((M @ base.Vt[:k].t()).norm() / M.norm()) ** 2, rel=1e-9)


def test_an_update_along_leading_directions_is_all_in_them_and_one_beside_them_has_none():
    base = _spectrum(torch.randn(30, 20))
    along = FactoredUpdate(base.U[:, :2].contiguous(), base.Vt[[4, 5]])
    np.testing.assert_allclose(_shares(along, base, "left", (1, 2, 4)), [0.5, 1, 1], atol=1e-5)
    np.testing.assert_allclose(_shares(along, base, "right", (2, 4, 5, 6)), [0, 0, 0.5, 1], atol=1e-5)


def test_a_random_direction_has_the_uniform_share():
    base = _spectrum(torch.randn(300, 200))
    update = DenseUpdate(torch.randn(300, 200))
    table = alignment({"a": update}, {"a": base}, ks=(32, 64))
    assert tuple(table.columns) == ALIGNMENT_COLUMNS
    expected = [32 / 300, 64 / 300, 32 / 200, 64 / 200]
    np.testing.assert_allclose(table["uniform"], expected)
    np.testing.assert_allclose(table["share"] / table["uniform"], np.ones(4), atol=0.1)


def test_ks_above_what_is_kept_are_left_out_for_that_module_alone():
    updates = {name: FactoredUpdate(torch.randn(30, 2), torch.randn(2, 20)) for name in ("a", "b")}
    W = torch.randn(30, 20)
    table = alignment(updates, {"a": _spectrum(W), "b": _spectrum(W, 5)}, ks=(4, 5, 20, 21))
    found = table.groupby(["module", "side"])["k"].apply(list).to_dict()
    assert found["a", "left"] == found["a", "right"] == [4, 5, 20]
    assert found["b", "left"] == found["b", "right"] == [4, 5]
    assert alignment(updates, {"a": _spectrum(W, 5)}, ks=(6,)).empty


def test_a_zero_update_lies_nowhere():
    base = _spectrum(torch.randn(9, 8))
    table = alignment({"a": FactoredUpdate(torch.zeros(9, 2), torch.randn(2, 8))}, {"a": base}, ks=(1, 4))
    assert len(table) == 4
    assert table["share"].isna().all()
    assert table["uniform"].notna().all()
