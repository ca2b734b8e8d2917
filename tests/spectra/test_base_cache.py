import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.spectra import base_cache, base_spectra

WEIGHTS = {"a": torch.randn(12, 8), "b": torch.randn(5, 9)}
SHAPES = {name: tuple(W.shape) for name, W in WEIGHTS.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_ASSETS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _product(spectrum):
    return (spectrum.U * spectrum.sigma[: spectrum.kept]) @ spectrum.Vt


def _must_not_load():
    pytest.fail("loaded, though everything lies in the cache")


def test_small_matrices_are_kept_whole_and_read_back_as_they_were_made():
    made = base_spectra(SHAPES, "hash", lambda: WEIGHTS)
    read = base_spectra(SHAPES, "hash", _must_not_load)
    for name, W in WEIGHTS.items():
        np.testing.assert_allclose(_product(read[name]), W, atol=1e-5)
        assert read[name].shape == tuple(W.shape)
        assert read[name].kept == len(read[name].sigma) == min(W.shape)
        for part in ("sigma", "U", "Vt"):
            assert torch.equal(getattr(read[name], part), getattr(made[name], part))


def test_only_what_is_missing_is_decomposed(monkeypatch):
    base_spectra({"a": SHAPES["a"]}, "hash", lambda: WEIGHTS)
    decomposed = []
    real = base_cache._decompose
    monkeypatch.setattr(base_cache, "_decompose", lambda W: decomposed.append(tuple(W.shape)) or real(W))
    assert list(base_spectra(SHAPES, "hash", lambda: WEIGHTS)) == ["a", "b"]
    assert decomposed == [SHAPES["b"]]


@pytest.mark.parametrize(("sha256", "precision"), [("other", "float32"), ("hash", "bfloat16")])
def test_other_files_and_precisions_have_entries_of_their_own(sha256, precision):
    base_spectra(SHAPES, "hash", lambda: WEIGHTS)
    others = {name: W.bfloat16() for name, W in WEIGHTS.items()}
    found = base_spectra(SHAPES, sha256, lambda: others, precision)
    np.testing.assert_allclose(_product(found["a"]), others["a"].float(), atol=1e-5)


def test_wider_matrices_keep_all_values_and_the_leading_vectors(monkeypatch):
    monkeypatch.setattr(base_cache, "ALL_VECTORS_UP_TO", 10)
    monkeypatch.setattr(base_cache, "VECTORS", 4)
    W = torch.randn(20, 15)
    found = base_spectra({"a": (20, 15)}, "hash", lambda: {"a": W})["a"]
    np.testing.assert_allclose(found.sigma, torch.linalg.svdvals(W), rtol=1e-4)
    assert (found.U.shape, found.Vt.shape) == ((20, 4), (4, 15))
    assert base_spectra({"a": (20, 15)}, "hash", _must_not_load)["a"].kept == 4


def test_the_widest_keep_the_leading_triples_and_leave_the_random_state_alone(monkeypatch):
    for name, value in (("FULL_BELOW", 40), ("ALL_VECTORS_UP_TO", 10), ("VECTORS", 8)):
        monkeypatch.setattr(base_cache, name, value)
    W = torch.randn(60, 50) * torch.logspace(0, -3, 50)
    torch.manual_seed(3)
    found = base_spectra({"a": (60, 50)}, "hash", lambda: {"a": W})["a"]
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert drawn == torch.rand(1)
    np.testing.assert_allclose(found.sigma, torch.linalg.svdvals(W)[:8], rtol=1e-4)
    np.testing.assert_allclose(W @ found.Vt.t(), found.U * found.sigma, atol=1e-4)
    assert base_spectra({"a": (60, 50)}, "hash", _must_not_load)["a"].kept == 8


def test_a_damaged_entry_is_made_again(cache):
    shapes = {"a": SHAPES["a"]}
    first = base_spectra(shapes, "hash", lambda: WEIGHTS)["a"]
    (stored,) = (cache / "spectra").iterdir()
    whole = stored.read_bytes()
    foreign = base_cache.BaseSpectrum(first.sigma[:3], first.U[:, :3].contiguous(), first.Vt[:3])
    base_cache._write(stored, foreign)
    damages = [whole[:100], b"", b"nonsense", whole[:-200] + b"\0" * 200, stored.read_bytes()]
    for damage in damages:
        stored.write_bytes(damage)
        again = base_spectra(shapes, "hash", lambda: WEIGHTS)["a"]
        assert torch.equal(again.U, first.U)
        assert stored.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_only_time(cache):
    cache.write_text("a file, where the folder should be")
    found = base_spectra(SHAPES, "hash", lambda: WEIGHTS)
    np.testing.assert_allclose(_product(found["b"]), WEIGHTS["b"], atol=1e-5)


def test_nothing_but_one_file_a_matrix_stays_and_everyone_may_read_it(cache):
    base_spectra(SHAPES, "hash", lambda: WEIGHTS)
    plain = cache / "plain"
    plain.write_text("")
    files = list((cache / "spectra").iterdir())
    assert [path.suffix for path in files] == [".safetensors"] * 2
    assert {path.stat().st_mode for path in files} == {plain.stat().st_mode}


def test_rows_of_zeros_do_not_look_like_damage():
    W = WEIGHTS["a"].clone()
    W[-1], W[:, -1] = 0, 0
    base_spectra({"a": SHAPES["a"], "zero": (4, 3)}, "hash", lambda: {"a": W, "zero": torch.zeros(4, 3)})
    base_spectra({"a": SHAPES["a"], "zero": (4, 3)}, "hash", _must_not_load)


def test_weights_that_are_missing_unfit_or_not_finite_are_refused():
    with pytest.raises(LabError, match="no weight matrix 'c'"):
        base_spectra({"c": (2, 2)}, "hash", lambda: WEIGHTS)
    with pytest.raises(LabError, match=r"a: .*\(12, 8\).*\(8, 12\)"):
        base_spectra({"a": (8, 12)}, "hash", lambda: WEIGHTS)
    with pytest.raises(LabError, match="a: the base's weight holds values that are not finite"):
        base_spectra({"a": (12, 8)}, "hash", lambda: {"a": WEIGHTS["a"] / 0})
