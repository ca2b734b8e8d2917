import math

import pytest
import torch

from lab.errors import LabError
from lab.spectra import BaseSpectrum, DenseUpdate, DoraUpdate, FactoredUpdate, alignment, describe
from lab.spectra.descriptions import DESCRIPTION_COLUMNS


def _spectrum(W):
    U, sigma, Vt = torch.linalg.svd(W, full_matrices=False)
    return BaseSpectrum(sigma, U, Vt)


W = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
BASE = {"a": _spectrum(W)}


def _update(sigma):
    """An update with these singular values."""
    k = len(sigma)
    U, V = torch.linalg.qr(torch.randn(20, k)).Q, torch.linalg.qr(torch.randn(12, k)).Q
    return FactoredUpdate(U * torch.tensor(sigma), V.t().contiguous())


def test_the_numbers_follow_their_definitions():
    (row,) = describe({"a": _update([3.0, 2.0, 1.0])}, BASE).to_dict("records")
    assert tuple(row) == DESCRIPTION_COLUMNS
    assert (row["module"], row["n_out"], row["n_in"]) == ("a", 20, 12)
    assert row["norm"] == pytest.approx(math.sqrt(14), rel=1e-5)
    assert row["sigma_max"] == pytest.approx(3, rel=1e-5)
    top = float(torch.linalg.svdvals(W)[0])
    assert row["base_sigma_max"] == pytest.approx(top, rel=1e-5)
    assert row["strength"] == pytest.approx(3 / top, rel=1e-5)
    entropy = -sum(p * math.log(p) for p in (3 / 6, 2 / 6, 1 / 6))
    assert row["effective_rank"] == pytest.approx(math.exp(entropy), rel=1e-5)
    assert row["stable_rank"] == pytest.approx(14 / 9, rel=1e-5)
    assert 0 <= row["intruders"] <= 10


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_equal_singular_values_give_their_number_as_rank(rank):
    (row,) = describe({"a": _update([0.7] * rank)}, BASE).to_dict("records")
    assert row["effective_rank"] == pytest.approx(rank, rel=1e-5)
    assert row["stable_rank"] == pytest.approx(rank, rel=1e-5)


def test_kinds_of_one_update_are_described_alike():
    update = _update([3.0, 1.0])
    moved = W + update.dense()
    kinds = {
        "a": update,
        "b": DenseUpdate(update.dense()),
        "c": DoraUpdate(W, update.left, update.right, moved.norm(dim=1)),
    }
    table = describe(kinds, dict.fromkeys(kinds, BASE["a"])).drop(columns="module")
    for other in (1, 2):
        assert table.iloc[other].to_list() == pytest.approx(table.iloc[0].to_list(), rel=1e-3)


def test_a_zero_update_has_no_strength_and_no_rank():
    (row,) = describe({"a": FactoredUpdate(torch.zeros(20, 2), torch.randn(2, 12))}, BASE).to_dict("records")
    assert (row["norm"], row["sigma_max"], row["strength"], row["intruders"]) == (0, 0, 0, 0)
    assert math.isnan(row["effective_rank"])
    assert math.isnan(row["stable_rank"])


def test_without_its_base_an_update_is_described_as_far_as_it_goes():
    (row,) = describe({"a": _update([3.0, 2.0])}, {}).to_dict("records")
    assert row["stable_rank"] == pytest.approx(13 / 9, rel=1e-5)
    assert all(math.isnan(row[column]) for column in ("base_sigma_max", "strength", "intruders"))
    assert alignment({"a": _update([3.0])}, {}).empty


def test_no_updates_give_an_empty_table():
    assert tuple(describe({}, BASE).columns) == DESCRIPTION_COLUMNS


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("measure", [describe, alignment])
def test_values_that_are_not_finite_are_refused_and_never_look_clean(measure, bad):
    left = torch.ones(20, 2)
    left[3, 1] = bad
    for update in (FactoredUpdate(left, torch.ones(2, 12)), DenseUpdate(left @ torch.ones(2, 12))):
        with pytest.raises(LabError, match="a: the update holds values that are not finite"):
            measure({"a": update}, BASE)


@pytest.mark.parametrize("measure", [describe, alignment])
def test_an_update_of_another_base_is_refused(measure):
    with pytest.raises(LabError, match=r"\(20, 12\).*\(12, 20\)"):
        measure({"a": FactoredUpdate(torch.ones(12, 2), torch.ones(2, 20))}, BASE)
