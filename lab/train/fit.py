"""Fine-tuning on Hugging Face Trainer: one function from rows to trained weights on disk.

What is the lab's own here: batches planned ahead (`lab.train.batches`), LoRA layers that compute through
merged weights on CPU (`lab.train.merged_forward`), the microscope, checkpoints that say they are whole,
and stopping. The rest (precision, accumulation, devices, trackers) is Trainer's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from lab.chat.loss import conversation_loss
from lab.defend import Penalty, Subject, interventions
from lab.errors import DivergedError, LabError, unknown_name
from lab.files import writing_to
from lab.processes import agree, is_main, world_size
from lab.seeds import stage_seed
from lab.train.adapters import CHANGES_BASE, as_plain_lora, attach_lora, lora_layers, save_trained
from lab.train.batches import PlannedBatches, plan_batches
from lab.train.deltas import Deltas
from lab.train.devices import wants_bf16
from lab.train.feeding import IndexedRows, TrainingRows, collator
from lab.train.merged_forward import merged_forward
from lab.train.models import LoadedBase, base_sha256, load_base, quietly

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from lab.experiment import Experiment
    from lab.spectra import BaseSpectrum

#: How many checkpoints a training writes; more cost time, fewer cost more when it is interrupted.
_CHECKPOINTS = 4
#: The experiment trackers that Trainer is asked to report to; each is its package's name too.
TRACKERS = ("tensorboard", "mlflow", "wandb")


@dataclass
class Hooks:
    """How a training talks to whoever runs it.

    Attributes:
        on_log: Called with (step, loss, learning rate).
        on_snapshot: Called with (model, deltas, step) at the microscope's steps, the model in eval mode.
        snapshot_steps: Those steps.
        on_step: Called with (step, steps) after every step.
        should_stop: Asked after every step.
        on_resume: Called with the step of the checkpoint that training goes on from.
    """

    on_log: Callable[[int, float, float], None] = lambda *_: None
    on_snapshot: Callable[[Any, Deltas, int], None] = lambda *_: None
    snapshot_steps: frozenset[int] = frozenset()
    on_step: Callable[[int, int], None] = lambda *_: None
    should_stop: Callable[[], bool] = lambda: False
    on_resume: Callable[[int], None] = lambda _: None


@dataclass(frozen=True)
class Trained:
    """The outcome of a training.

    Attributes:
        model: The trained model, in eval mode.
        deltas: What it changed.
        steps: The optimizer steps it took in all.
        resumed_from: The step of the checkpoint that it went on from, 0 for none.
        stopped: Whether it was asked to stop before the end.
    """

    model: Any
    deltas: Deltas
    steps: int
    resumed_from: int
    stopped: bool


def fine_tune(
    base: LoadedBase,
    rows: TrainingRows,
    experiment: Experiment,
    folder: Path,
    *,
    device: torch.device,
    hooks: Hooks,
    report_to: Sequence[str] = (),
    adapted: PeftModel | None = None,
) -> Trained:
    """Fine-tune a base model and save what was trained to `folder/adapter` or `folder/model`.

    Args:
        base: The loaded base with its head.
        rows: The tokenised rows.
        experiment: Resolved: `training.steps` says how long.
        folder: The run's folder; checkpoints go below it and are kept for the caller to discard.
        device: Where to compute.
        hooks: Events, snapshots and stopping.
        report_to: Trainer's trackers ("tensorboard", "mlflow", "wandb").
        adapted: The base with a fresh adapter on it, where no experiment can say its configuration; the
            experiment's adapter is put on the base if not given.

    Raises:
        DivergedError: When the loss, or a weight, stops being finite.
    """
    seed, training = experiment.seed, experiment.training
    full = experiment.adapter.kind == "full"
    labels = [str(label) for label in (base.model.config.id2label or {}).values()]
    model: Any = adapted
    if model is None:
        model = base.model if full else attach_lora(base, experiment.adapter, seed=seed)
    deltas = Deltas(model, experiment.adapter)
    checkpoints = folder / "checkpoints"
    attached = contextlib.ExitStack()
    penalties = _attach_defenses(attached, base, model, deltas, experiment)
    trainer = _PlannedTrainer(
        model=model,
        penalties=penalties,
        args=_arguments(experiment, checkpoints, device, [t for t in report_to if t != "tensorboard"]),
        train_dataset=IndexedRows(rows),
        data_collator=collator(rows, int(base.tokenizer.pad_token_id)),
        plan=training_plan(rows, experiment),
    )
    trainer.remove_callback(PrinterCallback)  # the hooks tell what happens, standard output is for results
    watcher = _Watcher(hooks, deltas, model)
    trainer.add_callback(watcher)
    if "tensorboard" in report_to:
        trainer.add_callback(_tensorboard(folder / "tensorboard"))
    resume_from = agree(last_checkpoint(checkpoints))
    resumed_step = _step_of(resume_from) if resume_from else 0
    if resume_from:
        hooks.on_resume(resumed_step)
    else:
        _snapshot(hooks, model, deltas, 0)
    with attached, merged_forward(model), writing_to(checkpoints), quietly(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    step = int(trainer.state.global_step)
    if watcher.failure:
        if is_main():
            discard_checkpoints(checkpoints)
        raise DivergedError(watcher.failure)
    model.eval()
    if step >= training.steps and is_main():
        fitting = model
        if not full and experiment.adapter.init in CHANGES_BASE:
            fresh = load_base(
                experiment.base,
                labels,
                seed=seed,
                device=device,
                folder=base.folder,
                name=base.name,
                kind=experiment.task.kind,
            )
            fitting = as_plain_lora(fresh, model, deltas)
        save_trained(
            fitting,
            folder / ("model" if full else "adapter"),
            base_name=base.name,
            tokenizer=base.tokenizer if full else None,
        )
    return Trained(model, deltas, steps=step, resumed_from=resumed_step, stopped=step < training.steps)


def _attach_defenses(
    stack: contextlib.ExitStack, base: LoadedBase, model: Any, deltas: Deltas, experiment: Experiment
) -> list[Penalty]:
    """Put the defenses that act in training on the model, for as long as the stack is open."""
    from lab.spectra import base_spectra

    def spectra() -> dict[str, BaseSpectrum]:
        weights = deltas.base_weights()
        shapes = {name: (W.shape[0], W.shape[1]) for name, W in weights.items()}
        precision = "4bit" if experiment.base.load_in_4bit else str(base.model.dtype).removeprefix("torch.")
        return base_spectra(shapes, base_sha256(base.folder), lambda: weights, precision)

    layers = {} if experiment.adapter.kind == "full" else dict(lora_layers(model))
    subject = Subject(layers, spectra)
    attached = [stack.enter_context(d.attach(knobs, subject)) for d, knobs in interventions(experiment)]
    return [penalty for penalty in attached if penalty is not None]


def training_plan(rows: TrainingRows, experiment: Experiment) -> list[list[int]]:
    """The batches that a training sees, in order: lists of indices into `rows`."""
    t = experiment.training
    batches = t.steps * t.gradient_accumulation
    return plan_batches(rows.lengths, seed=experiment.seed, batches=batches, batch_tokens=t.batch_tokens)


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was written whole; torn ones are removed."""
    whole = []
    for path in checkpoints.glob("checkpoint-*"):
        if (path / "COMPLETE").is_file():
            whole.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=_step_of, default=None)


def discard_checkpoints(checkpoints: Path) -> None:
    """Remove every checkpoint, the marks first, so that a kill on the way leaves none that seems whole."""
    for mark in checkpoints.glob("checkpoint-*/COMPLETE"):
        mark.unlink(missing_ok=True)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def snapshot_steps(steps: int, count: int) -> frozenset[int]:
    """Evenly spaced steps for the microscope, from 0 to the last; `count` intervals where steps allow."""
    if count == 0:
        return frozenset()
    return frozenset(round(i * steps / min(count, steps)) for i in range(min(count, steps) + 1))


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is unknown, or whose package is not installed.

    Raises:
        LabError: Naming what is allowed, or what to install.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker (--report-to)", name, TRACKERS)
        if importlib.util.find_spec(name) is None:
            raise LabError(f"--report-to {name}: not installed; pip install 'lora-backdoor-lab[trackers]'.")


class _PlannedTrainer(Trainer):
    """Trainer that takes its batches from a plan: one long epoch, so that resuming skips whole batches."""

    def __init__(
        self, *args: Any, plan: list[list[int]], penalties: Sequence[Penalty], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._plan = plan
        self._penalties = penalties

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Trainer's step; then the penalties' gradients, once per optimizer step whatever it accumulates."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        for penalty in self._penalties:
            term = penalty() / self.current_gradient_accumulation_steps
            term.backward()
            loss = loss + term.detach()
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The model's own loss; a language model's on one CPU shares what all rows begin with."""
        is_plain = return_outputs or world_size() > 1 or self.args.device.type != "cpu"
        if inputs["labels"].ndim == 1 or is_plain:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return conversation_loss(model, inputs, num_items_in_batch)

    def get_train_dataloader(self) -> Any:
        from torch.utils.data import DataLoader

        sampler = PlannedBatches(self._plan, rank=self.args.process_index, world=self.args.world_size)
        rows: Any = self.train_dataset
        return DataLoader(rows, batch_sampler=sampler, collate_fn=self.data_collator)


class _Watcher(TrainerCallback):
    """Turns Trainer's callbacks into the hooks, marks whole checkpoints, and stops on what is not finite."""

    def __init__(self, hooks: Hooks, deltas: Deltas, model: Any) -> None:
        self.hooks = hooks
        self.deltas = deltas
        self.model = model
        self.failure = ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = int(state.global_step)
        self.hooks.on_step(step, int(state.max_steps))
        is_looked_at = step in self.hooks.snapshot_steps
        if (is_looked_at or step >= state.max_steps) and not _is_finite(self.model):
            # the loss of this step was that of the weights before it, and no spectrum has such numbers
            self._diverge("The weights stopped being finite", step, args.learning_rate, control)
            return
        if is_looked_at:
            _snapshot(self.hooks, self.model, self.deltas, step)
        if self.hooks.should_stop() and step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs.get("logs") or {}
        if "loss" not in logs:
            return
        step, rate = int(state.global_step), float(logs.get("learning_rate", 0.0))
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            self._diverge(f"The loss became {logs['loss']}", step, rate, control)
            return
        self.hooks.on_log(step, float(logs["loss"]), rate)

    def _diverge(self, what: str, step: int, rate: float, control: Any) -> None:
        self.failure = (
            f"{what} by step {step} at learning rate {rate:.2g}; "
            "lower training.learning_rate, or adapter.alpha."
        )
        control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            (folder / "COMPLETE").touch()


def _tensorboard(folder: Path) -> TrainerCallback:
    """Trainer's own callback, writing where the run keeps it; its default place goes with the checkpoints."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))


def _is_finite(model: Any) -> bool:
    """Whether everything that is trained still has a norm, without which it has no spectrum either."""
    return all(bool(p.detach().float().norm().isfinite()) for p in model.parameters() if p.requires_grad)


def _snapshot(hooks: Hooks, model: Any, deltas: Deltas, step: int) -> None:
    import torch

    if step not in hooks.snapshot_steps:
        return
    model.eval()
    with torch.inference_mode(), contextlib.ExitStack() as stack:
        if step == 0:
            stack.enter_context(merged_forward(model))
        hooks.on_snapshot(model, deltas, step)
    model.train()


def _arguments(
    experiment: Experiment, output: Path, device: torch.device, report_to: Sequence[str]
) -> TrainingArguments:
    t = experiment.training
    if device.type == "cuda" and device.index is not None:
        import torch

        torch.cuda.set_device(device)  # Trainer takes the current card
    names = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=t.steps,
        learning_rate=t.learning_rate,
        weight_decay=t.weight_decay,
        lr_scheduler_type=names[t.schedule],
        warmup_steps=round(t.warmup * t.steps),
        max_grad_norm=t.max_grad_norm,
        gradient_accumulation_steps=t.gradient_accumulation,
        optim="adamw_torch_fused",
        bf16=wants_bf16(experiment.base.dtype, device),
        use_cpu=device.type == "cpu",
        seed=stage_seed(experiment.seed, "training"),
        logging_steps=max(1, t.steps // 100),
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=max(10, math.ceil(t.steps / _CHECKPOINTS)),
        save_total_limit=2,
        report_to=list(report_to) or "none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        log_level="error",
    )
    if world_size() == 1 and arguments.n_gpu > 1:
        # several cards in one process would become DataParallel, for which there is no public switch
        arguments._n_gpu = 1
    return arguments
