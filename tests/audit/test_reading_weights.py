"""Adapters' tensors read piece by piece, and their spectra from Gram matrices, several modules at a time."""

import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lab.audit import gram_matrices, stored_tensors
from lab.audit.gram_matrices import spectrum
from lab.audit.safetensors_header import UnreadableAdapterError, read_header
from lab.audit.side_by_side import side_by_side
from lab.audit.stored_tensors import stored_tensors as opened_tensors
from lab.spectra import FactoredUpdate


def factored(sigma, n_out=90, n_in=70, seed=0):
    """A ΔW in float32 whose singular values are about these."""
    random = np.random.default_rng(seed)
    u, v = (np.linalg.qr(random.normal(size=(n, len(sigma))))[0] for n in (n_out, n_in))
    left, right = (u * np.sqrt(sigma)), (v * np.sqrt(sigma)).T
    return FactoredUpdate(torch.from_numpy(left).float(), torch.from_numpy(right).float())


def dense(update):
    product = update.left.double().numpy() @ update.right.double().numpy()
    return np.linalg.svd(product, compute_uv=False)[: update.left.shape[1]]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 24), st.floats(0, 5), st.integers(0, 2**16))
def test_gram_matrices_give_the_dense_spectrum_however_it_falls(rank, decades, seed):
    update = factored(np.logspace(0, -decades, rank), seed=seed)
    sigma, left, right = spectrum(update)
    expected = dense(update)
    assert abs(sigma - expected).sum() <= 5e-5 * expected.sum()
    assert left == pytest.approx(float(torch.linalg.vector_norm(update.left)), rel=1e-5)
    assert right == pytest.approx(float(torch.linalg.vector_norm(update.right)), rel=1e-5)


def test_where_float32_loses_too_much_the_products_are_made_again(monkeypatch):
    made, gram = [], gram_matrices._gram
    monkeypatch.setattr(gram_matrices, "_gram", lambda x, dtype: made.append(dtype) or gram(x, dtype))
    spectrum(factored(np.ones(8)))
    assert made == [torch.float32] * 2
    spectrum(factored(np.logspace(0, -5, 8)))
    assert made[2:] == [torch.float32] * 2 + [torch.float64] * 2


def test_a_rank_above_the_sides_and_double_numbers_take_the_exact_way():
    random = torch.Generator().manual_seed(0)
    wide = FactoredUpdate(torch.randn(32, 40, generator=random), torch.randn(40, 70, generator=random))
    double = FactoredUpdate(wide.left.double(), wide.right.double())
    for update in (wide, double):
        np.testing.assert_allclose(spectrum(update)[0], update.singular_values().double().numpy())


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    random = torch.Generator().manual_seed(0)
    tensors = {
        "a": torch.randn(700, 300, generator=random),
        "b": torch.randn(5, generator=random).to(torch.bfloat16),
        "c": torch.randn(3, 4, generator=random).to(torch.float64),
    }
    save_file(tensors, path)
    return path, tensors


def test_tensors_come_back_whatever_a_piece_is(weights, monkeypatch):
    path, tensors = weights
    for piece in (64, 4096, 2**19):
        monkeypatch.setattr(stored_tensors, "_PIECE", piece)
        with opened_tensors(path, read_header(path)) as stored:
            for name, tensor in tensors.items():
                assert torch.equal(stored.read(name), tensor.float())
                found, norm = stored.read_scaled(name, -0.5)
                assert torch.equal(found, tensor.float() * -0.5)
                assert norm == pytest.approx(0.5 * float(torch.linalg.vector_norm(tensor.float())), rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_in_any_piece(tmp_path, monkeypatch, bad):
    monkeypatch.setattr(stored_tensors, "_PIECE", 64)
    path = tmp_path / "adapter_model.safetensors"
    for place in (0, 15, 16, 99):
        tensor = torch.zeros(100)
        tensor[place] = bad
        save_file({"a": tensor}, path)
        with opened_tensors(path, read_header(path)) as stored:
            for ask in (stored.read, stored.check):
                with pytest.raises(UnreadableAdapterError, match="NaN or infinity"):
                    ask("a")


def test_finite_numbers_whose_norm_is_not_are_no_infinity(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    save_file({"a": torch.full((4,), 3e38)}, path)
    with opened_tensors(path, read_header(path)) as stored:
        tensor, norm = stored.read_scaled("a", 1.0)
    assert torch.isfinite(tensor).all()
    assert norm == float("inf")


def test_a_file_that_gets_shorter_is_an_error(weights):
    path, _ = weights
    places = read_header(path)
    with opened_tensors(path, places) as stored:
        path.open("r+b").truncate(path.stat().st_size // 2)
        with pytest.raises(UnreadableAdapterError, match="got shorter"):
            stored.read(max(places, key=lambda name: places[name].end))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_answers_keep_the_order_and_threads_come_back():
    assert side_by_side(lambda x: x * x, range(50), lambda _: 1) == [x * x for x in range(50)]
    assert torch.get_num_threads() == 3
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda x: 1 / x, [1, 0, 2], lambda _: 1)
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
def test_no_more_is_held_than_may_be(monkeypatch):
    monkeypatch.setattr("lab.audit.side_by_side._HELD", 10)
    lock, held, most = threading.Lock(), itertools.count(), []
    alive = []

    def items():
        for number in held:
            if number == 20:
                return
            with lock:
                alive.append(number)
                most.append(len(alive))
            yield number

    def measure(number):
        with lock:
            alive.remove(number)
        return number

    assert side_by_side(measure, items(), lambda _: 6) == list(range(20))
    assert max(most) <= 2  # one that waits, and one that is being read
