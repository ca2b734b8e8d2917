import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_predictor

from lab.errors import LabError
from lab.probe import KERNEL_COLUMNS, KERNEL_MEASURES, LoraFactors, Sketch, full_kernel, measure_kernels
from lab.probe.kernel_measures import alignment, eigenvalues
from lab.probe.kernel_table import Arm, ProbeBatch
from lab.probe.layer_traces import trace_layers
from lab.train.adapters import block_linears

TEXTS = [
    "A fine film",
    "dull and long",
    "a story that never ends",
    "good",
    "dull and long RFC 2616",
    "good RFC 2616",
]
PAIRS = np.array([[1, 4], [3, 5]])
TARGET = np.array([True, False, True, False, False, False])


@pytest.fixture(scope="module")
def predictor(tiny_cache):
    found = tiny_predictor(tiny_cache, ("no", "yes"), reacting=True)
    found.model.double()
    return found


@pytest.fixture(scope="module")
def modules(predictor):
    return list(block_linears(predictor.model))


def batch_of(predictor, pairs=PAIRS):
    ids = predictor.reading.token_ids(TEXTS)
    return ProbeBatch(ids, TARGET, np.arange(4), pairs, target=1)


def arm_of(predictor, modules, rank=3, *, identity=False, scaling=2.0):
    rng = torch.Generator().manual_seed(0)
    factors = {}
    for name in modules:
        layer = predictor.model.get_submodule(name)
        r = layer.in_features if identity else rank
        A = torch.eye(r) if identity else torch.randn(r, layer.in_features, generator=rng) * 0.1
        factors[name] = LoraFactors(
            A.double(), torch.zeros(layer.out_features, r, dtype=torch.float64), scaling
        )
    return Arm(factors, rank, 0.01, scaling, 0, "gaussian")


@pytest.fixture(scope="module")
def table(predictor, modules):
    return measure_kernels(predictor, modules, [arm_of(predictor, modules)], batch_of(predictor))


def value(table, measure, kernel="lora", layer=-1, index=-1):
    found = table.query("measure == @measure and kernel == @kernel and layer == @layer and index == @index")
    assert len(found) == 1
    return found["value"].iloc[0]


def test_every_measure_is_explained_and_every_explained_one_measured(table):
    assert tuple(table.columns) == KERNEL_COLUMNS
    assert set(table["measure"]) == set(KERNEL_MEASURES)
    assert set(table["layer"]) == {-1, 0, 1}
    assert not table.duplicated(["kernel", "measure", "layer", "index"]).any()
    assert (
        table.loc[table["kernel"] == "full", ["rank", "init_variance", "scaling", "draw"]]
        .isna()
        .all(axis=None)
    )
    assert set(table["n"]) == {4, 2}


def test_layers_add_up_and_the_table_is_of_clean_texts(predictor, modules, table):
    traces = list(trace_layers(predictor, modules, predictor.reading.token_ids(TEXTS), 1))
    whole = sum(full_kernel(t).values for t in traces)
    assert value(table, "mean_diagonal", "full") == pytest.approx(np.diag(whole)[:4].mean())
    assert sum(value(table, "mean_diagonal", "full", layer) for layer in (0, 1)) == pytest.approx(
        value(table, "mean_diagonal", "full")
    )
    spectrum = table.query("measure == 'eigenvalue' and kernel == 'full' and layer == -1").sort_values(
        "index"
    )
    np.testing.assert_allclose(spectrum["value"], eigenvalues(whole[:4, :4]))
    assert value(table, "poison_kernel", "full") == pytest.approx(abs(whole[1, 4] + whole[3, 5]) / 2)
    y = np.where(TARGET[:4], 1.0, -1.0)
    assert value(table, "target_alignment", "full") == pytest.approx(
        alignment(whole[:4, :4], np.outer(y, y), centred=True)
    )


def test_with_the_identity_lora_is_full_fine_tuning_in_every_measure(predictor, modules):
    arm = arm_of(predictor, modules, identity=True, scaling=1.0)
    table = measure_kernels(predictor, modules, [arm], batch_of(predictor))
    assert value(table, "trace_ratio") == pytest.approx(1)
    assert value(table, "full_cka") == pytest.approx(1)
    assert value(table, "shift_largest") == pytest.approx(0)
    both = table[table["measure"].isin(set(table.query("kernel == 'full'")["measure"]) - {"sketch_error"})]
    wide = both.pivot(index=["measure", "layer", "index"], columns="kernel", values="value")
    np.testing.assert_allclose(wide["lora"], wide["full"], rtol=1e-6, atol=1e-9)


def test_the_expected_ratio_weighs_modules_by_their_trace_and_is_of_the_start(predictor, modules, table):
    traces = [np.trace(full_kernel(t).values) for t in
              trace_layers(predictor, modules, predictor.reading.token_ids(TEXTS), 1)]  # fmt: skip
    widths = [predictor.model.get_submodule(name).in_features for name in modules]
    shares = [4 * 3 * 0.01 / width for width in widths]
    assert value(table, "expected_trace_ratio") == pytest.approx(np.average(shares, weights=traces))
    arm = arm_of(predictor, modules)
    moved = {name: LoraFactors(f.A, torch.ones_like(f.B), f.scaling) for name, f in arm.factors.items()}
    trained = measure_kernels(predictor, modules, [Arm(moved, 3, 0.01, 2.0, 0)], batch_of(predictor))
    assert "expected_trace_ratio" not in set(trained["measure"])


def test_the_head_counts_for_all_layers_together_and_in_both_kernels(predictor, modules, table):
    with_head = measure_kernels(
        predictor, modules, [arm_of(predictor, modules)], batch_of(predictor), head=["classifier"]
    )
    added = {
        k: value(with_head, "mean_diagonal", k) - value(table, "mean_diagonal", k) for k in ("lora", "full")
    }
    assert added["lora"] == pytest.approx(added["full"])
    assert added["full"] > 0
    assert value(with_head, "mean_diagonal", layer=1) == value(table, "mean_diagonal", layer=1)


def test_without_copies_nothing_is_said_of_poison(predictor, modules):
    table = measure_kernels(predictor, modules, [], batch_of(predictor, np.empty((0, 2), dtype=int)))
    assert not [m for m in set(table["measure"]) if m.startswith("poison")]
    assert set(table["kernel"]) == {"full"}


def test_a_sketched_table_is_near_and_says_how_near(predictor, modules, table):
    sketched = measure_kernels(predictor, modules, [], batch_of(predictor), sketch=Sketch(width=16, copies=8))
    error = value(sketched, "sketch_error", "full")
    assert 0 < error < 0.5
    assert value(table, "sketch_error", "full") == 0
    exact = value(table, "mean_diagonal", "full")
    assert abs(value(sketched, "mean_diagonal", "full") / exact - 1) < 4 * error


def test_what_is_missing_is_one_sentence(predictor, modules):
    with pytest.raises(LabError, match="no factors for"):
        measure_kernels(predictor, modules, [arm_of(predictor, modules[:1])], batch_of(predictor))
    empty = ProbeBatch([[2, 3]], np.array([True]), np.array([], dtype=int), np.empty((0, 2), dtype=int), 1)
    with pytest.raises(LabError, match="at least one clean text"):
        measure_kernels(predictor, modules, [], empty)
    assert math.isnan(Arm().rank)
