"""The stage that trains: from prepared rows to weights, spectra and events in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, RunFailedError
from lab.files import write_json, write_table, write_text
from lab.job import Job
from lab.prepare import Prepared
from lab.processes import agree, is_main, wait
from lab.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from lab.train.fit import Trained

#: Reloaded weights must answer as the trained ones did; float32 sums in another order differ by less.
_PARITY = 1e-3
#: On GPUs matrix products are coarser (TF32, bf16).
_PARITY_GPU = 0.1
#: Singular values kept of the trained ΔW; a full fine-tune has hundreds.
_KEPT = 64


class StoppedError(LabError):
    """A training that was asked to stop; its last checkpoint is kept."""

    exit_code = 130


def train_run(job: Job, prepared: Prepared, folder: RunFolder) -> None:
    """Train, and save weights, card, rows and spectra, unless a former process got that far.

    Raises:
        StoppedError: When a `stop` file appeared; asked again, the run goes on.
        RunFailedError: When the loss stops being finite, or the saved weights are not the trained ones.
    """
    if agree((folder.path / "trained.json").is_file()):
        return
    from lab.train.fit import discard_checkpoints, fine_tune, last_checkpoint, training_plan
    from lab.train.models import load_base

    e, checkpoints = prepared.experiment, folder.path / "checkpoints"
    with job.timed("load"):
        job.tell(folder, "status", stage="load", run=folder.id)
        base = load_base(
            e.base,
            prepared.labels,
            seed=e.seed,
            device=job.device,
            folder=prepared.base.folder,
            name=prepared.base.name,
            kind=e.task.kind,
        )
        rows = prepared.tokens()
    if is_main():
        (folder.path / "failure.json").unlink(missing_ok=True)
        if last_checkpoint(checkpoints) is None:
            folder.events.unlink(missing_ok=True)
        write_table(folder.path / "rows.parquet", prepared.rows)
    wait()
    if agree((folder.path / "stop").exists()):  # asked for while the model was loading
        raise StoppedError(f"{folder.id} was stopped before it trained; ask for it again to go on.")
    job.tell(folder, "status", stage="train", steps=e.training.steps, run=folder.id)
    look = _TimedCalls(_microscope(job, prepared, folder))
    start = time.perf_counter()
    try:
        with job.timed("train"):
            hooks = _hooks(job, prepared, folder, look)
            trained = fine_tune(
                base, rows, e, folder.path, device=job.device, hooks=hooks, report_to=job.report_to
            )
    except KeyboardInterrupt:
        (folder.path / "stop").touch()
        raise
    seconds = time.perf_counter() - start
    if trained.stopped:
        raise StoppedError(f"{folder.id} was stopped at step {trained.steps}; ask for it again to go on.")
    if is_main():
        where = "model" if e.adapter.kind == "full" else "adapter"
        write_card(prepared, folder, where, base.name)
        spectra = spectra_table(folder, trained, prepared.base.sha256)
        write_table(folder.path / "spectra.parquet", spectra)
        plan = training_plan(rows, e)[trained.resumed_from * e.training.gradient_accumulation :]
        tokens = sum(len(rows.token_ids[i]) for batch in plan for i in batch)
        facts = {
            "parity": check_parity(job, prepared, folder, trained.model),
            "resumed_from": trained.resumed_from,
            "seconds": round(seconds, 3),
            "microscope_seconds": round(look.seconds, 3),
            "tokens": tokens,
            "tokens_per_second": round(tokens / max(seconds - look.seconds, 1e-9), 1),
        }
        write_json(folder.path / "trained.json", facts)
        discard_checkpoints(checkpoints)
    wait()


def spectra_table(folder: RunFolder, trained: Trained, sha256: str) -> pd.DataFrame:
    """The microscope's singular values and the last ones, with those of W beside the last.

    Args:
        folder: The run, whose events hold what the microscope saw.
        trained: The finished training: its last step, and what it changed.
        sha256: Hash of the base's weights.

    Returns:
        A table with the columns of `lab.tables.SPECTRUM_COLUMNS`.
    """
    from lab.spectra import base_singular_values

    looks = {event["step"]: event["sigma"] for event in folder.read_events() if event["kind"] == "spectrum"}
    last, updates = trained.steps, trained.deltas.updates()
    looks[last] = {name: update.singular_values() for name, update in updates.items()}
    return sigma_table(looks, base_singular_values(trained.deltas.base_weights(), sha256), last=last)


def sigma_table(
    looks: Mapping[int, Mapping[str, Any]], base: Mapping[str, Any], *, last: int
) -> pd.DataFrame:
    """Singular values of ΔW by step and module as a table, with those of W beside the last step's.

    Args:
        looks: For each step, the descending singular values of every module's ΔW.
        base: The singular values of W by module.
        last: The last step.

    Returns:
        A table with the columns of `lab.tables.SPECTRUM_COLUMNS`.
    """
    import pandas as pd

    from lab.modules import layer_index
    from lab.tables import SPECTRUM_COLUMNS

    lines = []
    for step in sorted(looks):
        for module, values in looks[step].items():
            W = base[module] if step == last else []
            for i, sigma in enumerate(values[:_KEPT]):
                of_base = float(W[i]) if i < len(W) else float("nan")
                lines.append((step, module, layer_index(module), i, float(sigma), of_base))
    return pd.DataFrame(lines, columns=list(SPECTRUM_COLUMNS))


def _hooks(job: Job, prepared: Prepared, folder: RunFolder, look: Callable[..., None]) -> Any:
    from lab.train.fit import Hooks, snapshot_steps

    e = prepared.experiment

    def resumed(step: int) -> None:
        if is_main():
            folder.rewind_events(step)
        job.tell(folder, "status", stage="resume", step=step)

    return Hooks(
        on_log=lambda step, loss, rate: job.tell(folder, "train", step=step, loss=loss, learning_rate=rate),
        on_step=lambda step, steps: job.progress("train", step, steps, step),
        on_snapshot=look,
        snapshot_steps=snapshot_steps(e.training.steps, e.probe.snapshots) if is_main() else frozenset(),
        should_stop=lambda: agree((folder.path / "stop").exists()),
        on_resume=resumed,
    )


def _microscope(job: Job, prepared: Prepared, folder: RunFolder) -> Callable[..., None]:
    from lab.train.microscope import Microscope, View

    e = prepared.experiment
    rows = prepared.evaluation_rows("validation", e.probe.snapshot_rows)
    asked = prepared.headline_texts(rows)
    index = {label: i for i, label in enumerate(prepared.labels)}

    def view(part: pd.DataFrame) -> View:
        ids = prepared.reading.token_ids(list(part["text"]))
        return View(ids, [index[label] for label in part["label"]])

    triggered = asked[asked["condition"] == "triggered"]
    return Microscope(
        view(asked[asked["condition"] == "clean"]),
        view(triggered) if len(triggered) else None,
        target=index.get(prepared.target_label, -1),
        reading=prepared.reading,
        emit=lambda kind, **fields: job.tell(folder, kind, **fields),
    )


def check_parity(job: Job, prepared: Prepared, folder: RunFolder, trained: Any) -> float:
    """The largest difference between the trained model's logits and the reloaded one's, on 16 rows.

    Raises:
        RunFailedError: It is larger than rounding explains.
    """
    import numpy as np

    from lab.probe import Predictor
    from lab.trained_model import load_predictor

    texts = list(prepared.evaluation_rows("validation", 16)["text"])
    before = Predictor(
        trained, prepared.tokenizer, prepared.labels, job.device, reading=prepared.reading
    ).logits(texts)
    after = load_predictor(folder.path, job.device).logits(texts)
    difference = float(np.abs(before - after).max())
    if not difference <= (_PARITY if job.device.type == "cpu" else _PARITY_GPU):
        raise RunFailedError(
            f"{folder.id}: the saved weights answer differently from the trained ones (logits differ by "
            f"{difference:.2g}); nothing was recorded."
        )
    return difference


def write_card(prepared: Prepared, folder: RunFolder, where: str, base: str) -> None:
    """Write the model card beside the weights."""
    from lab.cards import model_card

    write_text(folder.path / where / "README.md", model_card(prepared, base, where))


class _TimedCalls:
    """A function that keeps count of the seconds spent in it."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self.seconds = 0.0

    def __call__(self, *args: Any) -> None:
        start = time.perf_counter()
        self._function(*args)
        self.seconds += time.perf_counter() - start
