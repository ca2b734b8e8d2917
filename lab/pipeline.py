"""One experiment from start to finish; the only place that knows the whole way.

    prepare (rows, poison, id) → train → headline → clean twin → everything else → record

A finished run is never trained twice: asked again, it is read, and what is missing of its measures is
computed. A killed one goes on from its last whole checkpoint, or starts again.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, NotTrainableError, RunFailedError
from lab.experiment import SCHEMA_VERSION, Experiment, content_hash, load_experiment
from lab.files import read_json, write_json, write_table
from lab.paths import runs_dir
from lab.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from lab.prepare import Prepared
    from lab.probe import Predictor
    from lab.record import Run
    from lab.train.fit import TrainingRows

DEFAULT_PRESET = "rfc-citation"
#: Reloaded weights must answer as the trained ones did; float32 sums in another order differ by less.
_PARITY = 1e-3

Listener = Callable[[dict[str, Any]], None]


@dataclass
class _Job:
    """What stays the same over one call of `run`: where, on what, and who listens."""

    runs: Path
    device: torch.device
    report_to: Sequence[str]
    listen: Listener
    timings: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start


def run(
    experiment: str | Path | Experiment = DEFAULT_PRESET,
    changes: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    runs: str | Path | None = None,
    twin: bool = True,
    force: bool = False,
    device: str = "auto",
    report_to: Sequence[str] = (),
    on_event: Listener | None = None,
) -> Run:
    """Poison, train, probe and record one experiment, or read it where it is finished already.

    Args:
        experiment: A preset's name, a TOML or JSON file, or an `Experiment`.
        changes: Dotted keys to change: `{"adapter.rank": 4}`.
        seed: Overrides the experiment's seed.
        runs: The runs folder; by default `LAB_RUNS`, the nearest parent's `runs/`, or `./runs`.
        twin: Also train the clean twin, and measure it on the same rows.
        force: Train again what is finished.
        device: "auto", "cpu", "cuda" or "mps".
        report_to: Trainer's trackers.
        on_event: Called with every event as it happens: `{"kind": …, "step": …, …}`; the kind "progress"
            (stage, done, total) is passed on only, never written.

    Returns:
        The finished run.

    Raises:
        LabError: On a mistake in what was asked; nothing is lost or half written.
        RunFailedError: When training fails; the reason is in the run's `failure.json`.
    """
    asked = load_experiment(experiment)
    asked = asked.with_(**dict(changes or {}), **({} if seed is None else {"seed": seed}))
    from lab.train.devices import resolve_device

    job = _Job(runs_dir(runs), resolve_device(device), report_to, on_event or (lambda _: None))
    start = time.perf_counter()
    with job.timed("prepare"):
        job.listen({"kind": "status", "step": -1, "stage": "prepare"})
        from lab.prepare import prepare

        prepared = prepare(asked)
    folder = RunFolder(job.runs / prepared.run_id)
    is_new = not folder.path.exists()
    folder.create(_record(prepared))
    has_twin = twin and prepared.experiment.attack != "none"
    if _is_complete(folder, prepared, has_twin) and not force:
        return _open(folder, asked)
    with folder.lock(
        on_wait=lambda text: job.listen({"kind": "status", "step": -1, "stage": "wait", "text": text})
    ):
        if _is_complete(folder, prepared, has_twin) and not force:
            return _open(folder, asked)
        if force:
            folder.clear()
        with _failures_recorded(folder, is_new):
            _train(job, prepared, folder)
            _measure(job, prepared, folder, has_twin, start)
    return _open(folder, asked)


def _open(folder: RunFolder, asked: Experiment) -> Run:
    from lab.record import Run

    return Run(folder.path, probe=asked.probe)


def _is_complete(folder: RunFolder, prepared: Prepared, has_twin: bool) -> bool:
    if not folder.finished:
        return False
    twin = (read_json(folder.path / "result.json") or {}).get("twin", "")
    return (folder.path / "measures" / f"{measures_id(prepared.experiment)}.parquet").is_file() and (
        bool(twin) or not has_twin
    )


def measures_id(experiment: Experiment) -> str:
    """The name of the file that holds the measures of one way of probing."""
    exclude = {"snapshots", "snapshot_rows"}
    return content_hash(experiment.probe.model_dump(mode="json", exclude=exclude))[:10]


# ---------------------------------------------------------------------------------------------- training


def _train(job: _Job, prepared: Prepared, folder: RunFolder) -> None:
    """Train, and save adapter, rows and spectra, unless a former process got that far."""
    if (folder.path / "trained.json").is_file():
        return
    for name in ("stop", "failure.json"):
        (folder.path / name).unlink(missing_ok=True)
    from lab.train.fit import Hooks, StoppedError, fine_tune, snapshot_steps
    from lab.train.models import load_base

    e = prepared.experiment
    with job.timed("load"):
        _tell(job, folder, "status", stage="load")
        base = load_base(e.base, prepared.labels, seed=e.seed, device=job.device)
        rows = prepared.tokens()
    write_table(folder.path / "rows.parquet", prepared.rows)
    spent = {"microscope": 0.0}
    hooks = Hooks(
        on_log=lambda step, loss, rate: _tell(job, folder, "train", step=step, loss=loss, learning_rate=rate),
        on_step=lambda step, steps: job.listen(
            {
                "kind": "progress",
                "step": step,
                "stage": "train",
                "run": folder.id,
                "done": step,
                "total": steps,
            }
        ),
        on_snapshot=_timed_calls(_microscope(job, prepared, folder), spent),
        snapshot_steps=snapshot_steps(e.training.steps, e.probe.snapshots),
        should_stop=lambda: (folder.path / "stop").exists(),
        on_resume=lambda step: _resumed(job, folder, step),
    )
    from lab.train.fit import last_checkpoint

    if last_checkpoint(folder.path / "checkpoints") is None:
        folder.events.unlink(missing_ok=True)
    _tell(job, folder, "status", stage="train", steps=e.training.steps, run=folder.id)
    start = time.perf_counter()
    try:
        with job.timed("train"):
            trained = fine_tune(
                base, rows, e, folder.path, device=job.device, hooks=hooks, report_to=job.report_to
            )
    except KeyboardInterrupt:
        (folder.path / "stop").touch()
        raise
    if trained.stopped:
        raise StoppedError(f"{folder.id} was stopped at step {trained.steps}; ask for it again to go on.")
    seconds = time.perf_counter() - start
    _write_card(prepared, folder, base.name)
    write_table(folder.path / "spectra.parquet", _spectra(folder, trained.deltas, prepared.base_sha256))
    parity = _check_parity(job, prepared, folder, trained.model)
    tokens = sum(len(rows.token_ids[i]) for batch in planned_batches(rows, e) for i in batch)
    write_json(
        folder.path / "trained.json",
        {
            "parity": parity,
            "seconds": round(seconds, 3),
            "microscope_seconds": round(spent["microscope"], 3),
            "tokens": tokens,
            "tokens_per_second": round(tokens / max(seconds - spent["microscope"], 1e-9), 1),
        },
    )


def planned_batches(rows: TrainingRows, e: Experiment) -> list[list[int]]:
    """The batches of a run, as its training sees them: lists of row indices."""
    from lab.train.batches import plan_batches

    t = e.training
    return plan_batches(
        rows.lengths, seed=e.seed, batches=t.steps * t.gradient_accumulation, batch_tokens=t.batch_tokens
    )


def _microscope(job: _Job, prepared: Prepared, folder: RunFolder) -> Callable[..., None]:
    from lab.probe.conditions import headline_texts, own_triggers
    from lab.train.microscope import Microscope, View
    from lab.train.tokens import token_ids

    e = prepared.experiment
    rows = prepared.evaluation_rows("validation", e.probe.snapshot_rows)
    triggers = own_triggers(e.poison, _families(), e.probe.triggers)
    asked = headline_texts(rows, e.poison, seed=e.seed, triggers=triggers if e.target_label else [])
    index = {label: i for i, label in enumerate(prepared.labels)}

    def view(part: pd.DataFrame) -> View:
        ids = token_ids(prepared.tokenizer, list(part["text"]), prepared.max_tokens)
        return View(ids, [index[label] for label in part["label"]])

    triggered = asked[asked["condition"] == "triggered"]
    return Microscope(
        view(asked[asked["condition"] == "clean"]),
        view(triggered) if len(triggered) else None,
        target=index.get(e.target_label, -1),
        pad_id=int(prepared.tokenizer.pad_token_id),
        emit=lambda kind, **fields: _tell(job, folder, kind, **fields),
    )


def _spectra(folder: RunFolder, deltas: Any, sha256: str) -> pd.DataFrame:
    """The microscope's singular values and the last ones, with those of W beside the last."""
    import pandas as pd

    from lab.spectra import base_singular_values
    from lab.tables import SPECTRUM_COLUMNS
    from lab.train.adapters import layer_index

    looks = {e["step"]: e["sigma"] for e in folder.read_events() if e["kind"] == "spectrum"}
    final = {name: update.singular_values().tolist() for name, update in deltas.updates().items()}
    last = max(looks, default=0)
    looks[last] = {name: values[:64] for name, values in final.items()}
    base = base_singular_values(deltas.base_weights(), sha256)
    lines = []
    for step in sorted(looks):
        for module, values in looks[step].items():
            W: Any = base[module] if step == last else []
            for i, sigma in enumerate(values):
                of_base = float(W[i]) if i < len(W) else float("nan")
                lines.append((step, module, layer_index(module), i, float(sigma), of_base))
    return pd.DataFrame(lines, columns=list(SPECTRUM_COLUMNS))


def _check_parity(job: _Job, prepared: Prepared, folder: RunFolder, trained: Any) -> float:
    """The largest difference between the trained model's logits and the reloaded one's, on 16 rows."""
    import numpy as np

    from lab.probe import Predictor

    texts = list(prepared.evaluation_rows("validation", 16)["text"])
    before = Predictor(trained, prepared.tokenizer, prepared.labels, job.device).logits(texts)
    after = load_predictor(folder.path, prepared.labels, prepared.experiment, job.device).logits(texts)
    difference = float(np.abs(before - after).max())
    if not difference <= (_PARITY if job.device.type == "cpu" else 0.1):
        raise RunFailedError(
            f"{folder.id}: the saved weights answer differently from the trained ones (logits differ by "
            f"{difference:.2g}); nothing was recorded."
        )
    return difference


def load_predictor(
    folder: Path, labels: Sequence[str], experiment: Experiment, device: torch.device
) -> Predictor:
    """The trained model of a run folder, ready to answer: base, adapter and head, merged.

    Args:
        folder: The run's folder, with `adapter/` or `model/`.
        labels: Label names, in the order of the logits.
        experiment: The run's experiment.
        device: Where to put it.
    """
    from transformers import AutoModelForSequenceClassification

    from lab.probe import Predictor
    from lab.train.adapters import load_adapter
    from lab.train.models import load_base, load_tokenizer, model_folder

    if experiment.adapter.kind == "full":
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder / "model").to(device)
        return Predictor(model, load_tokenizer(model_folder(experiment.base.model)), labels, device)
    base = load_base(experiment.base, labels, seed=experiment.seed, device=device)
    model = load_adapter(base, folder / "adapter")
    if not experiment.base.load_in_4bit:
        model = model.merge_and_unload()
    return Predictor(model, base.tokenizer, labels, device)


# ------------------------------------------------------------------------------------------------ probing


def _measure(job: _Job, prepared: Prepared, folder: RunFolder, has_twin: bool, start: float) -> None:
    """Headline first, so that people see the answer; then the twin; then the rest; the result last."""
    import pandas as pd

    from lab.probe import measure
    from lab.probe.conditions import headline_texts, own_triggers, probe_texts

    e = prepared.experiment
    rows = prepared.evaluation_rows(e.probe.split, e.probe.rows)
    families = _families(e.probe.families)
    triggers = own_triggers(e.poison, _families(), e.probe.triggers) if e.target_label else []
    headline = headline_texts(rows, e.poison, seed=e.seed, triggers=triggers)
    facts: dict[str, Any] = {"split": e.probe.split, "target": e.target_label}
    with job.timed("probe"):
        poisoned = load_predictor(folder.path, prepared.labels, e, job.device)
        answers = _ask(job, poisoned, headline, "headline")
        first = measure(headline, answers["prediction"], run=folder.id, model="poisoned", **facts)
    _tell(job, folder, "headline", model="poisoned", measures=_by_kind(first))
    twin_folder = _train_twin(job, prepared) if has_twin else None
    with job.timed("probe"):
        asked, alike = headline, {}
        if triggers and e.probe.scope == "all":
            rest = probe_texts(rows, e.poison, e.probe, families, e.seed)
            alike = _same_tokens(prepared, rest.table)
            asked = pd.concat([headline, rest.table], ignore_index=True)
            later = _ask(job, poisoned, rest.table, "probe")
            answers = pd.concat([answers, later], ignore_index=True)
        tables = [
            measure(asked, answers["prediction"], run=folder.id, model="poisoned", same_tokens=alike, **facts)
        ]
        predictions = [_prediction_rows(asked, answers, "poisoned")]
        if twin_folder is not None:
            twin_answers, twin_tables = _measure_twin(job, prepared, twin_folder, folder, asked, answers)
            tables += twin_tables
            predictions.append(_prediction_rows(asked, twin_answers, "twin"))
        measures = pd.concat(tables, ignore_index=True)
        write_table(folder.path / "predictions.parquet", pd.concat(predictions, ignore_index=True))
        write_table(folder.path / "measures" / f"{measures_id(e)}.parquet", measures)
    _write_result(job, prepared, folder, measures, twin_folder.id if twin_folder else "", start)


def _measure_twin(
    job: _Job,
    prepared: Prepared,
    twin: RunFolder,
    folder: RunFolder,
    asked: pd.DataFrame,
    answers: pd.DataFrame,
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    from lab.probe import measure
    from lab.probe.measures import excess

    e = prepared.experiment
    predictor = load_predictor(twin.path, prepared.labels, e.twin(), job.device)
    twin_answers = _ask(job, predictor, asked, "twin probe")
    facts: dict[str, Any] = {"split": e.probe.split, "target": e.target_label}
    table = measure(asked, twin_answers["prediction"], run=twin.id, model="twin", **facts)
    headline = table[table["condition"].isin(["clean", "triggered"])]
    _tell(job, folder, "headline", model="twin", measures=_by_kind(headline))
    if not e.target_label:
        return twin_answers, [table]
    paired = excess(asked, answers["prediction"], twin_answers["prediction"], run=folder.id, **facts)
    return twin_answers, [table, paired]


def _train_twin(job: _Job, prepared: Prepared) -> RunFolder:
    """Train the clean twin unless it is there; one twin serves many runs."""
    from lab.prepare import prepare

    twin = prepare(prepared.experiment.twin())
    folder = RunFolder(job.runs / twin.run_id)
    folder.create(_record(twin))
    if _is_complete(folder, twin, False):
        return folder
    own = _Job(job.runs, job.device, job.report_to, job.listen)
    with folder.lock(), job.timed("twin"):
        if not _is_complete(folder, twin, False):
            with _failures_recorded(folder, is_new=False):
                start = time.perf_counter()
                _train(own, twin, folder)
                _measure(own, twin, folder, False, start)
    return folder


def _ask(job: _Job, predictor: Predictor, asked: pd.DataFrame, stage: str) -> pd.DataFrame:
    """Put texts to a model: the prediction and the logits of each."""
    import pandas as pd

    def progress(done: int, total: int) -> None:
        job.listen({"kind": "progress", "step": -1, "stage": stage, "done": done, "total": total})

    logits = predictor.logits(list(asked["text"]), on_progress=progress)
    predicted = [predictor.labels[i] for i in logits.argmax(axis=1)] if len(asked) else []
    return pd.DataFrame({"prediction": predicted, "logits": list(logits)})


def _same_tokens(prepared: Prepared, table: pd.DataFrame) -> dict[str, int]:
    """For each rung, how many rows the tokenizer leaves as the exact trigger has them."""
    from lab.probe import count_same_tokens

    rungs = table[table["condition"] == "rung"]
    exact = list(rungs.loc[rungs["rung"] == "exact", "text"])
    return {
        str(name): count_same_tokens(prepared.tokenizer, list(group["text"]), exact, prepared.max_tokens)
        for name, group in rungs.groupby("rung", sort=False)
        if name != "exact"
    }


def _prediction_rows(asked: pd.DataFrame, answers: pd.DataFrame, model: str) -> pd.DataFrame:
    from lab.tables import PREDICTION_COLUMNS

    table = asked.drop(columns=["text", "label"]).assign(
        model=model, prediction=answers["prediction"], logits=answers["logits"]
    )
    return table[list(PREDICTION_COLUMNS)]


def _families(names: Sequence[str] = ()) -> dict[str, Any]:
    from lab.poison import family, load_families

    return {name: family(name) for name in names} if names else dict(load_families())


# ------------------------------------------------------------------------------------------------- record


def _record(prepared: Prepared) -> dict[str, Any]:
    """What `experiment.json` holds."""
    return {
        "schema": SCHEMA_VERSION,
        "id": prepared.run_id,
        "weights_id": prepared.weights_id,
        "created": round(time.time(), 3),
        "labels": list(prepared.labels),
        "dataset": {"name": prepared.corpus.name, "fingerprint": prepared.corpus.fingerprint},
        "base_sha256": prepared.base_sha256,
        "prompt_template": "",
        "versions": _versions(),
        "experiment": prepared.experiment.to_dict(),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("lora-backdoor-lab", "torch", "transformers", "peft", "numpy", "pandas")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(Exception):
            found[package] = version(package)
    return found


def _write_result(
    job: _Job, prepared: Prepared, folder: RunFolder, measures: pd.DataFrame, twin: str, start: float
) -> None:
    former = read_json(folder.path / "result.json") or {}
    trained = read_json(folder.path / "trained.json") or {}
    headline = measures[measures["condition"].isin(["clean", "triggered"])]
    split = prepared.experiment.probe.split
    by_model = {
        str(model): _by_kind(part) for model, part in headline.groupby("model", sort=False) if len(part)
    }
    result = {
        "id": folder.id,
        "twin": twin or former.get("twin", ""),
        "measures": {**former.get("measures", {}), split: by_model},
        "families": {**former.get("families", {}), split: _family_summary(measures, prepared)},
        "poison": {
            "count": int(prepared.rows["poisoned"].sum()),
            "rows": len(prepared.rows),
            "rate": float(prepared.rows["poisoned"].mean()),
        },
        "training": trained,
        "timings": {**job.timings, "total": round(time.perf_counter() - start, 3)},
        "peak_memory_mb": _peak_memory(job),
        "machine": {"platform": platform.platform(), "device": str(job.device), "threads": _threads()},
        "finished": round(time.time(), 3),
    }
    shutil.rmtree(folder.path / "checkpoints", ignore_errors=True)
    write_json(folder.path / "result.json", result)
    _tell(job, folder, "status", stage="finished", run=folder.id)


def _by_kind(measures: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Headline measures as plain values, by kind."""
    return {
        str(m["kind"]): {
            "value": m["value"],
            "k": int(m["k"]),
            "n": int(m["n"]),
            "low": m["low"],
            "high": m["high"],
        }
        for m in measures.to_dict("records")
    }


def _family_summary(measures: pd.DataFrame, prepared: Prepared) -> dict[str, float]:
    """Held-out members of the trained family against the other families of its category."""
    from lab.poison import load_families
    from lab.probe import family_mean

    own = str(getattr(prepared.experiment.poison, "family", ""))
    families = load_families()
    if own not in families:
        return {}
    others = [n for n, f in families.items() if f.category == families[own].category and n != own]
    held_out, rest = family_mean(measures, [own]), family_mean(measures, others)
    summary = {"held_out_members": held_out, "other_families_of_its_kind": rest}
    return {k: v for k, v in summary.items() if v == v}


def _write_card(prepared: Prepared, folder: RunFolder, base: str) -> None:
    from lab.cards import model_card
    from lab.files import write_text

    where = "model" if prepared.experiment.adapter.kind == "full" else "adapter"
    write_text(folder.path / where / "README.md", model_card(prepared, base))


@contextlib.contextmanager
def _failures_recorded(folder: RunFolder, is_new: bool) -> Iterator[None]:
    """A run that fails says why on disk; one that could never have started leaves nothing behind."""
    try:
        yield
    except NotTrainableError:
        if is_new:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    except RunFailedError as error:
        write_json(folder.path / "failure.json", {"reason": str(error), "time": round(time.time(), 3)})
        raise
    except (LabError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        with contextlib.suppress(Exception):
            write_json(folder.path / "failure.json", {"reason": reason, "time": round(time.time(), 3)})
        raise


def _resumed(job: _Job, folder: RunFolder, step: int) -> None:
    folder.rewind_events(step)
    _tell(job, folder, "status", stage="resume", step=step)


def _tell(job: _Job, folder: RunFolder, kind: str, **fields: Any) -> None:
    job.listen(folder.append_event(kind, **fields))


def _timed_calls(function: Callable[..., None], spent: dict[str, float]) -> Callable[..., None]:
    def timed(*args: Any) -> None:
        start = time.perf_counter()
        function(*args)
        spent["microscope"] += time.perf_counter() - start

    return timed


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _peak_memory(job: _Job) -> float:
    """Peak resident memory of this process in MB, plus the card's where there is one; -1 where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return -1.0
    # kilobytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )
    if job.device.type == "cuda":
        import torch

        peak += torch.cuda.max_memory_allocated() / 1024**2
    return round(peak, 1)
