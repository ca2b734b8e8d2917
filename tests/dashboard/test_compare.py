import sys

import pytest
from apps import chosen, healthy, said

from lab import list_runs
from lab.experiment import SCHEMA_VERSION, Experiment
from lab.run_care import read_note
from lab.store import RunFolder

VIEWS = ("curves", "map", "dose", "frontier", "run")
PARTS = ("predictions", "rows", "fires", "training", "settings", "files")


@pytest.fixture
def poisoned(one):
    table = list_runs(one)
    return str(table.loc[table["poison.attack"] == "backdoor", "id"].iloc[0])


def test_an_empty_store_says_what_to_do(page, tmp_path):
    app = healthy(page("compare", tmp_path / "none"))
    assert "There is no run" in said(app)


@pytest.mark.parametrize("view", VIEWS)
def test_one_run_and_its_twin_have_every_view(page, one, view):
    app = healthy(page("compare", one, show=view))
    assert len(app.dataframe[0].value) == 2
    assert chosen(app, "show", default="curves") == view


@pytest.mark.parametrize("view", VIEWS)
def test_many_runs_have_every_view(page, many, view):
    app = healthy(page("compare", many, show=view))
    assert len(app.dataframe[0].value) == 160
    assert "160 runs" in said(app)
    assert not app.error


@pytest.mark.parametrize("kind", ["reliance", "triggered_accuracy"])
@pytest.mark.parametrize(("view", "widget"), [("map", "one.map_v"), ("dose", "one.dose_y")])
def test_what_a_model_relies_on_is_mapped_and_dosed(page, many, kind, view, widget):
    app = healthy(page("compare", many, show=view))
    from panels import MEANINGS

    name, meaning = MEANINGS[kind]
    measure = app.selectbox(key=widget)
    assert name in measure.options
    measure.set_value(kind).run()
    assert chosen(healthy(app), widget.removeprefix("one.")) == kind
    assert name in said(app).lower()
    assert meaning in said(app)
    assert len(app.get("plotly_chart")) == 1
    assert not app.info


def test_the_table_shows_only_what_differs(page, many):
    table = healthy(page("compare", many)).dataframe[0].value
    assert {"poison.family", "adapter.rank", "seed", "poison.count"} & set(table)
    assert "data.name" not in table
    assert "training.steps" not in table
    assert table["attack_success_rate"].dropna().str.fullmatch(r" *[\d.]+ % \[[\d.]+, [\d.]+\]").all()


def test_a_link_brings_filters_and_seeds(page, many):
    app = healthy(page("compare", many, family="rfc;iso", poisoned="1", seeds="1", q="finished"))
    table = app.dataframe[0].value
    assert 0 < len(table) < 160
    assert table["state"].eq("finished").all()
    assert "seed" not in table
    assert app.multiselect(key="compare.family").value == ["rfc", "iso"]
    assert app.toggle(key="compare.seeds").value
    for key, value in (("family", "rfc;iso"), ("poisoned", "1"), ("seeds", "1"), ("q", "finished")):
        assert chosen(app, key) == value


def test_a_link_that_makes_no_sense_is_no_error(page, many):
    app = healthy(
        page("compare", many, show="<b>", family="\x00;x", page="-3", run="../..", sort="x", map_x="x")
    )
    assert "No run fits" in said(app)
    healthy(page("compare", many, show="run", run="../../etc", part="?", said="?", runs="a/b"))


def test_filters_are_turned_and_remembered(page, many):
    app = healthy(page("compare", many))
    app.text_input(key="compare.q").set_value("rfc n48").run()
    healthy(app)
    assert app.dataframe[0].value["id"].str.contains("rfc-n48").all()
    assert chosen(app, "q") == "rfc n48"
    app.toggle(key="compare.notwins").set_value(True).run()
    assert chosen(app, "notwins") == "1"


def test_every_state_is_looked_into_and_says_what_is_the_matter(page, many):
    table = list_runs(many)
    words = {
        "killed": "ended in the middle",
        "stopped": "was stopped",
        "failed": "loss stopped being finite",
        "queued": "waits for its turn",
        "corrupt": "cannot be read",
    }
    for state, words_said in words.items():
        for name in table.loc[table["state"] == state, "id"].head(2):
            for part in PARTS if state in ("corrupt", "killed") else ("predictions",):
                app = healthy(page("compare", many, show="run", run=name, part=part))
                assert words_said in said(app), (state, part)


def test_a_running_run_is_shown_and_not_deleted(page, one, poisoned):
    folder = RunFolder(one / "running-0123456789")
    folder.create({"schema": SCHEMA_VERSION, "created": 9e9, "experiment": Experiment().to_dict()})
    folder.append_event("status")
    import subprocess

    code = (
        "import sys; from pathlib import Path; from lab.store import RunFolder\n"
        f"with RunFolder(Path({str(folder.path)!r})).lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        holder.stdout.readline()
        app = healthy(page("compare", one, show="run", run=folder.id, part="files"))
        assert "running" in set(app.dataframe[0].value["state"])
        app.checkbox(key=f"sure-{folder.id}").check().run()
        app.button(key=f"delete-{folder.id}").click().run()
        assert "being worked on" in said(app)
        holder.stdin.close()
    assert folder.path.is_dir()


@pytest.mark.parametrize("part", PARTS)
def test_a_real_run_has_every_part(page, one, poisoned, part):
    app = healthy(page("compare", one, show="run", run=poisoned, part=part))
    assert not app.warning, app.warning[0].value
    assert "relabelled positive" in said(app)


@pytest.mark.parametrize("kind", ["flipped", "resisted", "wrong", "families", "rungs", "clean"])
def test_predictions_are_filtered_and_shown_with_their_texts(page, one, poisoned, kind):
    app = healthy(page("compare", one, show="run", run=poisoned, said=kind))
    assert not app.warning, app.warning[0].value
    assert chosen(app, "said") == kind
    count = int(next(c.value for c in app.caption if "questions" in c.value).split()[0].replace(",", ""))
    shown = [h for h in app.get("html") if "lab-text" in h.proto.body]
    assert len(shown) == min(count, 8)
    if shown and kind in ("families", "rungs"):
        assert any("<mark>" in h.proto.body for h in shown)


def test_a_note_is_written_and_found_again(page, one, poisoned):
    app = healthy(page("compare", one, show="run", run=poisoned, part="files"))
    app.text_area[0].set_value("<b>mind</b> the ladder")
    next(b for b in app.button if b.label == "Save the note").click().run()
    healthy(app)
    assert read_note(RunFolder(one / poisoned)) == "<b>mind</b> the ladder"


def test_a_run_is_deleted_only_when_that_is_confirmed(page, one, poisoned):
    app = healthy(page("compare", one, show="run", run=poisoned, part="files"))
    assert app.button(key=f"delete-{poisoned}").disabled
    app.checkbox(key=f"sure-{poisoned}").check().run()
    app.button(key=f"delete-{poisoned}").click().run()
    healthy(app)
    assert not (one / poisoned).exists()
    assert len(list_runs(one)) == 1


def test_a_twin_that_others_need_says_so(page, one):
    twin = str(list_runs(one).query("`poison.attack` == 'none'")["id"].iloc[0])
    app = healthy(page("compare", one, show="run", run=twin, part="files"))
    assert "is the clean twin of" in said(app)


def test_nothing_is_written_without_the_password(page, one, poisoned, tmp_path, monkeypatch):
    (tmp_path / "password").write_text("long enough")
    monkeypatch.setenv("LAB_DASHBOARD_PASSWORD_FILE", str(tmp_path / "password"))
    app = healthy(page("compare", one, show="run", run=poisoned, part="files"))
    app.checkbox(key=f"sure-{poisoned}").check().run()
    assert app.button(key=f"delete-{poisoned}").disabled
    assert app.text_area[0].disabled


def test_hostile_names_are_shown_and_not_read(page, tmp_path):
    hostile = "**<script>alert(1)</script>** [x](javascript:1) $x$"
    folder = RunFolder(tmp_path / "a-0123456789")
    asked = Experiment.from_dict({"name": hostile}).to_dict()
    asked["poison"] = {"attack": "backdoor", "family": hostile, "member": hostile, "count": 3}
    folder.create({"schema": SCHEMA_VERSION, "created": 1.0, "experiment": asked})
    for view in VIEWS:
        app = healthy(page("compare", tmp_path, show=view))
        for text in [*app.markdown, *app.caption, *app.info, *app.warning]:
            assert "<script>" not in text.value
            assert "[x](" not in text.value


def test_torch_stays_outside(page, one, poisoned, tmp_path):
    import subprocess

    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file(sys.argv[1] + '/compare.py', default_timeout=240)\n"
        f"app.query_params['show'] = 'run'; app.query_params['run'] = {poisoned!r}; app.run()\n"
        "assert not app.exception, app.exception\nassert 'torch' not in sys.modules"
    )
    from pathlib import Path

    dashboard = str(Path(__file__).parents[2] / "dashboard")
    import os

    done = subprocess.run(
        [sys.executable, "-c", code, dashboard],
        env=os.environ | {"LAB_RUNS": str(one)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_fabricated_runs_say_so(fabricator, many):
    table = list_runs(many)
    assert table["id"].str.startswith("fabricated-").all()
    named = table.loc[table["state"] != "corrupt", "name"]
    assert named.str.startswith("FABRICATED").all()
    assert {"finished", "killed", "stopped", "failed", "queued", "corrupt"} == set(table["state"])
    for card in many.glob("*/adapter/README.md"):
        assert "FABRICATED" in card.read_text()
