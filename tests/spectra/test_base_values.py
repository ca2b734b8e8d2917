import numpy as np
import pytest
import torch

from lab.spectra import base_singular_values, base_values


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_ASSETS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "coarser", [lambda W: W.bfloat16(), lambda W: W.bfloat16().float(), lambda W: (W * 4).round() / 4]
)
def test_other_precisions_of_one_file_do_not_share_a_cache_entry(coarser):
    W = torch.randn(12, 8)
    base_singular_values({"a": W}, "hash")
    found = base_singular_values({"a": coarser(W)}, "hash")["a"]
    np.testing.assert_allclose(found, torch.linalg.svdvals(coarser(W).float()), rtol=1e-4)


def test_a_cache_that_cannot_be_written_costs_only_time(cache):
    cache.write_text("a file, where the folder should be")
    W = torch.randn(6, 4)
    np.testing.assert_allclose(
        base_singular_values({"a": W}, "hash")["a"], torch.linalg.svdvals(W), rtol=1e-4
    )


def test_a_damaged_entry_is_made_again(cache):
    W = torch.randn(6, 4)
    first = base_singular_values({"a": W}, "hash")["a"]
    (stored,) = (cache / "spectra").glob("*.npz")
    for damage in (stored.read_bytes()[:100], b"", b"nonsense"):
        stored.write_bytes(damage)
        np.testing.assert_array_equal(base_singular_values({"a": W}, "hash")["a"], first)


def test_no_temporary_file_stays(cache):
    base_singular_values({"a": torch.randn(6, 4)}, "hash")
    assert [path.suffix for path in (cache / "spectra").iterdir()] == [".npz"]


def test_large_matrices_are_told_apart_by_a_sample(monkeypatch):
    calls = []
    monkeypatch.setattr(base_values, "_singular_values", lambda W: calls.append(W) or np.zeros(1))
    W = torch.randn(300, 200)
    for given in (W, W.clone(), W.bfloat16()):
        base_singular_values({"a": given}, "hash")
    assert len(calls) == 2


def test_values_are_cached_by_weight_hash(monkeypatch):
    W = torch.randn(12, 8)
    first = base_singular_values({"a": W}, "hash")
    np.testing.assert_allclose(first["a"], torch.linalg.svdvals(W), rtol=1e-4)
    monkeypatch.setattr(base_values, "_singular_values", lambda W: pytest.fail("computed twice"))
    again = base_singular_values({"a": W}, "hash")
    np.testing.assert_array_equal(first["a"], again["a"])


def test_wide_matrices_keep_their_largest_values_and_leave_the_random_state_alone(monkeypatch):
    monkeypatch.setattr(base_values, "FULL_BELOW", 100)
    W = torch.randn(160, 150) * torch.logspace(0, -3, 150)
    torch.manual_seed(3)
    found = base_singular_values({"a": W}, "hash")["a"]
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert drawn == torch.rand(1)
    np.testing.assert_allclose(found, torch.linalg.svdvals(W)[: base_values.TOP], rtol=1e-3)
