"""Making what lessons use beforehand, runs and audits, so that a room of thirty laptops need not wait."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.lessons.catalogue import Lesson, LessonAudit, LessonRun
from lab.paths import runs_dir

if TYPE_CHECKING:
    from lab.experiment import Experiment
    from lab.job import Listener


@dataclass(frozen=True)
class Planned:
    """One run that lessons ask for.

    Attributes:
        lessons: The numbers of the lessons that ask for it.
        run: What is asked for.
        small: At the small size.
        seconds: How long it will take here, roughly; 0 where it is finished.
    """

    lessons: tuple[str, ...]
    run: LessonRun
    small: bool
    seconds: float


@dataclass(frozen=True)
class PlannedAudit:
    """One audit that lessons ask for.

    Attributes:
        lessons: The numbers of the lessons that ask for it.
        audit: What is asked for.
        small: At the small size.
        seconds: How long it will take here, roughly; 0 where its card is kept.
    """

    lessons: tuple[str, ...]
    audit: LessonAudit
    small: bool
    seconds: float


def plan_runs(
    lessons: Iterable[Lesson], *, small: bool = False, runs: str | Path | None = None
) -> list[Planned]:
    """What has to be made for some lessons; a run that several of them share stands there once.

    Args:
        lessons: The lessons.
        small: At the small size.
        runs: The runs folder, where finished runs are looked for.
    """
    from lab.estimates import estimate_seconds

    wanted: dict[str, tuple[LessonRun, list[str]]] = {}
    for lesson in lessons:
        for run in lesson.runs:
            key = f"{run.twin} {run.experiment(small).to_json()}"
            wanted.setdefault(key, (run, []))[1].append(lesson.name)
    folder, planned = runs_dir(runs), []
    for run, names in wanted.values():
        done = _finished(run, small, folder)
        seconds = 0.0 if done else estimate_seconds(run.experiment(small), folder).seconds
        planned.append(Planned(tuple(names), run, small, seconds))
    return planned


def plan_audits(
    lessons: Iterable[Lesson], *, small: bool = False, runs: str | Path | None = None
) -> list[PlannedAudit]:
    """As `plan_runs`, for audits; those of a former version of the lab are to be made again."""
    from lab.estimates import audit_seconds

    wanted: list[tuple[LessonAudit, list[str]]] = []
    for lesson in lessons:
        for audit in lesson.audits:
            names = next((names for other, names in wanted if other == audit), None)
            if names is None:
                wanted.append((audit, names := []))
            names.append(lesson.name)
    planned = []
    for audit, names in wanted:
        model = audit.adapter.experiment(small).base.model
        done = _is_kept(audit, small, runs_dir(runs))
        seconds = 0.0 if done else audit_seconds(model, 1 + len(audit.references))
        planned.append(PlannedAudit(tuple(names), audit, small, seconds))
    return planned


def make_runs(
    planned: Iterable[Planned], *, runs: str | Path | None = None, on_event: Listener | None = None
) -> None:
    """Make what is planned; what is finished is read, what was interrupted goes on.

    Args:
        planned: What `plan_runs` gave.
        runs: The runs folder.
        on_event: Called with every event of every run.
    """
    import lab

    for each in planned:
        lab.run(each.run.experiment(each.small), twin=each.run.twin, runs=runs, on_event=on_event)


def make_audits(
    planned: Iterable[PlannedAudit], *, runs: str | Path | None = None, on_event: Listener | None = None
) -> None:
    """Make what `plan_audits` gave, of runs that are finished; what is kept is read."""
    import lab

    for each in planned:
        own, *references = (
            lab.run(run.experiment(each.small), twin=run.twin, runs=runs, on_event=on_event).path
            for run in (each.audit.adapter, *each.audit.references)
        )
        asked = _asked(each.audit, each.small)
        lab.audit_adapter(own, references=references, **asked, runs=runs, keep=True, on_event=on_event)


def _asked(audit: LessonAudit, small: bool) -> dict[str, Any]:
    from lab.audit.trigger_search import SearchBudget

    return {
        "battery": audit.battery,
        "search": SearchBudget(**audit.small) if small and audit.small else None,
    }


def _is_kept(audit: LessonAudit, small: bool, runs: Path) -> bool:
    from lab.audit.audits import kept_card

    names = [_finished(run, small, runs) for run in (audit.adapter, *audit.references)]
    if not all(names):
        return False
    own, *references = (runs / name for name in names)
    return kept_card(own, references=references, runs=runs, **_asked(audit, small)) is not None


def _finished(run: LessonRun, small: bool, runs: Path) -> str:
    """The id of the run that `lab.run` would only read; "" for none.

    An empty folder is not worth the loading of data.
    """
    from lab.errors import MissingAssetError
    from lab.pipeline import finished_run

    asked = run.experiment(small)
    if not any(runs.glob("*/result.json")) or not _is_here(asked):
        return ""
    try:
        return finished_run(asked, runs=runs, twin=run.twin)
    except MissingAssetError:  # what it is made of is not here yet, so it is not finished either
        return ""


def _is_here(asked: Experiment) -> bool:
    """Whether model and data are in the cache: a plan fetches nothing."""
    from lab.assets.cache import is_cached
    from lab.bases import is_preset
    from lab.corpus import DATASETS
    from lab.presets import load_experiment
    from lab.train.models import MODELS

    if is_preset(asked.base.model) and not _is_here(load_experiment(asked.base.model)):
        return False
    model, data = MODELS.get(asked.base.model), DATASETS.get(asked.data.name)
    assets = [entry.asset for entry in (model, data) if entry is not None and entry.asset]
    return all(is_cached(name) for name in assets)
