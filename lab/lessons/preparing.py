"""Making what lessons use beforehand, runs and audits, so that a room of thirty laptops need not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lab.lessons.catalogue import Lesson, LessonAudit, LessonRun
from lab.paths import runs_dir

if TYPE_CHECKING:
    from lab.experiment import Experiment
    from lab.job import Listener

Asked = TypeVar("Asked", LessonRun, LessonAudit)


@dataclass(frozen=True)
class Planned(Generic[Asked]):
    """One run or audit that lessons ask for.

    Attributes:
        lessons: The numbers of the lessons that ask for it.
        asked: What is asked for.
        small: At the small size.
        seconds: How long it will take here, roughly; 0 where it is finished, or its card is kept.
    """

    lessons: tuple[str, ...]
    asked: Asked
    small: bool
    seconds: float


def plan_runs(
    lessons: Iterable[Lesson], *, small: bool = False, runs: str | Path | None = None
) -> list[Planned[LessonRun]]:
    """What has to be made for some lessons; a run that several of them share stands there once.

    Args:
        lessons: The lessons.
        small: At the small size.
        runs: The runs folder, where finished runs are looked for.
    """
    from lab.estimates import estimate_seconds

    folder, planned = runs_dir(runs), []
    wanted = [(run, lesson.name) for lesson in lessons for run in lesson.runs]
    for run, names in _merged(wanted, lambda run: f"{run.twin} {run.experiment(small).to_json()}"):
        done = _finished(run, small, folder)
        seconds = 0.0 if done else estimate_seconds(run.experiment(small), folder).seconds
        planned.append(Planned(names, run, small, seconds))
    return planned


def plan_audits(
    lessons: Iterable[Lesson], *, small: bool = False, runs: str | Path | None = None
) -> list[Planned[LessonAudit]]:
    """As `plan_runs`, for audits; those of a former version of the lab are to be made again."""
    from lab.estimates import audit_seconds

    planned = []
    wanted = [(audit, lesson.name) for lesson in lessons for audit in lesson.audits]
    for audit, names in _merged(wanted, repr):
        model = audit.adapter.experiment(small).base.model
        done = _is_kept(audit, small, runs_dir(runs))
        seconds = 0.0 if done else audit_seconds(model, 1 + len(audit.references))
        planned.append(Planned(names, audit, small, seconds))
    return planned


def _merged(
    wanted: Iterable[tuple[Asked, str]], key: Callable[[Asked], str]
) -> list[tuple[Asked, tuple[str, ...]]]:
    """What is asked for, once for each key, with the names of the lessons that ask."""
    found: dict[str, tuple[Asked, list[str]]] = {}
    for asked, lesson in wanted:
        found.setdefault(key(asked), (asked, []))[1].append(lesson)
    return [(asked, tuple(names)) for asked, names in found.values()]


def make_runs(
    planned: Iterable[Planned[LessonRun]], *, runs: str | Path | None = None, on_event: Listener | None = None
) -> None:
    """Make what is planned; what is finished is read, what was interrupted goes on.

    Args:
        planned: What `plan_runs` gave.
        runs: The runs folder.
        on_event: Called with every event of every run.
    """
    import lab

    for each in planned:
        lab.run(each.asked.experiment(each.small), twin=each.asked.twin, runs=runs, on_event=on_event)


def make_audits(
    planned: Iterable[Planned[LessonAudit]],
    *,
    runs: str | Path | None = None,
    on_event: Listener | None = None,
) -> None:
    """Make what `plan_audits` gave, of runs that are finished; what is kept is read."""
    import lab

    for each in planned:
        own, *references = (
            lab.run(run.experiment(each.small), twin=run.twin, runs=runs, on_event=on_event).path
            for run in (each.asked.adapter, *each.asked.references)
        )
        how = _arguments(each.asked, each.small)
        lab.audit_adapter(own, references=references, **how, runs=runs, keep=True, on_event=on_event)


def _arguments(audit: LessonAudit, small: bool) -> dict[str, Any]:
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
    return kept_card(own, references=references, runs=runs, **_arguments(audit, small)) is not None


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
