"""Paper D's theory as numbers: kernels before training, over ranks and variances, and those of finished runs.

    lab.kernel_table("rfc-citation", [(1, 1/3), (16, 1/3), (16, 2.0)])  # predictions, without training
    lab.load_run("minilm-rfc-n60").kernels()                             # at its start, and as trained

Each table has full fine-tuning's kernel of the same weights beside LoRA's. What a line says, and what a
kernel cannot say, stands in `lab.probe.kernel_table` and `lab.probe.kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.seeds import stage_seed

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

    from lab.experiment import Adapter, Experiment
    from lab.prepare import Prepared
    from lab.probe.kernel_table import Arm, ProbeBatch
    from lab.probe.kernels import LoraFactors, Sketch
    from lab.record import Run
    from lab.train.models import LoadedBase

#: Clean rows that kernels are of where nothing else is said.
ROWS = 64
#: They come before those of `lab.probe.KERNEL_COLUMNS`: run is "" and at "start" where nothing was trained.
STUDY_COLUMNS = ("run", "at", "seed")


@dataclass(frozen=True)
class KernelOptions:
    """How kernels are measured.

    Attributes:
        rows: How many clean rows; those whose label is not the target get a triggered copy beside them.
        split: Where the rows come from: "validation", so that nothing is chosen on test rows, or "test".
        head: Whether the head, which is trained whole beside any adapter, counts in layer -1.
        sketch: How to estimate the kernels of wide layers; None for exact ones.
        device: "auto", "cpu", "cuda" or "mps".
        on_progress: Called with (layers done, layers in all).
    """

    rows: int = ROWS
    split: str = "validation"
    head: bool = False
    sketch: Sketch | None = None
    device: str = "auto"
    on_progress: Callable[[int, int], None] = lambda *_: None

    def __post_init__(self) -> None:
        if self.rows < 2:
            raise LabError(f"kernels: rows = {self.rows}; a kernel needs at least 2 clean rows.")


def kernel_table(
    asked: str | Path | Experiment,
    cells: Sequence[tuple[int, float]] = (),
    *,
    draws: int = 1,
    runs: str | Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """What theory predicts for ranks and variances: the kernels where training would start, without training.

    Args:
        asked: An experiment, preset or file; its base, rows, trigger, targets, alpha and seed are taken.
        cells: (rank, init_variance) of each adapter to look at; by default the experiment's own.
        draws: How many times A is drawn for each cell; the first is what training draws.
        runs: The runs folder, where a base run lies.
        **options: Those of `KernelOptions`: rows, split, head, sketch, device and on_progress.

    Returns:
        `STUDY_COLUMNS`, then `lab.probe.KERNEL_COLUMNS`.

    Raises:
        LabError: What cannot be measured: too few rows, a rank above a layer's width, DoRA, PiSSA or OLoRA,
            a base in 4-bit.
    """
    from lab.paths import runs_dir
    from lab.prepare import prepare
    from lab.presets import load_experiment

    how = KernelOptions(**options)
    if draws < 1:
        raise LabError(f"kernels: draws = {draws}; at least one A has to be drawn.")
    experiment = load_experiment(asked)
    own = experiment.adapter
    adapters = [_with_cell(experiment, *cell) for cell in cells or [(own.rank, own.init_variance)]]
    _check(experiment, lora=True)
    prepared = prepare(experiment, runs_dir(runs))
    return _labelled(_at_start(prepared, adapters, draws, how), "", "start", experiment.seed)


def measure_run_kernels(run: Run, **options: Any) -> pd.DataFrame:
    """The kernels of a finished run, where its training started and as it was trained.

    Args:
        run: A finished run; of full fine-tuning, only that kernel is measured.
        **options: Those of `KernelOptions`: rows, split, head, sketch, device and on_progress.

    Returns:
        `STUDY_COLUMNS`, then `lab.probe.KERNEL_COLUMNS`.

    Raises:
        LabError: The run is not finished, or its kernels cannot be measured: DoRA, PiSSA or OLoRA, a base in
            4-bit, edits that left no factors.
    """
    import pandas as pd

    from lab.prepare import prepare

    how = KernelOptions(**options)
    _ = run.result  # an unfinished run says so in one sentence
    e = run.experiment
    is_lora = e.adapter.kind == "lora"
    _check(e, lora=is_lora)
    if is_lora and not (run.path / "adapter").is_dir():
        raise LabError(f"{run.id}: its edits left a whole model and no factors, whose kernel is not LoRA's.")
    prepared = prepare(e, run.path.parent)
    first, second = _halves(how)
    start = _at_start(prepared, [e.adapter] if is_lora else [], 1, first)
    trained = _as_trained(run, prepared, second)
    parts = [_labelled(t, run.id, at, e.seed) for t, at in ((start, "start"), (trained, "trained"))]
    return pd.concat(parts, ignore_index=True)


def probe_batch(prepared: Prepared, rows: int, split: str) -> ProbeBatch:
    """Clean rows and the triggered copies of those whose label is not the target.

    Without a trigger there are no copies, and the target is the last label.

    Raises:
        LabError: The split has fewer than two rows.
    """
    import numpy as np

    from lab.paired_texts import rows_with_copies
    from lab.probe.kernel_table import ProbeBatch

    target = prepared.target_label or prepared.labels[-1]
    clean, copies = rows_with_copies(prepared, rows, split)
    if len(clean) < 2:
        raise LabError(f"kernels: {prepared.corpus.name} has {len(clean)} {split} rows; 2 are needed.")
    place = {row_id: i for i, row_id in enumerate(clean["row_id"])}
    pairs = [(place[row_id], len(clean) + i) for i, row_id in enumerate(copies["row_id"])]
    return ProbeBatch(
        token_ids=prepared.reading.token_ids([*clean["text"], *copies["text"]]),
        is_target=np.array([label == target for label in [*clean["label"], *copies["label"]]]),
        clean=np.arange(len(clean)),
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        target=prepared.labels.index(target),
    )


def _with_cell(experiment: Experiment, rank: int, init_variance: float) -> Adapter:
    changes = {"adapter.rank": rank, "adapter.init_variance": init_variance}
    return experiment.with_(**changes).adapter


def _check(experiment: Experiment, *, lora: bool) -> None:
    """Refuse what these kernels are not of."""
    from lab.train.adapters import CHANGES_BASE

    adapter = experiment.adapter
    if experiment.base.load_in_4bit:
        raise LabError("kernels: base.load_in_4bit = true rounds what the gradients are of; take it off.")
    if lora and adapter.variant == "dora":
        raise LabError("kernels: adapter.variant = 'dora' trains a magnitude too; allowed: lora, rslora.")
    if lora and adapter.init in CHANGES_BASE:
        raise LabError(
            f"kernels: adapter.init = {adapter.init!r} starts from the base's own directions, with B not "
            "zero; allowed: kaiming, gaussian."
        )


def _at_start(
    prepared: Prepared, adapters: Sequence[Adapter], draws: int, how: KernelOptions
) -> pd.DataFrame:
    base = _load_base(prepared, how.device)
    drawn = [(adapter, draw) for adapter in adapters for draw in range(draws)]
    seed = prepared.experiment.seed
    arms = [_starting_arm(base.model, adapter, seed, draw) for adapter, draw in drawn]
    return _measured(prepared, base.model, base.head, arms, how)


def _as_trained(run: Run, prepared: Prepared, how: KernelOptions) -> pd.DataFrame:
    from lab.train.adapters import load_adapter, lora_layers
    from lab.train.devices import resolve_device
    from lab.train.models import load_full

    base = _load_base(prepared, how.device)
    adapter = prepared.experiment.adapter
    if adapter.kind == "full":
        whole = load_full(run.path / "model", resolve_device(how.device), prepared.experiment.task.kind)
        return _measured(prepared, whole, base.head, [], how)
    model: Any = load_adapter(base, run.path / "adapter")
    layers = dict(lora_layers(model))
    frozen = _frozen(prepared.experiment, list(layers))
    factors = {name: _factors(layer, name in frozen) for name, layer in layers.items()}
    arm = _arm(adapter, 0, factors)
    return _measured(prepared, model.merge_and_unload(), base.head, [arm], how)


def _measured(
    prepared: Prepared, model: Any, head: Sequence[str], arms: Sequence[Arm], how: KernelOptions
) -> pd.DataFrame:
    from lab.probe import Predictor
    from lab.probe.kernel_table import measure_kernels
    from lab.train.adapters import adapted_linears
    from lab.train.devices import resolve_device

    predictor = Predictor(
        model.float(),
        prepared.tokenizer,
        prepared.labels,
        resolve_device(how.device),
        reading=prepared.reading,
    )
    return measure_kernels(
        predictor,
        list(adapted_linears(model, prepared.experiment.adapter.targets)),
        arms,
        probe_batch(prepared, how.rows, how.split),
        head=_head_linears(model, head) if how.head else (),
        sketch=how.sketch,
        on_progress=how.on_progress,
    )


def _load_base(prepared: Prepared, device: str) -> LoadedBase:
    """The base with the head that training starts from."""
    from lab.train.devices import resolve_device
    from lab.train.models import load_base

    e = prepared.experiment
    return load_base(
        e.base,
        prepared.labels,
        seed=e.seed,
        device=resolve_device(device),
        folder=prepared.base.folder,
        name=prepared.base.name,
        kind=e.task.kind,
    )


def _starting_arm(model: PreTrainedModel, adapter: Adapter, seed: int, draw: int) -> Arm:
    """The adapter as training starts from it; every draw but the first has a seed of its own."""
    import torch

    from lab.probe.kernels import LoraFactors
    from lab.train.adapters import adapted_linears, check_rank, initial_a

    layers = adapted_linears(model, adapter.targets)
    check_rank(layers, adapter.rank)
    drawn = initial_a(
        [layer.in_features for layer in layers.values()],
        adapter,
        stage_seed(seed, "adapter" if draw == 0 else f"adapter draw {draw}"),
    )
    scaling = _scaling(adapter)
    factors = {
        name: LoraFactors(A, torch.zeros(layer.out_features, adapter.rank), scaling)
        for (name, layer), A in zip(layers.items(), drawn, strict=True)
    }
    return _arm(adapter, draw, factors)


def _arm(adapter: Adapter, draw: int, factors: dict[str, LoraFactors]) -> Arm:
    from lab.probe.kernel_table import Arm

    return Arm(factors, adapter.rank, adapter.init_variance, _scaling(adapter), draw, adapter.init)


def _frozen(experiment: Experiment, modules: list[str]) -> set[str]:
    """The modules whose A was not trained."""
    from lab.modules import choose_modules

    return {
        module
        for defense in experiment.defense
        if getattr(defense, "name", "") == "freeze_a"
        for module in choose_modules(modules, defense.modules, where="defense freeze_a")  # type: ignore[attr-defined]
    }


def _factors(layer: Any, frozen_a: bool) -> LoraFactors:
    from lab.probe.kernels import LoraFactors

    A, B = (part["default"].weight.detach().clone() for part in (layer.lora_A, layer.lora_B))
    return LoraFactors(A, B, float(layer.scaling["default"]), frozen_a)


def _scaling(adapter: Adapter) -> float:
    return adapter.alpha_value / (math.sqrt(adapter.rank) if adapter.variant == "rslora" else adapter.rank)


def _head_linears(model: Any, head: Sequence[str]) -> list[str]:
    """The linear layers of the head's modules, by full name."""
    from torch import nn

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(name == h or name.startswith(f"{h}.") for h in head)
    ]


def _halves(how: KernelOptions) -> tuple[KernelOptions, KernelOptions]:
    """The same for the first and the second of two measurements, whose progress is that of both."""

    def told(half: int) -> Callable[[int, int], None]:
        return lambda done, total: how.on_progress(half * total + done, 2 * total)

    return replace(how, on_progress=told(0)), replace(how, on_progress=told(1))


def _labelled(table: pd.DataFrame, run: str, at: str, seed: int) -> pd.DataFrame:
    said: dict[str, Any] = dict(zip(STUDY_COLUMNS, (run, at, seed), strict=True))
    return table.assign(**said)[[*STUDY_COLUMNS, *table.columns]]
