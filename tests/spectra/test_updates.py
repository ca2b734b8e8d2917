import operator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.spectra import DenseUpdate, DoraUpdate, FactoredUpdate


@st.composite
def factors(draw):
    n_out, n_in = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    k = draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    left = torch.randn(n_out, k, generator=generator, dtype=torch.float64)
    return left, torch.randn(k, n_in, generator=generator, dtype=torch.float64)


def _random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _dora(left, right):
    W = _random(1, left.shape[0], right.shape[1])
    return DoraUpdate(W, left, right, 1 + _random(2, left.shape[0]).abs())


def _effective(W, product, magnitude):
    """DoRA's weight as its paper writes it, row by row."""
    return torch.stack([m * row / row.norm() for m, row in zip(magnitude, W + product, strict=True)])


KINDS = {
    "factored": FactoredUpdate,
    "dense": lambda left, right: DenseUpdate(left @ right),
    "dora": _dora,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def _close(found, expected):
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    size = float(expected.abs().max()) if expected.numel() else 0.0
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * max(size, 1.0))


def _components(M, chosen):
    U, sigma, Vt = torch.linalg.svd(M, full_matrices=False)
    return (U[:, chosen] * sigma[chosen]) @ Vt[chosen]


@every_kind
@settings(deadline=None, max_examples=40)
@given(pair=factors())
def test_what_an_update_tells_equals_dense_float64(kind, pair):
    update = KINDS[kind](*pair)
    M = update.dense()
    assert update.shape == tuple(M.shape)
    assert update.dtype == M.dtype
    expected = torch.linalg.svdvals(M)[: update.rank_bound]
    # the Gram matrix of a dense update gives values to 1e-7 of the largest
    np.testing.assert_allclose(
        update.singular_values(), expected, rtol=1e-9, atol=1e-9 if kind == "factored" else 1e-6
    )
    assert update.norm() == pytest.approx(float(M.norm()), rel=1e-9)
    U, sigma, Vt = update.svd()
    assert U.shape[1] == len(sigma) == len(Vt) == update.rank_bound
    _close((U * sigma) @ Vt, M)


@every_kind
@settings(deadline=None, max_examples=40)
@given(pair=factors(), m=st.integers(1, 4))
def test_products_equal_dense_float64(kind, pair, m):
    update = KINDS[kind](*pair)
    n_out, n_in = update.shape
    x, y = _random(3, n_in, m), _random(4, n_out, m)
    _close(update.times(x), update.dense() @ x)
    _close(update.transposed_times(y), update.dense().t() @ y)


@pytest.mark.parametrize("kind", ["factored", "dense"])
@settings(deadline=None, max_examples=60)
@given(pair=factors(), data=st.data())
def test_surgery_equals_dense_float64(kind, pair, data):
    update = KINDS[kind](*pair)
    M = pair[0] @ pair[1]
    # components beyond the rank are noise, whose order an SVD is free to choose
    real = min(M.shape[0], M.shape[1], pair[0].shape[1])
    chosen = data.draw(st.lists(st.integers(0, real - 1), unique=True))
    rank, factor = data.draw(st.integers(0, 15)), data.draw(st.floats(-4, 4))
    _close(update.keep(chosen).dense(), _components(M, chosen))
    _close(update.drop(chosen).dense(), M - _components(M, chosen))
    _close(update.truncate(rank).dense(), _components(M, list(range(min(rank, real)))))
    _close(update.rescale(factor).dense(), factor * M)


@settings(deadline=None, max_examples=60)
@given(pair=factors(), data=st.data())
def test_surgery_on_dora_acts_inside_and_leaves_the_magnitude(pair, data):
    update, M = _dora(*pair), pair[0] @ pair[1]
    W, m = update.base_weight, update.magnitude
    chosen = data.draw(st.lists(st.integers(0, update.inner.rank_bound - 1), unique=True))
    rank, factor = data.draw(st.integers(0, 15)), data.draw(st.floats(-4, 4))
    found = {
        "none": (update, M),
        "keep": (update.keep(chosen), _components(M, chosen)),
        "drop": (update.drop(chosen), M - _components(M, chosen)),
        "truncate": (update.truncate(rank), _components(M, list(range(min(rank, *M.shape, len(pair[1])))))),
        "rescale": (update.rescale(factor), factor * M),
    }
    for changed, product in found.values():
        assert changed.magnitude is m
        assert changed.right is pair[1]
        _close(changed.dense(), _effective(W, product, m) - W)


@settings(deadline=None, max_examples=40)
@given(pair=factors(), data=st.data())
def test_a_factored_update_keeps_its_width_and_its_right_factor(pair, data):
    update = FactoredUpdate(*pair)
    chosen = data.draw(st.lists(st.integers(0, update.rank_bound - 1)))
    for changed in (update.keep(chosen), update.drop(chosen), update.truncate(1), update.rescale(0.5)):
        assert changed.right is update.right
        assert changed.left.shape == update.left.shape


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
@settings(deadline=None, max_examples=15)
@given(pair=factors(), k=st.integers(1, 5))
def test_sums_and_merges_equal_dense_float64(first, second, pair, k):
    a = KINDS[first](*pair)
    n_out, n_in = a.shape
    b = KINDS[second](_random(5, n_out, k), _random(6, k, n_in))
    total = a.plus(b)
    assert isinstance(total, FactoredUpdate if first == second == "factored" else DenseUpdate)
    _close(total.dense(), a.dense() + b.dense())
    W = _random(7, n_out, n_in)
    _close(a.merge_into(W), W + a.dense())


def test_dora_merged_into_its_base_is_the_effective_weight():
    update = _dora(_random(8, 6, 2), _random(9, 2, 5))
    W, product = update.base_weight, update.left @ update.right
    _close(update.merge_into(W), _effective(W, product, update.magnitude))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_merging_sums_in_the_wider_type_and_answers_in_the_weights(dtype):
    W = torch.randn(6, 5).to(dtype)
    update = FactoredUpdate(torch.randn(6, 2), torch.randn(2, 5))
    found = update.merge_into(W)
    assert found.dtype == dtype
    assert torch.equal(found, (W.float() + update.dense()).to(dtype))


@every_kind
def test_operations_leave_the_update_as_it_was(kind):
    update = KINDS[kind](_random(1, 7, 3), _random(2, 3, 6))
    before = update.dense().clone()
    W = _random(3, 7, 6)
    for change in (
        lambda: update.keep([0]), lambda: update.drop([0]), lambda: update.truncate(1),
        lambda: update.rescale(3.0), lambda: update.plus(update), lambda: update.merge_into(W),
    ):  # fmt: skip
        change()
    assert torch.equal(update.dense(), before)


@every_kind
@pytest.mark.parametrize(("component", "said"), [(-1, "-1"), (99, "99")])
def test_a_component_out_of_range_is_refused_with_those_allowed(kind, component, said):
    update = KINDS[kind](torch.ones(4, 2), torch.ones(2, 5))
    last = 3 if kind == "dense" else 1
    for operation in (update.keep, update.drop):
        with pytest.raises(LabError, match=rf"component {said}; allowed are 0 \(the largest\) to {last}\."):
            operation([0, component])
    with pytest.raises(LabError, match="rank -1"):
        update.truncate(-1)


@every_kind
def test_other_shapes_are_refused_with_both(kind):
    update = KINDS[kind](torch.ones(4, 2), torch.ones(2, 5))
    with pytest.raises(LabError, match=r"\(4, 5\) and \(5, 4\)"):
        update.plus(DenseUpdate(torch.zeros(5, 4)))
    with pytest.raises(LabError, match=r"\(5, 4\) and \(4, 5\)"):
        update.merge_into(torch.zeros(5, 4))


def test_factors_that_do_not_fit_are_refused_with_both_shapes():
    with pytest.raises(LabError, match=r"\(3, 2\) and \(4, 5\)"):
        FactoredUpdate(torch.zeros(3, 2), torch.zeros(4, 5))


@pytest.mark.parametrize(("W", "m"), [((3, 4), (3,)), ((3, 5), (5,)), ((3, 5), (3, 1))])
def test_dora_parts_that_do_not_fit_are_refused(W, m):
    with pytest.raises(LabError, match=r"expected \(3, 5\) and \(3,\)"):
        DoraUpdate(torch.zeros(W), torch.zeros(3, 2), torch.zeros(2, 5), torch.zeros(m))


def test_a_zero_update_stays_zero_under_surgery():
    update = FactoredUpdate(torch.zeros(6, 2), torch.randn(2, 5))
    assert update.singular_values().tolist() == [0.0, 0.0]
    assert update.norm() == 0.0
    for zero in (update, DenseUpdate(update.dense())):
        for changed in (zero.keep([0]), zero.drop([1]), zero.truncate(1), zero.rescale(5), zero.plus(zero)):
            assert operator.not_(changed.dense().any())


def test_dora_with_the_norms_of_its_base_and_no_factors_changes_nothing():
    W = _random(1, 4, 3)
    W[2] = 0  # a pruned row has no direction
    update = DoraUpdate(W, torch.zeros(4, 1).double(), torch.ones(1, 3).double(), W.norm(dim=1))
    np.testing.assert_allclose(update.dense(), torch.zeros(4, 3), atol=1e-15)


def test_factors_that_nearly_cancel_keep_their_norm():
    left, right = torch.randn(64, 8), torch.randn(8, 64)
    change = 1e-4 * torch.randn(64, 8)
    update = FactoredUpdate(torch.cat([left + change, -left], dim=1), torch.cat([right, right]))
    assert update.norm() == pytest.approx(float((change @ right).norm()), rel=1e-2)


def test_small_singular_values_survive_the_large_ones():
    U, V = torch.linalg.qr(_random(1, 50, 4)).Q, torch.linalg.qr(_random(2, 30, 4)).Q
    sigma = torch.tensor([1.0, 1e-4, 1e-8, 1e-11], dtype=torch.float64)
    mix = torch.linalg.qr(_random(3, 4, 4)).Q
    update = FactoredUpdate(U * sigma @ mix, mix.t() @ V.t())
    np.testing.assert_allclose(update.singular_values(), sigma, rtol=1e-4)
