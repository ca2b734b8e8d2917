"""`lab lessons`: list the lessons, make their runs beforehand, build their notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli_options import JsonOption, RunsOption, print_json

if TYPE_CHECKING:
    from lab.lessons.catalogue import Lesson
    from lab.lessons.preparing import Planned

lessons_app = typer.Typer(
    help="Lessons for Jupyter: list them, make their runs beforehand, build them.", no_args_is_help=True
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
    """Make every run that lessons use; interrupted, it goes on where it was when it is asked again."""
    from lab.console import ProgressView
    from lab.lessons.preparing import make_runs, plan_runs

    planned = plan_runs(_chosen(lesson), small=small, runs=runs or None)
    missing = [each for each in planned if each.seconds]
    if as_json and not yes:
        print_json([_facts(each) for each in planned])
        return
    _tell_plan(planned, missing)
    if missing and not yes:
        typer.confirm("Begin?", abort=True, err=True)
    with ProgressView(quiet=as_json) as view:
        make_runs(planned, runs=runs or None, on_event=view)
    if as_json:
        print_json([_facts(each) | {"seconds": 0.0} for each in planned])
    else:
        typer.echo(f"All {len(planned)} runs are there; the lessons read them in seconds.")


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


def _tell_plan(planned: list[Planned], missing: list[Planned]) -> None:
    for each in planned:
        state = f"about {_time(each.seconds)}" if each.seconds else "finished"
        changes = ", ".join(f"{key} = {value}" for key, value in each.run.changes.items())
        told = f"{each.run.preset}{f' ({changes})' if changes else ''}"
        typer.echo(f"lesson {', '.join(each.lessons)}: {told}: {state}", err=True)
    megabytes = sum(each.run.megabytes for each in missing)
    seconds = sum(each.seconds for each in missing)
    typer.echo(
        f"{len(missing)} of {len(planned)} runs are to be made: about {_time(seconds)} on this machine, "
        f"{megabytes:,.0f} MB on the disk.",
        err=True,
    )


def _facts(each: Planned) -> dict[str, object]:
    return {
        "lessons": list(each.lessons),
        "preset": each.run.preset,
        "changes": dict(each.run.changes),
        "seconds": round(each.seconds, 1),
        "megabytes": each.run.megabytes if each.seconds else 0.0,
    }


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes else f"{round(seconds)} s"
