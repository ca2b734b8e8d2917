"""The kernels of several ways to train the same weights, as a table: one pass serves them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lab import stats
from lab.errors import LabError
from lab.modules import layer_index
from lab.probe.kernel_measures import (
    RENYI_ORDERS,
    alignment,
    effective_rank,
    eigenvalues,
    fisher_gram,
    paired_cosines,
    paired_kernel,
    renyi_entropy,
    target_alignment,
)
from lab.probe.kernels import Kernel, LoraFactors, Sketch, full_kernel, lora_kernel
from lab.probe.layer_traces import trace_layers

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe.predictor import Predictor

#: layer: -1 for all layers together (and the head, if asked for); index: of an eigenvalue from 0, else -1;
#: rank, init_variance, scaling and draw (of A, from 0) are missing for full fine-tuning; n: texts, or pairs
#: of a text and its triggered copy; low and high: 95 % interval over them, where there is one.
KERNEL_COLUMNS = ("kernel", "measure", "layer", "index", "rank", "init_variance", "scaling", "draw", "n",
                  "value", "low", "high")  # fmt: skip

#: Every measure, and what it says; comparisons with full fine-tuning's kernel are at the same weights.
KERNEL_MEASURES = {
    "mean_diagonal": "mean of K(x, x), in squared margin per squared weight: how fast margins can move",
    "eigenvalue": "an eigenvalue of the kernel, 0 or more, index 0 the largest",
    "effective_rank": "exponential of the entropy of the kernel's eigenvalues, from 1 to n",
    "target_alignment": "centred alignment with the labels (target or not), in [0, 1]; 1: it is them",
    "trace_ratio": "trace over that of full fine-tuning's kernel, 0 or more",
    "expected_trace_ratio": "the same on average over A, where B = 0: s²·r·σ_a², layers weighted by trace",
    "full_alignment": "alignment with full fine-tuning's kernel, in [0, 1]; 1: they differ in scale alone",
    "full_cka": "the same, centred (CKA)",
    "poison_kernel": "M′: norm of the mean K(clean text, its triggered copy)",
    "poison_ratio": "M′ over the norm of the mean K(x, x); 1: a step on a text reaches its copy whole",
    "poison_cosine": "mean of K(x, x̃)/√(K(x, x)·K(x̃, x̃)), in [-1, 1]",
    "fisher_trace": "trace of the Fisher information, in squared nats per squared weight",
    **{
        f"renyi_entropy_{order:g}": f"Rényi entropy of order {order:g} of the Fisher information's spectrum, "
        "in nats, from 0 to log of the number of eigenvalues"
        for order in RENYI_ORDERS
    },
    "shift_share_negative": "share of M_Δ = s²AᵀA − I's eigenvalues below 0, in [0, 1]",
    "shift_largest": "largest eigenvalue of M_Δ, -1 or more; LoRA's kernel is nowhere above full's up to 0",
    "paper_entropy_1": "the paper's closed form H₁′ for the model's width; not a measured entropy",
    "paper_entropy_2": "the paper's closed form H₂′, likewise",
    "sketch_error": "estimated ‖K̂ − K‖/‖K̂‖ of a sketched kernel; 0: it is exact",
}

WHOLE = -1


@dataclass(frozen=True)
class ProbeBatch:
    """The texts that kernels are of: clean ones, and triggered copies of some.

    Attributes:
        token_ids: All texts, tokenised.
        is_target: Whether each text's true label is the target.
        clean: Places of the clean texts.
        pairs: Places of a clean text and its triggered copy, pairs × 2; may be empty.
        target: The target label's index.
    """

    token_ids: Sequence[Sequence[int]]
    is_target: npt.NDArray[np.bool_]
    clean: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int64]
    target: int


@dataclass(frozen=True)
class Arm:
    """One way to train: LoRA with these factors on some layers, or all of these layers' weights.

    Attributes:
        factors: The adapter by layer; none for full fine-tuning.
        rank: r; NaN for full fine-tuning, as are the others.
        init_variance: Variance of A's entries at the start times n_in.
        scaling: s.
        draw: Which of several draws of A it is, from 0.
        init: How A was drawn: "kaiming" (uniform), "gaussian", or "" where it was not.
    """

    factors: Mapping[str, LoraFactors] = field(default_factory=dict)
    rank: float = math.nan
    init_variance: float = math.nan
    scaling: float = math.nan
    draw: float = math.nan
    init: str = ""

    @property
    def kernel(self) -> str:
        """The kernel's name: "lora" or "full"."""
        return "lora" if self.factors else "full"

    @property
    def is_fresh(self) -> bool:
        """Whether every B is zero, as where training starts."""
        return not any(own.B.any() for own in self.factors.values())


@dataclass
class _Sums:
    """What is summed over the modules of one layer."""

    kernel: Kernel | None = None
    #: trace of full fine-tuning's kernel times what LoRA is expected to keep of it
    expected_trace: float = 0.0
    shift_largest: float = math.nan
    negative: float = 0.0
    eigenvalues: int = 0

    def add(self, kernel: Kernel) -> None:
        self.kernel = kernel if self.kernel is None else self.kernel + kernel


def measure_kernels(
    predictor: Predictor,
    modules: Sequence[str],
    arms: Sequence[Arm],
    batch: ProbeBatch,
    *,
    head: Sequence[str] = (),
    sketch: Sketch | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> pd.DataFrame:
    """Every measure of every arm's kernel, per layer and for all together; full fine-tuning's come first.

    Args:
        predictor: The model at which kernels are taken, adapters merged.
        modules: The adapted linear layers of its blocks. Full fine-tuning trains the same ones' weights.
        arms: Ways to train with LoRA; each has factors for all of `modules`.
        batch: The texts.
        head: Linear layers of the head, which every arm trains whole: weights and biases; they count in
            layer -1. By default the kernels are of the adapted layers alone.
        sketch: How to estimate kernels of wide layers; None for exact ones.
        on_progress: Called with (layers done, layers in all).

    Returns:
        A table with `KERNEL_COLUMNS`; `KERNEL_MEASURES` says what each measure is.

    Raises:
        LabError: No text, or an arm without factors for a module.
    """
    import pandas as pd

    if not len(batch.clean):
        raise LabError("A kernel needs at least one clean text.")
    every = [Arm(), *arms]
    sums: list[dict[int, _Sums]] = [{} for _ in every]
    total = len(modules) + len(head)
    traces = trace_layers(predictor, [*modules, *head], batch.token_ids, batch.target)
    for done, trace in enumerate(traces, start=1):
        in_head = done > len(modules)
        full = full_kernel(trace, bias=in_head, sketch=sketch)
        places = {WHOLE} if in_head else {layer_index(trace.module), WHOLE}
        for arm, by_layer in zip(every, sums, strict=True):
            own = None if in_head or not arm.factors else _factors(arm, trace.module)
            kernel = full if own is None else lora_kernel(trace, own, sketch=sketch)
            for layer in places:
                _add(by_layer.setdefault(layer, _Sums()), kernel, full, own, arm)
        on_progress(done, total)
    logits = predictor.logits_of_tokens(batch.token_ids)
    lines = [
        (arm.kernel, measure, layer, index, arm.rank, arm.init_variance, arm.scaling, arm.draw, *numbers)
        for arm, by_layer in zip(every, sums, strict=True)
        for layer in sorted(by_layer)
        for measure, index, *numbers in _measures(layer, by_layer[layer], sums[0][layer], arm, batch, logits)
    ]
    return pd.DataFrame(lines, columns=list(KERNEL_COLUMNS))


def _factors(arm: Arm, module: str) -> LoraFactors:
    if module not in arm.factors:
        raise LabError(f"kernels: the adapter has no factors for {module}.")
    return arm.factors[module]


def _add(sums: _Sums, kernel: Kernel, full: Kernel, own: LoraFactors | None, arm: Arm) -> None:
    from lab.spectra.lora_shift import expected_scale, lora_shift

    sums.add(kernel)
    trace = float(np.trace(full.values))
    if own is None:
        sums.expected_trace += trace
        return
    shift = lora_shift(own.A, own.scaling)
    sums.expected_trace += trace * expected_scale(len(own.A), arm.init_variance, shift.width, own.scaling)
    sums.shift_largest = float(np.nanmax([sums.shift_largest, shift.largest]))
    sums.negative += shift.share_negative * shift.width
    sums.eigenvalues += shift.width


_Line = tuple[str, int, int, float, float, float]


def _measures(
    layer: int, sums: _Sums, full: _Sums, arm: Arm, batch: ProbeBatch, logits: npt.ArrayLike
) -> Iterator[_Line]:
    """Lines of one arm in one layer: measure, index, n, value, low, high."""
    assert sums.kernel is not None
    assert full.kernel is not None
    clean = sums.kernel.among(batch.clean)
    n = clean.texts
    alone = {**_of_kernel(clean, batch), **_of_fisher(clean, np.asarray(logits)[batch.clean], batch.target)}
    if arm.factors:
        alone |= _against_full(clean, full.kernel.among(batch.clean))
        alone |= _of_paper(arm) if layer == WHOLE else {}
        trace = float(np.trace(full.kernel.values))
        if arm.is_fresh:
            alone["expected_trace_ratio"] = sums.expected_trace / trace if trace else math.nan
        alone["shift_share_negative"] = sums.negative / sums.eigenvalues if sums.eigenvalues else math.nan
        alone["shift_largest"] = sums.shift_largest
    size = float(np.linalg.norm(sums.kernel.values))
    alone["sketch_error"] = sums.kernel.error / size if size else math.nan
    for measure, value in alone.items():
        yield measure, -1, n, value, math.nan, math.nan
    for index, value in enumerate(eigenvalues(clean.of_margin())):
        yield "eigenvalue", index, n, float(value), math.nan, math.nan
    if len(batch.pairs):
        yield from _of_pairs(sums.kernel, batch.pairs)


def _of_paper(arm: Arm) -> dict[str, float]:
    """The paper's closed forms, which know of one width: the model's, the smallest n_in."""
    from lab.spectra.lora_shift import paper_entropy

    if not arm.init:
        return {}
    width = min(own.A.shape[1] for own in arm.factors.values())
    return {
        f"paper_entropy_{order}": paper_entropy(order, int(arm.rank), arm.init_variance, width, arm.init)
        for order in (1, 2)
    }


def _of_kernel(clean: Kernel, batch: ProbeBatch) -> dict[str, float]:
    values = clean.of_margin()
    return {
        "mean_diagonal": float(np.diag(values).mean()),
        "effective_rank": effective_rank(eigenvalues(values)),
        "target_alignment": target_alignment(values, batch.is_target[batch.clean]),
    }


def _of_fisher(clean: Kernel, logits: npt.ArrayLike, target: int) -> dict[str, float]:
    spectrum = eigenvalues(fisher_gram(clean, logits, target))
    entropies = {f"renyi_entropy_{order:g}": renyi_entropy(spectrum, order) for order in RENYI_ORDERS}
    return {"fisher_trace": float(spectrum.sum()), **entropies}


def _against_full(clean: Kernel, full: Kernel) -> dict[str, float]:
    one, other = clean.of_margin(), full.of_margin()
    trace = float(np.trace(full.values))
    return {
        "trace_ratio": float(np.trace(clean.values)) / trace if trace else math.nan,
        "full_alignment": alignment(one, other),
        "full_cka": alignment(one, other, centred=True),
    }


def _of_pairs(kernel: Kernel, pairs: npt.NDArray[np.int64]) -> Iterator[_Line]:
    across, within = paired_kernel(kernel, pairs)
    cosines = paired_cosines(kernel.of_margin(), pairs)
    mean = stats.bootstrap_mean(cosines[np.isfinite(cosines)], seed=0, resamples=2000)
    yield "poison_kernel", -1, len(pairs), across, math.nan, math.nan
    yield "poison_ratio", -1, len(pairs), across / within if within else math.nan, math.nan, math.nan
    yield "poison_cosine", -1, mean.n, mean.value, mean.low, mean.high
