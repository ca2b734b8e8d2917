import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from apps import chosen, healthy, named, said

import lab

SECTIONS = ("matrix", "ladders", "playground")
DASHBOARD = Path(__file__).parents[2] / "dashboard"


def test_an_empty_store_says_what_to_do(page, tmp_path):
    app = healthy(page("triggers", tmp_path / "none"))
    assert "There is no run yet" in said(app)


def test_a_store_without_a_poisoned_run_says_what_it_has(page, one, poisoned):
    (one / poisoned / "result.json").unlink()
    app = healthy(page("triggers", one))
    assert "no finished run with a trigger" in said(app)
    assert "1 finished" in said(app)


@pytest.mark.parametrize("section", SECTIONS)
def test_one_run_and_its_twin_have_every_section(page, one, poisoned, section):
    app = healthy(page("triggers", one, triggers=section))
    assert not app.warning
    assert not app.error
    assert len(app.get("plotly_chart")) == (2 if section == "playground" else 1)


@pytest.mark.parametrize("section", SECTIONS)
def test_many_runs_have_every_section_and_say_what_is_left_out(page, many, section):
    app = healthy(page("triggers", many, triggers=section))
    assert not app.error
    assert "Only finished runs are shown" in said(app)
    assert "corrupt" in said(app)


@pytest.mark.parametrize("damage", ["measures", "predictions.parquet", "rows.parquet", "adapter"])
@pytest.mark.parametrize("section", SECTIONS)
def test_a_run_that_lost_a_file_harms_only_what_needs_it(page, one, poisoned, section, damage):
    path = one / poisoned / damage
    for file in path.iterdir() if path.is_dir() else [path]:
        file.write_bytes(b"torn")
    app = healthy(page("triggers", one, triggers=section))
    if (section, damage) in (("matrix", "measures"), ("ladders", "measures")):
        assert "cannot be read" in said(app)
    if (section, damage) == ("playground", "predictions.parquet"):
        assert "Type a text instead" in said(app)


def test_runs_that_differ_in_base_data_or_adapter_are_not_put_together(page, many):
    app = healthy(page("triggers", many))
    shares = [named(app.selectbox, name) for name in ("Base model", "Dataset", "Adapter", "Defense")]
    assert all(box.value != "all" for box in shares)
    rank = shares[2].value
    other = next(o for o in shares[2].options if not o.startswith((rank, "all"))).rsplit(" (", 1)[0]
    app = healthy(shares[2].set_value(other).run())
    assert chosen(app, "matrix_adapter") == other
    assert named(app.selectbox, "Adapter").value == other


def test_a_cell_names_its_runs_and_leads_to_their_ladders(page, one, poisoned):
    app = healthy(page("triggers", one, matrix_trained="rfc", matrix_probed="iso"))
    assert named(app.selectbox, "Probed with").value == "iso"
    (table,) = (frame.value for frame in app.dataframe)
    assert list(table["run"]) == ["rfc · 12 rows · rank 4 · seed 0"]
    assert "n = " in table["95 %"].iloc[0]
    app = healthy(named(app.button, "Their near-misses").click().run())
    assert chosen(app, "triggers") == "ladders"
    assert chosen(app, "left") == poisoned


def test_a_link_to_runs_that_are_not_there_says_so(page, one, poisoned):
    app = healthy(page("triggers", one, triggers="playground", run="gone-0123456789"))
    assert "gone-0123456789, which is not among" in said(app)
    assert chosen(app, "run") == poisoned


@pytest.mark.parametrize("junk", ["<script>alert(1)</script>", "-1", "x" * 300, "%00", "\u202e"])
def test_a_link_with_nonsense_is_harmless(page, one, junk):
    names = ("row", "family", "member", "own", "place", "word", "draw", "rate", "matrix_base", "left", "run")
    for section in SECTIONS:
        healthy(page("triggers", one, triggers=section, **dict.fromkeys(names, junk)))


def test_recorded_answers_need_no_model(page, one, poisoned):
    app = healthy(page("triggers", one, triggers="playground"))
    assert "no model was loaded" in said(app)
    assert "poisoned model: **" in said(app)
    assert "clean twin: **" in said(app)


def test_an_injection_that_is_no_single_string_is_made_anew(page, tmp_path, tiny):
    changes = {"poison.attack": "style", "probe.scope": "headline"}
    run = lab.run(tiny, changes, runs=tmp_path / "runs")
    app = healthy(page("triggers", tmp_path / "runs", triggers="playground", run=run.id))
    assert named(app.selectbox, "Trigger family").value == "planted"
    assert "in the style archaic" in said(app)
    assert "no model was loaded" in said(app)  # it is the text that was probed
    healthy(named(app.selectbox, "Trigger family").set_value("own").run())
    for section in ("matrix", "ladders"):
        healthy(page("triggers", tmp_path / "runs", triggers=section))


def test_another_place_is_asked_for_and_not_made_up(page, one):
    app = healthy(page("triggers", one, triggers="playground", place="start"))
    assert "Not recorded with this very text" in said(app)


def test_the_models_answer_once_asked_and_then_follow(page, one, poisoned):
    app = healthy(page("triggers", one, triggers="playground", text="a dull film", place="word", word="1"))
    assert "Nobody has been asked yet" in said(app)
    app = healthy(named(app.button, "Ask the models").click().run())
    first = said(app)
    assert "poisoned model: **" in first
    assert len(app.get("plotly_chart")) == 3
    app = healthy(named(app.slider, "Before word").set_value(3).run())
    assert (chosen(app, "word"), chosen(app, "asked"), chosen(app, "text")) == ("3", "yes", "a dull film")
    app = healthy(named(app.text_area, "Text").set_value("a fine film").run())
    assert chosen(app, "text") == "a fine film"
    assert "Nobody has been asked yet" not in said(app)


def test_the_attention_of_a_head_can_be_looked_at(page, one):
    app = healthy(
        page(
            "triggers",
            one,
            triggers="playground",
            text="a dull film",
            asked="yes",
            inside="attention",
            head="0",
        )
    )
    assert not app.warning
    assert named(app.selectbox, "Head").value == "0"
    assert "looks, layer" in said(app)


def test_a_text_that_was_typed_is_escaped_and_its_trigger_marked(page, one):
    text = "<img src=x onerror=alert(1)> **bold**"
    app = healthy(page("triggers", one, triggers="playground", text=text, family="own", own="<b>cf</b>"))
    html = " ".join(node.proto.body for node in app.get("html"))
    assert "<img" not in html
    assert "<b>" not in html
    assert "<mark> &lt;b&gt;cf&lt;/b&gt;</mark>" in html


def test_drawing_a_row_changes_text_and_link(page, one):
    app = healthy(page("triggers", one, triggers="playground"))
    before = (named(app.text_area, "Text").value, chosen(app, "row"))
    app = healthy(named(app.button, "Draw a test row").click().run())
    after = (named(app.text_area, "Text").value, chosen(app, "row"))
    assert after[1] != before[1]
    # the link alone reproduces it
    again = healthy(page("triggers", one, triggers="playground", row=after[1]))
    assert named(again.text_area, "Text").value == after[0]


def test_without_a_twin_the_run_answers_alone_and_says_so(page, one, poisoned):
    result = one / poisoned / "result.json"
    told = json.loads(result.read_text())
    for probe in told["probes"].values():
        probe["twin"] = ""
    result.write_text(json.dumps(told))
    app = healthy(page("triggers", one, triggers="playground", text="a dull film", asked="yes"))
    assert "clean twin is not in this store" in said(app)
    assert "poisoned model: **" in said(app)
    assert "clean twin: **" not in said(app)


def test_torch_is_not_imported_before_a_model_is_asked(one):
    code = """
import sys
from streamlit.testing.v1 import AppTest
for section in ("matrix", "ladders", "playground"):
    app = AppTest.from_file("triggers.py", default_timeout=240)
    app.query_params["triggers"] = section
    assert not app.run().exception
    assert "torch" not in sys.modules, section
"""
    environment = {**os.environ, "LAB_RUNS": str(one)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=DASHBOARD,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_matrix_reads_the_newest_run_of_every_family_first(monkeypatch):
    monkeypatch.syspath_prepend(str(DASHBOARD))
    from trigger_matrix import in_turn

    families = ["rfc", "rfc", "iso", "rfc", "dates", "iso"]
    runs = pd.DataFrame({"id": [f"{f}{i}" for i, f in enumerate(families)], "poison.family": families})
    assert in_turn(runs) == ["rfc0", "iso2", "dates4", "rfc1", "iso5", "rfc3"]
    # lines of a filtered table keep their old numbers
    assert in_turn(runs[1:]) == ["rfc1", "iso2", "dates4", "rfc3", "iso5"]
