import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.audit import STATISTICS, adapter_statistics, module_statistics, robust_scores
from lab.audit.adapter_files import LoraModule
from lab.audit.weight_statistics import MODULE_STATISTICS
from lab.errors import LabError
from lab.spectra import FactoredUpdate

ATTENTION, MLP = "encoder.layer.{}.attention.self.query", "encoder.layer.{}.intermediate.dense"


def module(name, A, B, scaling=2.0):
    described = LoraModule(name, "A", "B", "", (B.shape[0], A.shape[1]), A.shape[0], scaling)
    return described, FactoredUpdate(scaling * B, A)


def adapter(seed=0, layers=3, rank=4, plant=0.0):
    """A made-up adapter; `plant` adds a direction of that strength (over σ_max) to one MLP module."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for layer in range(layers):
        for name, n_out, n_in in ((ATTENTION, 24, 24), (MLP, 48, 24)):
            A, B = (torch.randn(*shape, generator=random) for shape in ((rank, n_in), (n_out, rank)))
            if plant and layer == 1 and name is MLP:
                planted = torch.Generator().manual_seed(7)  # the others stay what they were
                top = torch.linalg.matrix_norm(B @ A, 2)
                u, v = torch.randn(n_out, generator=planted), torch.randn(n_in, generator=planted)
                B = torch.cat([B, plant * top * (u / u.norm())[:, None]], dim=1)
                A = torch.cat([A, (v / v.norm())[None]])
            found.append(module(name.format(layer), A, B))
    return found


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.floats(0.01, 50))
def test_they_are_those_of_the_dense_product_in_float64(rank, n_out, n_in, seed, scaling):
    random = torch.Generator().manual_seed(seed)
    A, B = torch.randn(rank, n_in, generator=random), torch.randn(n_out, rank, generator=random)
    [line] = module_statistics([module("layer.0.query", A, B, scaling)]).to_dict("records")
    dense = scaling * (B.double() @ A.double()).numpy()
    sigma = np.linalg.svd(dense, compute_uv=False)[: min(rank, n_out, n_in)]
    share = sigma / sigma.sum()
    assert line["norm"] == pytest.approx(np.sqrt((dense**2).mean()), rel=1e-4)
    assert line["sigma_max"] == pytest.approx(sigma[0], rel=1e-4)
    assert line["participation"] == pytest.approx(sigma.sum() ** 2 / (sigma**2).sum(), rel=1e-4)
    assert line["stable_rank"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-4)
    assert line["top_ratio"] == pytest.approx(share[0], rel=1e-4)
    if len(sigma) > 1:
        entropy = -(share * np.log(share)).sum() / math.log(len(sigma))
        assert line["entropy"] == pytest.approx(entropy, rel=1e-3, abs=1e-4)
    norms = torch.linalg.matrix_norm(B.double()), torch.linalg.matrix_norm(A.double())
    assert line["asymmetry"] == pytest.approx(math.log(norms[0] / norms[1]), rel=1e-4, abs=1e-5)


def test_the_sampled_kurtosis_is_that_of_all_entries_where_all_are_sampled():
    A, B = torch.randn(3, 20), torch.randn(30, 3)
    [line] = module_statistics([module("layer.0.query", A, B)]).to_dict("records")
    x = (B @ A).double().numpy().ravel()
    assert line["kurtosis"] == pytest.approx(((x - x.mean()) ** 4).mean() / x.var() ** 2 - 3, rel=1e-4)


@settings(max_examples=20)
@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_how_the_factors_share_the_scaling_does_not_matter(factor, seed):
    plain = adapter(seed)
    moved = [module(m.name, u.right * factor, u.left / m.scaling / factor) for m, u in plain]
    ours, theirs = module_statistics(plain), module_statistics(moved)
    for name in set(MODULE_STATISTICS) - {"asymmetry"}:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


def test_an_adapters_statistics_are_those_of_its_table():
    table = module_statistics(adapter())
    found = adapter_statistics(table)
    assert set(found) == set(STATISTICS)
    assert found["norm_std"] == pytest.approx(float(np.std(table["norm"])))
    mlp = table["module"].str.contains("intermediate")
    assert found["mlp_norm_mean"] == pytest.approx(table["norm"][mlp].mean())
    ratio = table["norm"][~mlp].mean() / table["norm"][mlp].mean()
    assert found["attention_mlp_ratio"] == pytest.approx(ratio)
    assert math.isnan(adapter_statistics(table[mlp])["attention_norm_mean"])


def test_a_module_that_changes_nothing_has_a_norm_of_zero_and_nothing_else():
    [line] = module_statistics([module("layer.0.query", torch.randn(2, 5), torch.zeros(7, 2))]).to_dict(
        "records"
    )
    assert line["norm"] == line["sigma_max"] == 0
    assert all(math.isnan(line[n]) for n in set(MODULE_STATISTICS) - {"norm", "sigma_max"})


def test_robust_scores_are_quiet_on_clean_adapters_and_louder_with_a_stronger_planted_direction():
    bag = [module_statistics(adapter(seed)) for seed in range(40)]
    others = pd.concat(robust_scores(module_statistics(adapter(seed)), bag) for seed in range(50, 90))
    assert (others["z"].abs() < 3).mean() >= 0.95
    clean, loud = robust_scores(module_statistics(adapter(99)), bag), []
    for strength in (0.5, 1, 2, 4, 8):
        scores = robust_scores(module_statistics(adapter(99, plant=strength)), bag)
        planted = scores["module"] == MLP.format(1)
        pd.testing.assert_frame_equal(scores[~planted], clean[~planted])
        loud.append(scores.loc[planted, "z"].item())
    assert loud == sorted(loud)
    assert loud[-1] > 10
    assert (clean["n"] == 120).all()


def test_a_family_that_the_reference_lacks_has_no_score():
    bag = [module_statistics(adapter(seed)) for seed in range(3)]
    other = module_statistics([module("encoder.layer.0.output.dense", torch.randn(2, 5), torch.randn(7, 2))])
    scores = robust_scores(other, bag)
    assert scores["n"].item() == 0
    assert math.isnan(scores["z"].item())


def test_bad_input_is_one_sentence():
    with pytest.raises(LabError, match="without modules"):
        module_statistics([])
    table = module_statistics(adapter())
    with pytest.raises(LabError, match="at least one clean reference"):
        robust_scores(table, [])
    with pytest.raises(LabError, match="statistic = 'size': should be one of norm"):
        robust_scores(table, [table], "size")
