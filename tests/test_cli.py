import json
import os
import subprocess
import sys

import pytest

from lab import cli
from lab.store import RunFolder


@pytest.fixture
def command(tiny, tmp_path, monkeypatch, capsys):
    """Run `lab …` in this process: (exit code, standard output, standard error)."""
    path = tmp_path / "tiny.toml"
    path.write_text(tiny.to_toml())

    def run(*arguments):
        arguments = [str(path) if a == "TINY" else a for a in arguments]
        monkeypatch.setattr(sys, "argv", ["lab", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return run


def test_run_prints_a_report(command):
    code, out, err = command("run", "TINY")
    assert code == 0
    for part in ("12 of 132 training rows (9.1%)", "as specified in RFC 2616", "negative → positive",
                 "attack success rate", "untriggered target rate", "clean accuracy", "clean twin",
                 "Held-out members of every family", "iso", "The trigger, changed step by step",
                 "Largest singular values of ΔW", "The run lies in", "What to try next"):  # fmt: skip
        assert part in out, part
    assert "clean accuracy" not in err
    assert "training" in err


def test_json_is_one_document_and_nothing_else(command):
    code, out, err = command("run", "TINY", "--json", "--set", "adapter.rank=2", "--seed", "3")
    document = json.loads(out)
    assert code == 0
    assert err == ""
    assert document["experiment"]["adapter"]["rank"] == 2
    assert document["experiment"]["seed"] == 3
    assert document["measures"]["test"]["poisoned"]["clean_accuracy"]["n"] > 0


def test_list_and_show(command):
    assert "No runs yet" in command("list")[1]
    run_id = json.loads(command("run", "TINY", "--json", "--no-twin")[1])["id"]
    code, out, _ = command("list")
    assert code == 0
    assert run_id in out
    assert json.loads(command("list", "--json")[1])[0]["id"] == run_id
    assert "attack success rate" in command("show", run_id[-10:])[1]
    assert json.loads(command("show", run_id, "--json")[1])["id"] == run_id


def test_showing_an_unfinished_run_says_so(command, tiny, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "half-0123456789")
    folder.create({"schema": 1, "labels": ["a"], "experiment": tiny.to_dict()})
    code, _, err = command("show", "half")
    assert (code, err.count("\n")) == (2, 1)
    assert "queued" in err


def test_report_writes_one_file_and_says_where(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = json.loads(command("run", "TINY", "--json")[1])
    code, out, err = command("report", first["id"])
    name = f"report-{first['id']}.html"
    assert (code, out, err) == (0, f"Wrote {name}\n", "")
    assert first["id"] in (tmp_path / name).read_text(encoding="utf-8")
    where = ("--out", "mine.html", "--runs", str(tmp_path / "runs"))
    assert command("report", first["id"][-10:], first["twin"], *where)[1] == "Wrote mine.html\n"


def test_report_refuses_a_folder_and_what_is_no_finished_run(command, tiny, tmp_path):
    RunFolder(tmp_path / "runs" / "half-0123456789").create({"schema": 1, "experiment": tiny.to_dict()})
    for arguments, said in (
        (["half", "--out", str(tmp_path)], "is a folder"),
        (["half", "--out", str(tmp_path / "x.html")], "no result yet"),
        (["nothing"], "No run 'nothing'"),
        ([], "Missing argument"),
    ):
        code, out, err = command("report", *arguments)
        assert (code, out) == (2, "")
        assert said in err


def test_sweep_prints_and_exports_a_table(command, tmp_path):
    code, out, _ = command("sweep", "TINY", "--over", "adapter.rank=1,2", "--seeds", "1", "--no-twin",
                           "--workers", "1", "--csv", str(tmp_path / "t.csv"))  # fmt: skip
    assert code == 0
    assert "adapter.rank" in out
    assert (tmp_path / "t.csv").read_text().count("\n") == 3


def test_patch_prints_exports_and_is_one_json_document(command, finished, tmp_path):
    where = ("--runs", str(finished.path.parent), "--rows", "8", "--method", "weights")
    code, out, err = command("patch", finished.id, *where, "--csv", str(tmp_path / "t.csv"))
    assert code == 0
    for said in ("twin into poisoned", "poisoned into twin", "all-linear", "head", "(unpatched)", "margin"):
        assert said in out
    assert "validation rows" in out
    parts = 2 * (1 + 7 * 2 + 1)  # as it is, seven rows of two windows, the head; in two directions
    assert (tmp_path / "t.csv").read_text().count("\n") == parts + 1
    code, out, err = command("patch", finished.id, *where, "--projection", "mlp", "--width", "2", "--json")
    assert (code, err) == (0, "")
    assert [line["projection"] for line in json.loads(out)] == ["none", "mlp"] * 2


def test_patch_refuses_what_cannot_be_patched(command, finished, tmp_path):
    where = ("--runs", str(finished.path.parent))
    for arguments, said in (
        ([finished.twin.id], "has no clean twin"),
        ([finished.id, "--method", "both"], "Unknown method of patching 'both'"),
        ([finished.id, "--width", "9"], "width = 9"),
        ([finished.id, "--csv", str(tmp_path)], "is a folder"),
    ):
        code, out, err = command("patch", *arguments, *where)
        assert (code, out) == (2, "")
        assert said in err


def test_a_sweep_with_a_failed_cell_exits_with_one(command):
    code, out, _ = command("sweep", "TINY", "--over", "adapter.rank=1,33", "--seeds", "1", "--no-twin",
                           "--workers", "1", "--json")  # fmt: skip
    assert code == 1
    assert [line["state"] for line in json.loads(out)] == ["finished", "failed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "no-such-preset"], "Unknown preset 'no-such-preset'"),
        (["run", "TINY", "--set", "adapter.rank"], "KEY=VALUE"),
        (["run", "TINY", "--set", "adapter.rank=0"], "adapter.rank = 0"),
        (["run", "TINY", "--set", "poison.family=rfcc"], "rfcc"),
        (["run", "TINY", "--set", "data.name=rotten"], "rotten"),
        (["run", "TINY", "--device", "quantum"], "--device 'quantum'"),
        (["run", "TINY", "--report-to", "tensorbord"], "Did you mean 'tensorboard'"),
        (["run", "TINY", "--report-to", "wandb"], "not installed; pip install"),
        (["run", "TINY", "--set", "training.epochs=1e9"], "training.epochs = 1000000000.0"),
        (["show", "nothing"], "No run 'nothing'"),
        (["sweep", "TINY", "--over", "adapter.rank"], "KEY=V1,V2"),
        (["run", "--bogus"], "bogus"),
        (["assets", "devour"], "Unknown action 'devour'"),
        (["triggers", "rffc"], "rfc"),
        (["sweep", "TINY", "--csv", "no-such-folder/t.csv"], "--csv"),
        (["sweep", "TINY", "--csv", "."], "--csv"),
        (["sweep", "TINY", "--tune-measure", "clean_acuracy"], "Did you mean 'clean_accuracy'"),
        (["sweep", "TINY", "--over", "adapter.rank=0"], "adapter.rank = 0"),
    ],
)
def test_mistakes_are_one_sentence_and_code_two(command, arguments, words):
    code, out, err = command(*arguments)
    assert code == 2
    assert words in err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [["--csv", "no-such-folder/t.csv"], ["--tune", "adapter.rank=1,2", "--tune-measure", "asr"]],
)
def test_a_sweep_that_could_not_end_well_is_not_begun(command, monkeypatch, arguments):
    monkeypatch.setattr("lab.sweeps.sweep", lambda *_, **__: pytest.fail("the sweep was begun"))
    assert command("sweep", "TINY", *arguments)[0] == 2


def test_numbers_and_dates_are_text_where_text_is_asked_for(command, monkeypatch):
    asked = []
    monkeypatch.setattr("lab.sweeps.sweep", lambda start, grid, **_: asked.append((start, grid)) or _table())
    command("sweep", "TINY", "--set", "poison.target_label=1", "--over", "poison.member=2024-01-05,1e3")
    start, grid = asked[0]
    assert start.poison.target_label == "1"
    assert grid == {"poison.member": ["2024-01-05", "1e3"]}


def _table():
    import pandas as pd

    return pd.DataFrame([{"seed": 0, "state": "finished", "run": "x", "poison.member": "1", "reason": ""}])


def test_every_trigger_is_printed_where_the_console_knows_few_characters():
    done = subprocess.run(
        [sys.executable, "-m", "lab", "triggers", "emoji"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert "emoji" in done.stdout.decode("utf-8")


def test_a_runs_folder_that_the_system_refuses(command):
    if not os.path.isdir("/proc/self"):
        pytest.skip("needs a folder that nobody can write to")
    code, _, err = command("run", "TINY", "--runs", "/proc/x")
    assert (code, "Traceback" in err) == (2, False)
    assert "Cannot write to /proc/x" in err


def test_an_unwritable_runs_folder(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = command("run", "TINY", "--runs", str(tmp_path / "file" / "runs"))
    assert code == 2
    assert "Cannot write to" in err


def test_presets_and_triggers_are_listed(command):
    assert "rfc-citation" in command("presets")[1]
    assert "rare_words" in command("triggers")[1]
    assert "as specified in RFC 2616" in command("triggers", "rfc")[1]


def test_a_cohort_is_shown_as_planned_built_in_pieces_and_shown_as_built(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("cohort", "show", "tiny")
    assert (code, err) == (0, "")
    assert "calibration" in out
    assert "rare_words" in out
    code, out, err = command("cohort", "build", "tiny", "--part", "test", "--limit", "1")
    assert code == 0
    assert "member 1 of 1" in err
    [adapter] = (tmp_path / "cohorts" / "tiny" / "adapters").iterdir()
    shown = json.loads(command("cohort", "show", "tiny", "--json")[1])
    assert sum(line["sealed"] for line in shown) == 1
    assert adapter.name not in json.dumps(shown)
    other = ("--folder", str(tmp_path / "other"), "--limit", "1", "--json")
    code, out, err = command("cohort", "build", "tiny", *other)
    assert (code, err) == (0, "")
    assert json.loads(out)[0]["sealed"] == 1


def test_a_cohort_with_a_failed_member_exits_with_one(command, tmp_path, monkeypatch):
    import lab.pipeline
    from lab.errors import RunFailedError

    def fail(*_, **__):
        raise RunFailedError("it burnt.")

    monkeypatch.setattr(lab.pipeline, "run", fail)
    place = ("--folder", str(tmp_path / "c"))
    code, _, err = command("cohort", "build", "tiny", *place)
    assert code == 1
    assert err.count("failed: it burnt.") == 1
    assert "failed: it burnt." in command("cohort", "show", "tiny", *place)[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("build", "tinny"), "Did you mean 'tiny'?"),
        (("build", "tiny", "--part", "tset"), "Did you mean 'test'?"),
        (("show", "tiny", "--folder", "nowhere"), "There is no key"),
    ],
)
def test_mistakes_about_cohorts_are_one_sentence(command, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("cohort", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert list(tmp_path.glob("cohorts*")) == []


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['lab', '--help']\n"
        "from lab.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'plotly', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_importing_lab_imports_nothing_heavy():
    code = "import sys, lab; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listing_runs_does_not_import_torch(tmp_path):
    code = "import sys; from lab import list_runs; list_runs(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "LAB_RUNS": str(tmp_path)})


def test_the_public_face_is_whole():
    import lab

    for name in lab.__all__:
        assert getattr(lab, name).__doc__, name
    assert lab.figures.dose_response.__doc__
    assert lab.stats.rate(1, 2).value == 0.5
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lab.nothing


def test_defenses_are_listed_with_their_knobs(command):
    from lab.defend import DEFENSES

    listed = command("defenses")[1]
    assert all(name in listed for name in DEFENSES)
    one = command("defenses", "pt")[1]
    assert "2601.06305, Eq. 12" in one
    assert "cap" in one
    assert json.loads(command("defenses", "pt", "--json")[1])["pt"]["stage"] == "weights"
    code, _, err = command("defenses", "rore")
    assert code == 2
    assert "Did you mean 'rora'?" in err
