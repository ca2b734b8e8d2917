"""The stage of derived runs: edit or guard what a parent run trained, and save it as a run of its own."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from lab.files import write_json, write_table
from lab.job import Job
from lab.prepare import Prepared
from lab.processes import is_main, wait
from lab.store import RunFolder

if TYPE_CHECKING:
    from lab.defend import Weights
    from lab.edited_model import EditedModel


def edit_run(job: Job, prepared: Prepared, folder: RunFolder, parent: RunFolder) -> None:
    """Apply the experiment's weight edits to its parent's weights, and save them with card, rows and spectra.

    Guards learn from clean rows then; without edits, the weights are the parent's own.

    Args:
        job: Device and listener.
        prepared: The derived run's experiment and rows, which are its parent's too.
        folder: The derived run's folder.
        parent: The finished run that trained the weights.
    """
    if is_main():
        start = time.perf_counter()
        with job.timed("edit"):
            (folder.path / "failure.json").unlink(missing_ok=True)
            text = {} if prepared.edits else {"text": "taking over the weights of"}
            job.tell(folder, "status", stage="edit", run=folder.id, parent=parent.id, **text)
            write_table(folder.path / "rows.parquet", prepared.rows)
            difference = (_edit if prepared.edits else _take_over)(job, prepared, folder, parent)
            _calibrate(job, prepared, folder)
        seconds = round(time.perf_counter() - start, 3)
        facts = {"parent": parent.id, "parity": difference, "edit_seconds": seconds}
        write_json(folder.path / "trained.json", facts)
    wait()


def _edit(job: Job, prepared: Prepared, folder: RunFolder, parent: RunFolder) -> float:
    from lab.edited_model import EditedModel

    patient = EditedModel(parent.path, prepared, job.device)
    return _save(job, prepared, folder, patient, apply_edits(prepared, patient))


def _take_over(job: Job, prepared: Prepared, folder: RunFolder, parent: RunFolder) -> float:
    """Copy the parent's weights and spectra, with a card of its own; nothing differs."""
    from lab.training_stage import write_card

    where = "model" if (parent.path / "model").is_dir() else "adapter"
    shutil.copytree(parent.path / where, folder.path / where, dirs_exist_ok=True)
    shutil.copyfile(parent.path / "spectra.parquet", folder.path / "spectra.parquet")
    write_card(prepared, folder, where, prepared.base.name)
    return 0.0


def _calibrate(job: Job, prepared: Prepared, folder: RunFolder) -> None:
    if not prepared.guards:
        return
    from lab.guarding_stage import calibrate_guards
    from lab.trained_model import load_predictor

    model = load_predictor(folder.path, job.device)

    def on_progress(done: int, total: int) -> None:
        job.progress("guard", done, total)

    for facts in calibrate_guards(prepared, folder.path, model, on_progress):
        text = f"{facts['name']} has learned its threshold from clean rows"
        job.tell(folder, "status", stage="guard", text=text, **facts)


def apply_edits(prepared: Prepared, patient: EditedModel) -> Weights:
    """The patient's weights after all of the experiment's edits, in order."""
    weights = patient.weights
    for defense, knobs in prepared.edits:
        weights = defense.edit(knobs, weights, patient)
    return weights


def _save(job: Job, prepared: Prepared, folder: RunFolder, patient: EditedModel, weights: Weights) -> float:
    """Write weights, card and spectra; the largest difference that reloading makes to a logit."""
    from lab.training_stage import check_parity, sigma_table, write_card

    where = patient.save(weights, folder.path)
    write_card(prepared, folder, where, patient.base_name)
    sigma = {name: update.singular_values() for name, update in weights.updates.items()}
    base = {name: W.sigma for name, W in patient.base_spectra(list(sigma)).items()}
    step = prepared.experiment.training.steps
    write_table(folder.path / "spectra.parquet", sigma_table({step: sigma}, base, last=step))
    return check_parity(job, prepared, folder, patient.model)
