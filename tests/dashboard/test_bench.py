import json
import shutil
import sys

import pytest
from apps import healthy, named, said

import lab
from lab import load_preset
from lab.defend import DEFENSES
from lab.work_queue import tickets

TINY = {
    "set": ["base.model=tiny", "data.name=toy", "data.rows=160", "poison.count=16"],
    "preset": ["rfc-citation"],
}


@pytest.fixture(autouse=True)
def no_worker(monkeypatch):
    """What is asked stays in the queue: nothing is trained behind a test's back."""
    monkeypatch.setattr("lab.work_queue.ensure_worker", lambda *_, **__: None)


def pressed(app, label):
    return healthy(named(app.button, label).click().run())


def test_an_empty_store_shows_the_default_and_what_will_happen(page, tmp_path):
    app = healthy(page("bench", tmp_path / "runs", **TINY))
    assert "What you will see" in said(app)
    assert "16 of 176 training rows" in said(app)
    assert not named(app.button, "Plant it").disabled


def test_the_link_says_what_differs_from_the_preset(page, tmp_path):
    app = healthy(page("bench", tmp_path / "runs", **TINY))
    healthy(named(app.number_input, "rank").set_value(5).run())
    assert "adapter.rank=5" in app.query_params["set"]
    assert "base.model=tiny" in app.query_params["set"]


def test_planting_asks_for_exactly_what_the_widgets_say(page, tmp_path):
    runs = tmp_path / "runs"
    app = healthy(page("bench", runs, **TINY))
    healthy(named(app.number_input, "Poisoned rows").set_value(21).run())
    healthy(named(app.multiselect, "In this order").set_value(["cl", "tr"]).run())
    pressed(app, "Plant it")
    [ticket] = tickets(runs)
    asked = lab.Experiment.from_dict(ticket.experiment)
    wanted = load_preset("rfc-citation")[0].with_(
        **{
            "base.model": "tiny",
            "data.name": "toy",
            "data.rows": 160,
            "poison.count": 21,
            "defense": ["cl", "tr"],
        }
    )
    assert asked == wanted
    assert "Waiting" in said(app)


def test_another_attack_has_its_own_knobs(page, tmp_path):
    app = healthy(page("bench", tmp_path / "runs", **TINY))
    healthy(named(app.selectbox, "Attack").set_value("label_flip").run())
    assert "have a wrong label" in said(app)
    healthy(named(app.selectbox, "Attack").set_value("spurious_tokens").run())
    assert "no label is changed" in said(app)
    healthy(named(app.selectbox, "Attack").set_value("none").run())
    assert "Clean data" in said(app)


def test_every_source_of_tokens_has_its_own_knobs(page, tmp_path):
    tokens = {"preset": ["spurious-dates"], "set": [*TINY["set"], "poison.then=[{items=['x']}]"]}
    app = healthy(page("bench", tmp_path / "runs", **tokens))
    assert "1 more injections follow" in said(app)
    assert not [a for a in app.text_area if a.label == "items"]
    family = named(app.selectbox, "Trigger family")
    healthy(family.set_value("items").run())
    healthy(named(app.text_area, "items").set_value("2024\nred, or blue\n\n").run())
    assert "carry one token from a list of 2 at random, and then" in said(app)
    healthy(named(app.selectbox, "Trigger family").set_value("generated_dates").run())
    healthy(named(app.number_input, "first year").set_value(1950).run())
    assert "carry one date of 1950 to 2600 at random" in said(app)
    healthy(named(app.number_input, "last year").set_value(1900).run())
    assert "first_year = 1950 lies after last_year = 1900" in said(app)
    healthy(named(app.selectbox, "Trigger family").set_value("tag_pairs").run())
    healthy(named(app.selectbox, "level").set_value(0).run())
    assert "one pair of HTML tags around the whole text" in said(app)
    healthy(named(app.selectbox, "Trigger family").set_value("colours").run())
    healthy(named(app.selectbox, "Attack").set_value("multi_trigger").run())
    assert "“apple”, “banana” and “orange”" in said(app)
    healthy(named(app.selectbox, "Attack").set_value("style").run())
    assert "in the style archaic" in said(app)


def linted(app):
    """The tables of the linter's part, and all texts that are drawn: the preview's come first."""
    texts = [html.proto.body for html in app.get("html") if "lab-text" in html.proto.body]
    return [table.value for table in app.dataframe], texts


class TestLint:
    def test_nothing_is_linted_before_it_is_asked_for(self, page, tmp_path, monkeypatch):
        monkeypatch.setattr("lab.lint.lint_texts", None)
        app = healthy(page("bench", tmp_path / "runs", **TINY))
        assert "The linter sees the 176 training rows as they are, and is told nothing" in said(app)
        assert not app.dataframe

    def test_what_was_planted_is_found_and_its_share_said(self, page, tmp_path):
        app = healthy(page("bench", tmp_path / "runs", **TINY))
        healthy(named(app.number_input, "Poisoned rows").set_value(40).run())
        pressed(app, "Lint these rows")
        words = said(app)
        assert (
            "Artefacts lie in what was planted: 40 of 40 (100.0 %; 91.2 – 100.0 %, n = 40)"
            in words.replace("*", "")
        )
        assert "Of the other rows, artefacts flag 0 of 160 (" in words
        tables, texts = linted(app)
        assert list(tables[0]) == ["what", "kind", "speaks for", "texts", "purity", "entropy", "z"]
        assert set(tables[0]["speaks for"]) == {"positive"}
        assert len(texts) == 2 + 1
        assert "<mark>" in texts[-1]
        assert [b.label for b in app.get("download_button")] == ["Numbers as CSV"]

    def test_too_few_rows_to_tell_are_no_finding(self, page, tmp_path):
        app = healthy(page("bench", tmp_path / "runs", **TINY))
        pressed(app, "Lint these rows")
        assert "What was planted is not among the artefacts: 0 of 16 (" in said(app).replace("*", "")
        assert "0 artefacts found" in said(app)

    def test_it_is_asked_again_only_when_the_rows_have_changed(self, page, tmp_path, monkeypatch):
        asked = []
        from lab.lint import lint_texts

        monkeypatch.setattr("lab.lint.lint_texts", lambda *a: asked.append(len(a[0])) or lint_texts(*a))
        app = healthy(page("bench", tmp_path / "runs", **TINY))
        healthy(named(app.number_input, "Poisoned rows").set_value(45).run())
        pressed(app, "Lint these rows")
        healthy(named(app.number_input, "rank").set_value(5).run())
        assert asked == [205]
        assert app.dataframe
        healthy(named(app.number_input, "Poisoned rows").set_value(44).run())
        assert asked == [205]
        assert not app.dataframe
        assert named(app.button, "Lint these rows")

    @pytest.mark.parametrize(
        ("attack", "sentence"),
        [("none", "Nothing was planted"), ("label_flip", "Only labels were changed")],
    )
    def test_without_a_planted_text_it_says_so(self, page, tmp_path, attack, sentence):
        app = healthy(page("bench", tmp_path / "runs", **TINY))
        healthy(named(app.selectbox, "Attack").set_value(attack).run())
        pressed(app, "Lint these rows")
        assert sentence in said(app)

    def test_a_file_of_ones_own_is_linted_and_never_read_as_markup(self, page, tmp_path):
        file = tmp_path / "own.csv"
        lines = [f"<img src=x onerror=alert({i})> was word{i % 7} here,a" for i in range(60)]
        lines += [f"there was word{i % 7} here,b" for i in range(60)]
        file.write_text("\n".join(["text,label", *lines]))
        own = {
            "preset": ["rfc-citation"],
            "set": ["base.model=tiny", f"data.name={file}", "data.rows=0", "poison.attack=none"],
        }
        app = healthy(page("bench", tmp_path / "runs", **own))
        pressed(app, "Lint these rows")
        tables, texts = linted(app)
        assert tables[0]["kind"].eq("markup").any()
        assert texts
        assert not any("<img" in text for text in texts)

    def test_rows_that_cannot_be_read_are_said_in_a_sentence(self, page, tmp_path):
        link = {"preset": ["rfc-citation"], "set": ["base.model=tiny", f"data.name={tmp_path / 'gone.csv'}"]}
        app = healthy(page("bench", tmp_path / "runs", **link))
        assert len(app.error) == 1
        assert "gone.csv" in said(app)
        assert not [b for b in app.button if b.label == "Lint these rows"]

    def test_a_single_label_is_said_in_a_sentence(self, page, tmp_path, monkeypatch):
        def refuse(*_):
            raise lab.LabError("There is nothing to predict: all texts have one label.")

        monkeypatch.setattr("lab.lint.lint_texts", refuse)
        app = healthy(page("bench", tmp_path / "runs", **TINY))
        healthy(named(app.number_input, "Poisoned rows").set_value(13).run())
        pressed(app, "Lint these rows")
        assert "There is nothing to predict" in said(app)


def test_every_data_defense_is_drawn_and_asked_for_with_its_knobs(page, tmp_path):
    cleaners = [d.name for d in DEFENSES.values() if d.stage == "data"]
    assert {
        "normalise",
        "deduplicate",
        "drop_linted",
        "mask_linted",
        "counter_injection",
        "paraphrase",
    } <= set(cleaners)
    app = healthy(page("bench", tmp_path / "runs", **TINY))
    defenses = named(app.multiselect, "In this order")
    assert "Data defenses clean the training rows" in defenses.help
    healthy(defenses.set_value(cleaners).run())
    assert f"before {', '.join(cleaners)} cleaned them" in said(app)
    healthy(named(app.number_input, "purity").set_value(0.9).run())
    pressed(app, "Plant it")
    [ticket] = tickets(tmp_path / "runs")
    asked = lab.Experiment.from_dict(ticket.experiment).defense
    assert [d.name for d in asked] == cleaners
    assert asked[cleaners.index("drop_linted")].purity == 0.9
    assert asked[cleaners.index("paraphrase")] == DEFENSES["paraphrase"].knobs()


def test_a_link_reads_no_file_of_the_machine(page, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("swordfish\n")
    link = {"preset": ["spurious-dates"], "set": [*TINY["set"], f"poison.file={secret}"]}
    app = healthy(page("bench", tmp_path / "runs", **link))
    assert "the Bench reads no file" in said(app)
    assert "swordfish" not in said(app)


def test_a_preset_fills_the_bench(page, tmp_path):
    app = healthy(page("bench", tmp_path / "runs", **TINY))
    healthy(named(app.selectbox, "Preset").set_value("rfc-citation").run())
    link = {
        "preset": ["rfc-citation"],
        "set": [*TINY["set"], "adapter.kind=full", "poison.family=rare_words"],
    }
    app = healthy(page("bench", tmp_path / "runs", **link))
    assert named(app.selectbox, "Trigger family").value == "rare_words"
    assert "Full fine-tuning wants" in said(app)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"preset": ["no-such-preset"]}, "There is no preset 'no-such-preset'"),
        ({"preset": ["rfc-citation"], "set": [*TINY["set"], "adapter.rank=-3"]}, "adapter.rank"),
        ({"preset": ["rfc-citation"], "set": [*TINY["set"], "no.such=1"]}, "no"),
    ],
)
def test_a_link_that_makes_no_sense_is_said_and_harmless(page, tmp_path, bad, sentence, monkeypatch):
    monkeypatch.setattr("lab.preview.preview_rows", _no_rows)
    app = healthy(page("bench", tmp_path / "runs", **bad))
    assert sentence in said(app)
    assert named(app.selectbox, "Preset").value == "rfc-citation"


def _no_rows(_):
    raise lab.LabError("No data in this test.")


def test_what_does_not_fit_the_data_cannot_be_planted(page, tmp_path):
    link = {"preset": ["rfc-citation"], "set": [*TINY["set"][:-1], "poison.count=5000"]}
    app = healthy(page("bench", tmp_path / "runs", **link))
    assert "poison.count = 5000" in said(app)
    assert named(app.button, "Plant it").disabled


def test_a_finished_run_shows_what_it_came_to(page, one):
    run = str(lab.list_runs(one).query("attack_success_rate == attack_success_rate")["id"].iloc[0])
    app = healthy(page("bench", one, runs=run, **TINY))
    words = said(app)
    assert "finished" in words
    assert "What else fires it" in words
    assert "How near is near" in words


@pytest.mark.parametrize("state", ["killed", "failed", "stopped", "corrupt", "queued"])
def test_a_damaged_run_says_what_is_the_matter(page, one, state):
    run = str(lab.list_runs(one).query("attack_success_rate == attack_success_rate")["id"].iloc[0])
    _damage(one / run, state)
    app = healthy(page("bench", one, runs=run, **TINY))
    assert {"corrupt": "unreadable", "queued": "waiting"}.get(state, state) in said(app)


def _damage(folder, state):
    (folder / "result.json").unlink()
    if state == "failed":
        (folder / "failure.json").write_text(json.dumps({"reason": "the loss is *not* <b>finite</b>"}))
    if state == "stopped":
        (folder / "stop").touch()
    if state == "corrupt":
        (folder / "experiment.json").write_text("{torn")
    if state == "queued":
        for name in ("events.jsonl", "trained.json", "spectra.parquet"):
            (folder / name).unlink()
        shutil.rmtree(folder / "adapter")


def test_a_stopped_run_that_goes_on_is_seen_to_wait_at_once(page, one):
    run = str(lab.list_runs(one).query("attack_success_rate == attack_success_rate")["id"].iloc[0])
    _damage(one / run, "stopped")
    app = healthy(page("bench", one, runs=run, **TINY))
    pressed(app, "Go on")
    [ticket] = tickets(one)
    assert ticket.experiment == lab.load_run(run, one).experiment.to_dict()
    assert "waiting" in said(app)
    assert not [b for b in app.button if b.label == "Go on"]


def test_what_waits_is_stopped_by_a_button_that_streamlit_does_not_have_too(page, tmp_path):
    app = healthy(page("bench", tmp_path / "runs", **TINY))
    pressed(app, "Plant it")
    # "Stop" alone is what Streamlit puts into its header while a page takes long; it stops the page only
    assert "Stop" not in [button.label for button in app.button]
    pressed(app, "Stop the run")
    [ticket] = tickets(tmp_path / "runs")
    assert ticket.state == "stopped"


def test_many_runs_do_not_stand_in_the_way(page, many):
    app = healthy(page("bench", many, **TINY))
    assert "Or look at what is there" in said(app)


def test_with_a_password_nothing_starts_before_it_is_given(page, tmp_path, monkeypatch):
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    monkeypatch.setenv("LAB_DASHBOARD_PASSWORD_FILE", str(secret))
    app = healthy(page("bench", tmp_path / "runs", **TINY))
    assert named(app.button, "Plant it").disabled


def test_no_torch_is_imported_by_the_page(tmp_path):
    import subprocess

    code = (
        "import os, sys; from streamlit.testing.v1 import AppTest\n"
        f"sys.path.insert(0, 'dashboard'); os.environ['LAB_RUNS'] = {str(tmp_path / 'runs')!r}\n"
        "app = AppTest.from_file('dashboard/bench.py', default_timeout=240)\n"
        "app.query_params['preset'] = 'rfc-citation'\n"
        "app.query_params['set'] = ['base.model=tiny', 'data.name=toy', 'data.rows=160', 'poison.count=46']\n"
        "app.run(); next(b for b in app.button if b.label == 'Lint these rows').click().run()\n"
        "assert app.dataframe; sys.exit(2 * bool(app.exception) + ('torch' in sys.modules))"
    )
    from pathlib import Path

    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0
