import json
import re
import sys
import time
from dataclasses import replace
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

import lab
from lab import cli
from lab.lessons import LESSONS, LessonRun, shrunk
from lab.lessons.building import dumped, execute
from lab.lessons.catalogue import LessonAudit
from lab.lessons.preparing import make_audits, make_runs, plan_audits, plan_runs
from lab.lessons.sources import read_source, solved
from lab.pipeline import finished_run
from lab.run_packs import with_what_they_rest_on

TINY = {"probe.scope": "headline", "training.epochs": 1.0, "probe.snapshots": 2}


@pytest.fixture
def short():
    """Lesson 00 with one short run, and no other lesson; `patch.dict` gives the order back, too."""
    lesson = LESSONS["00"]
    runs = (LessonRun("rfc-citation", TINY, twin=False, megabytes=1.0),)
    alone = replace(lesson, runs=runs)
    with patch.dict(LESSONS, {"00": alone}, clear=True):
        yield alone


def test_what_is_finished_is_not_planned_again(short, tmp_path):
    planned = plan_runs([short, short], small=True, runs=tmp_path)
    assert [(p.lessons, p.seconds > 0) for p in planned] == [(("00", "00"), True)]
    make_runs(planned, runs=tmp_path)
    assert plan_runs([short], small=True, runs=tmp_path)[0].seconds == 0
    assert plan_runs([short], small=False, runs=tmp_path)[0].seconds > 0


def test_the_small_size_plants_nothing_where_the_preset_does_not():
    assert not [key for key in shrunk(poisoned=False) if key.startswith("poison.")]
    run = LessonRun("clean-finetune-lora", {"seed": 3}, small={"base.model": "poisoned-base-tiny"})
    asked = run.experiment(small=True)
    assert (asked.base.model, asked.poison.attack, asked.seed) == ("poisoned-base-tiny", "none", 3)
    assert (run.experiment().base.model, run.experiment().seed) == ("poisoned-base-rare-word", 3)


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=lambda e: e.name)
def test_no_lesson_needs_an_asset_at_its_small_size(lesson):
    for run in lesson.runs:
        asked = run.experiment(small=True)
        bases = [asked.base.model]
        if bases[0] not in ("tiny", "tiny-chat"):
            base = lab.load_experiment(bases[0])
            bases = [base.base.model]
            assert base.data.name == "toy"
        assert set(bases) <= {"tiny", "tiny-chat"}
        assert asked.data.name.startswith("toy")


def test_a_plan_fetches_no_base_that_another_run_starts_from(tmp_path):
    planned = plan_runs([LESSONS["02"]], runs=tmp_path)
    assert all(run.seconds > 0 for run in planned)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "result.json").write_text("{}", encoding="utf-8")
    assert all(run.seconds > 0 for run in plan_runs([LESSONS["02"]], runs=tmp_path))


def test_prepare_shows_time_and_size_and_asks_before_it_makes_anything(short, tmp_path):
    asked = ["lessons", "prepare", "--small", "--runs", str(tmp_path)]
    told = CliRunner().invoke(cli.app, asked, input="n\n")
    assert told.exit_code == 1
    assert re.search(r"1 of 1 runs are to be made: about \d+ (s|min) on this machine, 1 MB", told.stderr)
    assert told.stderr.index("MB on the disk") < told.stderr.index("Begin?")
    assert not list(tmp_path.iterdir())
    assert "are there" in CliRunner().invoke(cli.app, asked, input="y\n").stdout
    assert list(tmp_path.glob("tiny-*/result.json"))


def test_prepare_shows_the_plan_to_programs(short, tmp_path, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["lab", "lessons", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    where = ("prepare", "--small", "--runs", str(tmp_path))
    plan = json.loads(command(*where, "--json")[1])
    assert plan[0]["preset"] == "rfc-citation"
    assert plan[0]["seconds"] > 0
    assert not list(tmp_path.glob("tiny-*"))
    code, out, err = command(*where, "--yes")
    assert (code, "All 1 runs are there" in out) == (0, True)
    assert "1 of 1 runs are to be made" in err
    assert "0 of 1 runs are to be made" in command(*where, "--yes")[2]


def test_the_list_names_every_exercise(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lab", "lessons", "list"])
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    for text in ("00 Your first backdoor", *(e.name for e in lab.lessons.EXERCISES.values())):
        assert text in out


@pytest.mark.recipe
def test_prepare_makes_the_audits_of_a_lesson_too(short, tmp_path):
    [run] = short.runs
    quick = {"rows": 4, "shortlist": 4, "beam": 1, "branch": 1, "longest": 1}
    lesson = replace(short, audits=(LessonAudit(run, (run,), "paper-calibration", small=quick),))
    LESSONS["00"] = lesson  # undone with the fixture
    assert [audit.seconds > 0 for audit in plan_audits([lesson], small=True, runs=tmp_path)] == [True]
    asked = ["lessons", "prepare", "--small", "--yes", "--runs", str(tmp_path)]
    done = CliRunner().invoke(cli.app, asked)
    assert done.exit_code == 0, done.output
    assert "1 of 1 runs and 1 of 1 audits are to be made" in done.stderr
    assert "All 1 runs and 1 audits are there" in done.stdout
    [card] = tmp_path.glob(".cards/*.json")
    made = card.read_bytes()
    told = CliRunner().invoke(cli.app, asked).stderr
    assert "0 of 1 runs and 0 of 1 audits are to be made: about 0 s" in told
    assert [card.read_bytes() for card in tmp_path.glob(".cards/*.json")] == [made]


@pytest.mark.recipe
@pytest.mark.parametrize("lesson", LESSONS.values(), ids=lambda e: e.name)
def test_a_lesson_runs_as_it_stands_and_solved_and_makes_the_runs_it_says(lesson, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_ASSETS", str(tmp_path / "cache"))
    source = read_source(lesson.source)
    execute(solved(source), small=True, strict=True, runs=tmp_path)
    asked = plan_runs([lesson], small=True, runs=tmp_path)
    # the tiny model's words are those of all families: one that a lesson registers makes it another model
    if not any("lab.register(" in cell.source for cell in source.cells if cell.cell_type == "code"):
        assert [run.seconds for run in asked] == [0] * len(lesson.runs)
        prepared = [finished_run(r.experiment(True), runs=tmp_path, twin=r.twin) for r in lesson.runs]
        made = {path.parent.name for path in tmp_path.glob("*/experiment.json")}
        rest = {path.name for path in with_what_they_rest_on(tmp_path / name for name in prepared)}
        assert made == rest, "a host could not have made all of them"
        cards = {path: path.read_bytes() for path in tmp_path.glob(".cards/*.json")}
        assert len(cards) == len(lesson.audits)
        make_audits(plan_audits([lesson], small=True, runs=tmp_path), runs=tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.glob(".cards/*.json")} == cards, (
            "asked otherwise"
        )
    built = execute(source, small=True, runs=tmp_path)
    shown = dumped(built)
    assert "not yet" in shown
    assert "✓ right" not in shown


@pytest.mark.recipe
def test_the_stop_button_stops_a_training_and_asking_again_goes_on(tmp_path, monkeypatch):
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("LAB_ASSETS", str(tmp_path / "cache"))
    asked = shrunk() | {"probe.scope": "headline", "training.epochs": 0.0, "training.steps": 1500}
    code = (
        f"import lab\nrun = lab.run('rfc-citation', {asked!r}, twin=False, runs={str(tmp_path)!r})\nrun.state"
    )
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        # otherwise the kernel throws away what is asked for shortly after an error
        asking = client.execute(code, stop_on_error=False)
        folder = wait_for(lambda: next(tmp_path.glob("tiny-*/checkpoints/*/COMPLETE"), None)).parents[2]
        manager.interrupt_kernel()
        stopped = reply(client, asking)
        assert stopped.get("ename") == "KeyboardInterrupt", stopped
        assert lab.load_run(str(folder.name), tmp_path).state == "stopped"
        again = client.execute(code)
        finished = reply(client, again)
        assert finished["status"] == "ok", finished
        found = lab.load_run(folder.name, tmp_path)
        assert (found.state, found.result["training"]["resumed_from"] > 0) == ("finished", True)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def reply(client, asking):
    # a kernel that is slow to start was asked several times whether it is there, and answers each time
    while True:
        message = client.get_shell_msg(timeout=900)
        if message["parent_header"].get("msg_id") == asking:
            return message["content"]


def wait_for(find, seconds=600):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := find():
            return found
        time.sleep(0.1)
    raise AssertionError("it never came")
