"""One experiment from start to finish; the only place that knows the whole way.

    base run, if one is asked for → prepare (rows, poison, id) → train, or edit what a parent run trained
    → headline → clean twin → families and near-misses → record

A finished run is never trained twice: asked again, it is read, and what is missing of its measures is
computed. A killed one goes on from its last whole checkpoint, or starts again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.defend import settle
from lab.errors import DivergedError, LabError, NotTrainableError, RunFailedError
from lab.experiment import Experiment
from lab.files import read_json, write_json
from lab.job import Job, Listener
from lab.paths import runs_dir
from lab.presets import load_experiment
from lab.processes import agree, is_main, main_first, wait
from lab.showing import showing
from lab.store import RunFolder

if TYPE_CHECKING:
    from lab.prepare import Prepared
    from lab.record import Run

DEFAULT_PRESET = "rfc-citation"


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
        experiment: A preset's name, a TOML or JSON file, or an `Experiment`. Where its `base.model` names a
            preset or a file in turn, that is run first, with the same seed, and fine-tuned from.
        changes: Dotted keys to change: `{"adapter.rank": 4}`.
        seed: Overrides the experiment's seed.
        runs: The runs folder; by default `LAB_RUNS`, the nearest parent's `runs/`, or `./runs`.
        twin: Also train the clean twin, and measure it on the same rows.
        force: Train again what is finished.
        device: "auto", "cpu", "cuda" or "mps".
        report_to: Trainer's trackers.
        on_event: Called with every event as it happens: `{"kind": …, "step": …, …}`. By default a bar is
            drawn in a notebook and on a terminal (`lab.showing`). Passed on only, never written, are the
            kind "progress" (stage, done, total) and the status of the stages "prepare", "prepared" (run,
            finished), "wait" (run, text) and "begin" (run: this, its twin, base or parent).

    Returns:
        The finished run.

    Raises:
        LabError: On a mistake in what was asked; nothing is lost or half written.
        RunFailedError: When training fails; the reason is in the run's `failure.json`.
    """
    asked = load_experiment(experiment).with_(**dict(changes or {}))
    if seed is not None:
        asked = asked.with_(seed=seed)
    from lab.prepare import prepare
    from lab.record import Run
    from lab.train.devices import resolve_device

    if report_to:
        from lab.train.fit import check_trackers

        check_trackers(report_to)
    with showing(on_event) as listen:
        job = Job(runs_dir(runs), resolve_device(device), report_to, listen)
        asked = _with_base_run(job, settle(asked), twin)
        with job.timed("prepare"), main_first():
            job.listen({"kind": "status", "step": -1, "stage": "prepare"})
            prepared = prepare(asked, job.runs)
        with_twin = twin and prepared.is_poisoned
        _tell_prepared(job, prepared, with_twin)
        folder = _complete(job, prepared, twin=with_twin, force=force)
    return Run(folder.path, probe=asked.probe)


def run_part(
    experiment: Experiment,
    part: str,
    *,
    runs: str | Path | None = None,
    device: str = "auto",
    on_event: Listener | None = None,
) -> str:
    """Run what an experiment needs beside its own run, so that several can share it: its twin or its parent.

    Args:
        experiment: The experiment; a base that is yet to be run is run first.
        part: "twin" for the clean twin, "parent" for the run whose weights are edited or guarded.
        runs: The runs folder.
        device: "auto", "cpu", "cuda" or "mps".
        on_event: As for `run`.

    Returns:
        The id of the finished run; "" where the experiment has no such part.

    Raises:
        LabError: As `run`.
    """
    from lab.prepare import prepare
    from lab.train.devices import resolve_device

    job = Job(runs_dir(runs), resolve_device(device), (), on_event or (lambda _: None))
    asked = _with_base_run(job, settle(experiment), twin=True)
    prepared = prepare(asked, job.runs)
    if part == "twin":
        return _train_twin(job, prepared).id if prepared.is_poisoned else ""
    return _finish_parent(job, prepared).id if prepared.parent_id else ""


def look_up(
    experiment: Experiment, *, runs: str | Path | None = None, twin: bool = True
) -> tuple[str, bool, str]:
    """Find out which run an experiment would be, and whether anything of it is still to be done.

    Nothing is trained or written. The rows are read and poisoned, which takes a part of a second.

    Args:
        experiment: What would be asked.
        runs: The runs folder.
        twin: Whether the clean twin would be asked for.

    Returns:
        The run's id, whether it is complete, and the state of its folder, one of `lab.store.STATES` or ""
        where there is none. The id is "" where the base is an experiment that has not been run.

    Raises:
        LabError: The experiment could not be prepared.
    """
    folder = runs_dir(runs)
    prepared = _prepared(settle(experiment), folder, twin)
    if prepared is None:
        return "", False, ""
    run = RunFolder(folder / prepared.run_id)
    is_complete = _is_complete(run, prepared, twin and prepared.is_poisoned)
    return run.id, is_complete, run.state() if run.path.exists() else ""


def look_up_twin(experiment: Experiment, *, runs: str | Path | None = None) -> tuple[str, str]:
    """Find out which run an experiment's clean twin would be, and the state of its folder.

    Args:
        experiment: The experiment whose twin it is.
        runs: The runs folder.

    Returns:
        The twin's id and state, as `look_up`, both "" where a base or its twin has to be run first. An
        experiment without poison, its own or its base's, has no twin: "" and "finished".

    Raises:
        LabError: The experiment could not be prepared.
    """
    folder = runs_dir(runs)
    prepared = _prepared(settle(experiment), folder, twin=True)
    if prepared is None:
        return "", ""
    if not prepared.is_poisoned:
        return "", "finished"
    twin = _prepared_twin(prepared, folder)
    if twin is None:
        return "", ""
    run = RunFolder(folder / twin.run_id)
    return run.id, run.state() if run.path.exists() else ""


def _prepared_twin(prepared: Prepared, runs: Path) -> Prepared | None:
    """What `_train_twin` would train; None where the base's twin has not been run."""
    from lab.bases import run_experiment
    from lab.prepare import prepare

    clean = prepared.experiment.twin()
    if prepared.base.run:
        base = prepare(run_experiment(RunFolder(runs / prepared.base.run)), runs)
        below = _prepared_twin(base, runs) if base.is_poisoned else base
        if below is None or not RunFolder(runs / below.run_id).finished:
            return None
        clean = clean.with_(**{"base.model": below.run_id})
    return prepare(clean, runs)


def _prepared(asked: Experiment, runs: Path, twin: bool) -> Prepared | None:
    """What an experiment would be; None where its base is an experiment that has not been run."""
    from lab.bases import is_preset
    from lab.prepare import prepare

    if is_preset(asked.base.model):
        named = load_experiment(asked.base.model).with_(seed=asked.seed)
        base = _prepared(settle(named), runs, twin)
        if base is None or not _serves(RunFolder(runs / base.run_id), twin and base.is_poisoned):
            return None
        asked = asked.with_(**{"base.model": base.run_id})
    return prepare(asked, runs)


def finished_run(
    experiment: str | Path | Experiment, *, runs: str | Path | None = None, twin: bool = True
) -> str:
    """The id of the finished run that `run` would only read; "" where something is left to be done.

    Args:
        experiment: As for `run`.
        runs: The runs folder.
        twin: Whether it has to have its clean twin.
    """
    run_id, is_complete, _ = look_up(load_experiment(experiment), runs=runs, twin=twin)
    return run_id if is_complete else ""


def _tell_prepared(job: Job, prepared: Prepared, twin: bool) -> None:
    """Tell the listener which run it will be, before there is a folder of it."""
    done = _is_complete(RunFolder(job.runs / prepared.run_id), prepared, twin)
    job.listen({"kind": "status", "step": -1, "stage": "prepared", "run": prepared.run_id, "finished": done})


def _with_base_run(job: Job, asked: Experiment, twin: bool, above: tuple[str, ...] = ()) -> Experiment:
    """The experiment with a finished run as its base, where its base was an experiment still to be run."""
    from lab.bases import is_preset
    from lab.prepare import prepare

    model = asked.base.model
    if not is_preset(model):
        return asked
    if model in above:
        raise LabError(f"base.model = {model!r} starts from itself: {' → '.join([*above, model])}.")
    base = load_experiment(model).with_(seed=asked.seed)
    base = _with_base_run(job, settle(base), twin, (*above, model))
    with main_first():
        prepared = prepare(base, job.runs)
    with job.timed("base"):
        has_twin = twin and prepared.is_poisoned
        folder = _finish_source(job, prepared.run_id, prepared.experiment, twin=has_twin)
    return asked.with_(**{"base.model": folder.id})


def _complete(job: Job, prepared: Prepared, *, twin: bool, force: bool = False) -> RunFolder:
    """Do what is missing of a run, holding its lock; nothing where nothing is missing."""
    folder = RunFolder(job.runs / prepared.run_id)
    is_new = agree(not folder.path.exists())
    if is_new:
        with job.timed("prepare"), main_first():
            _ = prepared.rows  # a cleaner that leaves nothing is refused before a folder is made
    if is_main():
        from lab.results import experiment_record

        folder.create(experiment_record(prepared))
    if agree(_is_complete(folder, prepared, twin)) and not force:
        return folder

    def waiting(text: str) -> None:
        job.listen({"kind": "status", "step": -1, "stage": "wait", "run": folder.id, "text": text})

    with folder.lock(waiting) if is_main() else contextlib.nullcontext():
        if agree(_is_complete(folder, prepared, twin)) and not force:
            return folder
        if force and is_main():
            folder.clear()
        with _failures_recorded(folder, is_new):
            _work(job, prepared, folder, twin)
    return folder


def _work(job: Job, prepared: Prepared, folder: RunFolder, has_twin: bool) -> None:
    """The way itself: people see the headline first, then the twin is trained, then the rest is measured."""
    from lab.editing_stage import edit_run
    from lab.probing_stage import Probing
    from lab.results import write_result
    from lab.training_stage import train_run

    start = time.perf_counter()
    job.listen({"kind": "status", "step": -1, "stage": "begin", "run": folder.id})
    if is_main():
        folder.remove_leftovers()
        (folder.path / "stop").unlink(missing_ok=True)  # asked again is asked to go on
    if not prepared.parent_id:
        train_run(job, prepared, folder)
    elif not agree((folder.path / "trained.json").is_file()):
        edit_run(job, prepared, folder, _finish_parent(job, prepared))
    if is_main():
        probing = Probing(job, prepared, folder)
        probing.headline()
    twin = _train_twin(job, prepared) if has_twin else None
    if is_main():
        measures = probing.rest(twin)
        seconds = time.perf_counter() - start + job.timings.get("prepare", 0.0)
        write_result(job, prepared, folder, measures, twin.id if twin else "", seconds)
    wait()


def _train_twin(job: Job, prepared: Prepared) -> RunFolder:
    """The same experiment without poison, trained unless it is there; one twin serves many runs.

    Where the poison lies in the base, the twin is the same fine-tuning from the base's own twin.
    """
    with job.timed("twin"):
        clean = prepared.experiment.twin()
        if prepared.base.run:
            clean = clean.with_(**{"base.model": _finish_base_twin(job, prepared.base.run)})
        return _finish_other(job, clean)


def _finish_base_twin(job: Job, run: str) -> str:
    """The id of a base run's twin, which is trained unless it is there; a clean base is its own."""
    from lab.bases import run_experiment
    from lab.prepare import prepare

    with main_first():
        base = prepare(run_experiment(RunFolder(job.runs / run)), job.runs)
    return _train_twin(job, base).id if base.is_poisoned else run


def _finish_parent(job: Job, prepared: Prepared) -> RunFolder:
    """The run whose trained weights a derived run starts from."""
    with job.timed("parent"):
        return _finish_source(job, prepared.parent_id, prepared.experiment.untouched(), twin=False)


def _finish_source(job: Job, run_id: str, asked: Experiment, *, twin: bool) -> RunFolder:
    """A run that another one starts from, its base or parent; its headline is enough.

    A finished one stays as it is, however it was probed: people go on seeing what they asked of it.
    """
    there = RunFolder(job.runs / run_id)
    if agree(_serves(there, twin)):
        return there
    probe = {"scope": "headline", **asked.probe.model_dump(include={"snapshots", "snapshot_rows"})}
    return _finish_other(job, asked.with_(probe=probe), twin=twin)


def _serves(folder: RunFolder, twin: bool) -> bool:
    """Whether another run can start from this one: it is finished, with its twin where one is asked for."""
    return folder.finished and (not twin or bool((read_json(folder.path / "result.json") or {}).get("twin")))


def _finish_other(job: Job, experiment: Experiment, *, twin: bool = False) -> RunFolder:
    from lab.prepare import prepare

    own = Job(job.runs, job.device, job.report_to, job.listen)
    with main_first():
        prepared = prepare(experiment, job.runs)
    return _complete(own, prepared, twin=twin)


def _is_complete(folder: RunFolder, prepared: Prepared, twin: bool) -> bool:
    """Whether the run has been probed in the way that is asked for, with its twin where that is asked."""
    from lab.probing_stage import measures_path, probe_id

    probe = prepared.experiment.probe
    entry = ((read_json(folder.path / "result.json") or {}).get("probes", {})).get(probe_id(probe))
    return entry is not None and measures_path(folder, probe).is_file() and (not twin or bool(entry["twin"]))


@contextlib.contextmanager
def _failures_recorded(folder: RunFolder, is_new: bool) -> Iterator[None]:
    """A run that fails says why on disk; one that could never have started leaves nothing behind."""
    try:
        yield
    except NotTrainableError:
        if is_new and is_main():
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    except (LabError, KeyboardInterrupt) as error:
        if isinstance(error, RunFailedError):
            _write_failure(folder, str(error), diverged=isinstance(error, DivergedError))
        raise
    except Exception as error:
        with contextlib.suppress(Exception):
            _write_failure(folder, f"{type(error).__name__}: {error}")
        raise


def _write_failure(folder: RunFolder, reason: str, *, diverged: bool = False) -> None:
    if is_main():
        told = {"reason": reason, "diverged": diverged, "time": round(time.time(), 3)}
        write_json(folder.path / "failure.json", told)
