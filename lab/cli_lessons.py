"""`lab lessons`: list the lessons, make their runs and audits beforehand, build their notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli_options import JsonOption, RunsOption, print_json

if TYPE_CHECKING:
    from lab.lessons.catalogue import Lesson, LessonAudit, LessonRun
    from lab.lessons.preparing import Planned

lessons_app = typer.Typer(
    help="Lessons for Jupyter: list them, make what they use beforehand, build them.",
    no_args_is_help=True,
)

LessonOption = Annotated[
    list[str] | None, typer.Option("--lesson", help="A lesson's number; may be repeated (default: all).")
]
SmallOption = Annotated[
    bool, typer.Option("--small", help="At the small size: a tiny model on toy texts, in seconds.")
]


@lessons_app.command("list")
def list_lessons(as_json: JsonOption = False) -> None:
    """List the lessons: what each claims, how long it takes, and its exercises."""
    from lab.lessons import EXERCISES

    facts = [
        {
            "lesson": lesson.name,
            "title": lesson.title,
            "claim": lesson.goal,
            "takes": lesson.takes,
            "file": lesson.built.name,
            "exercises": {e.name: e.goal for e in EXERCISES.values() if e.lesson == lesson.name},
        }
        for lesson in _chosen(None)
    ]
    if as_json:
        print_json(facts)
        return
    for fact in facts:
        typer.echo(f"{fact['lesson']} {fact['title']} ({fact['takes']})\n  {fact['claim']}")
        for name, goal in fact["exercises"].items():  # type: ignore[attr-defined]
            typer.echo(f"  {name} {goal}")
        typer.echo("")


@lessons_app.command("prepare")
def prepare_lessons(
    lesson: LessonOption = None,
    small: SmallOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it begins.")] = False,
    runs: RunsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make every run and audit that lessons use; interrupted, it goes on where it was when asked again."""
    from lab.console import ProgressView
    from lab.errors import LabError
    from lab.lessons.preparing import make_audits, make_runs, plan_audits, plan_runs

    chosen = _chosen(lesson)
    planned = plan_runs(chosen, small=small, runs=runs or None)
    audits = plan_audits(chosen, small=small, runs=runs or None)
    facts = [_facts(run, run.asked, run.asked.megabytes) for run in planned]
    facts += [_facts(audit, audit.asked.adapter) for audit in audits]  # a card is some 50 kB
    if as_json and not yes:
        print_json(facts)
        return
    _tell_plan(planned, audits)
    if not yes and any(fact["seconds"] for fact in facts):
        typer.confirm("Begin?", abort=True, err=True)
    with ProgressView(quiet=as_json) as view:
        make_runs(planned, runs=runs or None, on_event=view)
        make_audits(audits, runs=runs or None, on_event=view)
    if any(audit.seconds for audit in plan_audits(chosen, small=small, runs=runs or None)):
        raise LabError(
            "The audits were made, but their cards could not be kept: is the runs folder writable?"
        )
    if as_json:
        print_json([fact | {"seconds": 0.0} for fact in facts])
    else:
        also = f" and {len(audits)} audits" if audits else ""
        typer.echo(f"All {len(planned)} runs{also} are there; the lessons read them in seconds.")


@lessons_app.command("build")
def build_lessons(lesson: LessonOption = None, small: SmallOption = False, runs: RunsOption = "") -> None:
    """Run lessons from top to bottom and write their .ipynb beside the sources."""
    from lab.lessons.building import build_lesson

    for each in _chosen(lesson):
        typer.echo(f"{each.name} {each.title}: running …", err=True)
        path = build_lesson(each, small=small, runs=runs or None)
        typer.echo(f"Wrote {path.name} ({path.stat().st_size / 1000:,.0f} kB)")


def _chosen(names: list[str] | None) -> list[Lesson]:
    from lab.lessons import LESSONS
    from lab.registry import lookup

    return [lookup(LESSONS, name, "lesson") for name in names] if names else list(LESSONS.values())


def _tell_plan(planned: Sequence[Planned[LessonRun]], audits: Sequence[Planned[LessonAudit]]) -> None:
    for run in planned:
        _tell(run.lessons, _told(run.asked), run.seconds)
    for audit in audits:
        clean = len(audit.asked.references)
        _tell(
            audit.lessons, f"audit of {_told(audit.asked.adapter)} beside {clean} clean ones", audit.seconds
        )
    missing = [run for run in planned if run.seconds]
    lacking = [audit for audit in audits if audit.seconds]
    also = f" and {len(lacking)} of {len(audits)} audits" if audits else ""
    seconds = sum(run.seconds for run in missing) + sum(audit.seconds for audit in lacking)
    typer.echo(
        f"{len(missing)} of {len(planned)} runs{also} are to be made: about {_time(seconds)} on this "
        f"machine, {sum(run.asked.megabytes for run in missing):,.0f} MB on the disk.",
        err=True,
    )


def _tell(lessons: Sequence[str], what: str, seconds: float) -> None:
    state = f"about {_time(seconds)}" if seconds else "finished"
    typer.echo(f"lesson {', '.join(lessons)}: {what}: {state}", err=True)


def _told(run: LessonRun) -> str:
    changes = ", ".join(f"{key} = {value}" for key, value in run.changes.items())
    return f"{run.preset}{f' ({changes})' if changes else ''}"


def _facts(each: Planned[Any], run: LessonRun, megabytes: float = 0.0) -> dict[str, Any]:
    return {
        "lessons": list(each.lessons),
        "preset": run.preset,
        "changes": dict(run.changes),
        "audit": each.asked is not run,
        "seconds": round(each.seconds, 1),
        "megabytes": megabytes if each.seconds else 0.0,
    }


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes else f"{round(seconds)} s"
