import json

import pytest
from apps import chosen, healthy, said

from lab import list_runs, load_run
from lab.store import RunFolder
from lab.work_queue import tickets

SECTIONS = ("spectrum", "alignment", "surgery", "where", "kernels")
#: Those that ask models, which an unfinished run has none of.
ASKING = ("surgery", "where", "kernels")
CUT = '[{name = "drop", components = [0]}]'


def charts(app):
    return len(app.get("plotly_chart"))


@pytest.fixture
def twin(one, poisoned):
    return str(load_run(poisoned, one).twin.id)


def damage(folder, state):
    """Make a finished run's folder look as if it had come to another end."""
    unfinished = ("result.json", "trained.json", "spectra.parquet", "predictions.parquet")
    for name in unfinished if state not in ("corrupt", "torn spectra") else ():
        (folder / name).unlink(missing_ok=True)
    if state == "queued":
        (folder / "events.jsonl").unlink()
    elif state == "stopped":
        (folder / "stop").touch()
    elif state == "failed":
        (folder / "failure.json").write_text(json.dumps({"reason": "The loss is *nan*."}))
    elif state == "corrupt":
        (folder / "experiment.json").write_text("{")
        (folder / "result.json").write_text("{")
    elif state == "torn spectra":
        (folder / "spectra.parquet").write_bytes(b"PAR1torn")


def test_an_empty_store_says_what_to_do(page, tmp_path):
    assert "There is no run yet" in said(healthy(page("spectra", tmp_path / "none")))


def test_one_run_shows_its_spectrum_with_a_slider_of_its_own(page, one, poisoned):
    app = healthy(page("spectra", one))
    assert chosen(app, "runs") == poisoned
    assert charts(app) == 1
    assert not app.select_slider
    assert "LoRA rank 4, scaling 2 · learning rate 0.01" in said(app)


def test_one_step_is_chosen_and_remembered(page, one, poisoned):
    app = healthy(page("spectra", one, **{"spectra.steps": "one"}))
    steps = load_run(poisoned, one).spectra["step"].unique()
    app.select_slider[0].set_value(int(steps[0])).run()
    assert chosen(healthy(app), "spectra.step") == str(steps[0])
    assert f"Training step {steps[0]} of {steps[-1]}" in said(app)


def test_layers_and_kinds_are_filtered_by_a_link(page, one):
    app = healthy(page("spectra", one, **{"spectra.layers": "1,nonsense", "spectra.kinds": "strange"}))
    assert app.multiselect(key="several.spectra.layers").value == ["1"]
    assert app.multiselect(key="several.spectra.kinds").value == []
    assert charts(app) == 1


def test_two_runs_lie_side_by_side(page, one, poisoned, twin):
    app = healthy(page("spectra", one, runs=f"{poisoned},{twin}"))
    assert charts(app) == 2
    assert len(app.select_slider) == 1
    assert {"## A · ", "## B · "} <= {m.value[:7] for m in app.markdown}


def test_strength_and_alignment_of_two_runs(page, one, poisoned, twin):
    app = healthy(page("spectra", one, runs=f"{poisoned},{twin}", spectra="alignment"))
    assert charts(app) == 6
    assert len(app.dataframe) == 2
    assert {"effective_rank", "stable_rank", "intruders"} <= set(app.dataframe[0].value)
    assert not app.warning


def test_a_second_run_is_chosen_and_remembered(page, one, poisoned, twin):
    app = healthy(page("spectra", one, runs=poisoned))
    app.selectbox[1].set_value(twin).run()
    assert chosen(healthy(app), "runs") == f"{poisoned},{twin}"
    assert charts(app) == 2


def test_more_chosen_runs_than_two_stay_chosen(page, many):
    names = ",".join(list_runs(many)["id"].head(5))
    assert chosen(healthy(page("spectra", many, runs=names)), "runs") == names


@pytest.mark.parametrize("section", SECTIONS)
def test_many_runs(page, many, section):
    app = healthy(page("spectra", many, spectra=section))
    assert len(app.selectbox[0].options) == 160


def test_a_strange_link_is_said_and_does_no_harm(page, one):
    strange = {"spectra.top": "-1", "spectra.k": "x", "spectra.step": "1e9", "spectra": "<b>"}
    app = healthy(page("spectra", one, runs="no-such-run", **strange))
    assert "no-such-run" in said(app)
    assert charts(app) == 1


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("state", ["queued", "stopped", "killed", "failed", "corrupt", "torn spectra"])
def test_a_damaged_run_says_what_is_the_matter(page, one, poisoned, twin, section, state):
    damage(one / poisoned, state)
    app = healthy(page("spectra", one, runs=f"{poisoned},{twin}", spectra=section))
    told = {
        "queued": "waits for its turn",
        "stopped": "was stopped",
        "killed": "ended in the middle",
        "failed": "The loss is *nan*.",
        "corrupt": "cannot be read",
        "torn spectra": "spectra cannot be read" if section not in ASKING else "validation rows",
    }
    assert told[state] in said(app)
    if section not in ASKING:  # the other run is shown all the same
        assert charts(app) >= 1


@pytest.mark.parametrize("section", SECTIONS)
def test_a_running_run_is_watched(page, one, poisoned, section):
    damage(one / poisoned, "killed")
    with RunFolder(one / poisoned).lock():
        app = healthy(page("spectra", one, runs=poisoned, spectra=section))
    assert "being worked on" in said(app)
    assert charts(app) == (0 if section in ASKING else 1)


class TestSurgery:
    @pytest.fixture
    def opened(self, page, one, poisoned):
        def open_surgery(**params):
            rows = {"surgery.rows": "100"}
            return healthy(page("spectra", one, runs=poisoned, spectra="surgery", **rows, **params))

        return open_surgery

    def tiles(self, app):
        """Attack success, untriggered target rate and clean accuracy, as they are shown."""
        [shown] = [h.proto.body for h in app.get("html") if "lab-tiles" in h.proto.body]
        return shown

    def test_sliders_ask_the_model_and_are_remembered(self, opened, one, poisoned):
        app = opened()
        scale = next(s for s in app.select_slider if s.label == "Scale of ΔW")
        scale.set_value(16.0).run()
        assert chosen(healthy(app), "surgery.scale") == "16"
        assert "on the sliders: scale ΔW by 16" in said(app)
        surgery = load_run(poisoned, one).surgery(rows=100)
        for table, before in ((surgery.scale(16.0).measures(), ">"), (surgery.measures(), "unedited ")):
            for value in table["value"]:
                assert f"{before}{100 * value:.1f} %" in self.tiles(app)
        assert "50 untouched and" in said(app)

    def test_a_range_of_components_is_dropped(self, opened):
        app = opened(**{"surgery.cut": "drop:0-1"})
        assert app.slider[0].value == (0, 1)
        assert "on the sliders: drop components 0–1" in said(app)

    def test_moves_are_kept_undone_and_reset(self, opened):
        app = opened(**{"surgery.cut": "drop:0-1", "surgery.scale": "2"})
        button(app, "Keep these as moves").click().run()
        assert chosen(healthy(app), "moves").count("name") == 2
        assert app.slider[0].value == (0, 3)
        assert "1. drop components 0–1" in said(app)
        button(app, "Undo").click().run()
        assert chosen(healthy(app), "moves").count("name") == 1
        button(app, "Reset").click().run()
        assert chosen(healthy(app), "moves") == ""
        assert "No move yet" in said(app)

    def test_a_link_brings_the_moves_and_the_curve(self, opened):
        app = opened(moves=CUT, **{"surgery.curves": "kept,threshold"})
        assert "1. drop component 0" in said(app)
        assert charts(app) == 2

    def test_a_link_with_moves_that_make_no_sense_says_so(self, opened):
        assert "cannot be made" in said(opened(moves='[{name = "nonsense"}]'))
        app = opened(moves='[{name = "keep", components = [99]}]')
        assert "no singular component 99" in said(app)
        assert button(app, "Save as a run").disabled

    def test_any_weight_edit_becomes_a_move(self, opened):
        app = opened(**{"surgery.edit": "truncate"})
        app.number_input(key="surgery.edit.truncate.rank").set_value(2).run()
        button(app, "Make this move").click().run()
        assert "1. keep the 2 largest components" in said(healthy(app))

    def test_a_surgery_is_saved_through_the_queue(self, opened, one, poisoned, monkeypatch):
        monkeypatch.setattr("lab.work_queue.ensure_worker", lambda *_: None)
        app = opened(moves=CUT)
        app.text_input(key="surgery.name").set_value("without the first").run()
        button(app, "Save as a run").click().run()
        assert "queue" in said(healthy(app))
        [ticket] = tickets(one)
        assert ticket.experiment["name"] == "without the first"
        assert [d["name"] for d in ticket.experiment["defense"]] == ["drop"]
        wanted = load_run(poisoned, one).experiment.to_dict()
        assert {**ticket.experiment, "name": "", "defense": []} == {**wanted, "name": "", "defense": []}

    def test_who_may_not_write_may_look(self, opened, tmp_path, monkeypatch):
        (tmp_path / "password").write_text("secret")
        monkeypatch.setenv("LAB_DASHBOARD_PASSWORD_FILE", str(tmp_path / "password"))
        assert button(opened(moves=CUT), "Save as a run").disabled

    def test_without_a_move_there_is_nothing_to_save(self, opened):
        assert button(opened(), "Save as a run").disabled

    def test_a_clean_run_answers_with_clean_accuracy_only(self, page, one, twin):
        app = healthy(page("spectra", one, runs=twin, spectra="surgery"))
        assert "knows no trigger" in said(app)
        assert "lab-attack_success_rate" not in self.tiles(app)

    def test_the_same_moves_are_made_on_the_other_run(self, page, one, poisoned, twin):
        params = {"spectra": "surgery", "surgery.run": "B", "moves": CUT}
        app = healthy(page("spectra", one, runs=f"{poisoned},{twin}", **params))
        assert "knows no trigger" in said(app)
        assert "1. drop component 0" in said(app)


class TestWhereItSits:
    @pytest.fixture
    def opened(self, page, one, poisoned):
        def open_section(**params):
            asked = {"spectra": "where", "where.rows": "30", **params}
            return healthy(page("spectra", one, runs=poisoned, **asked))

        return open_section

    def test_nothing_is_asked_before_a_button_is_pressed(self, opened, monkeypatch):
        monkeypatch.setattr("lab.trained_model.load_predictor", None)
        app = opened()
        assert charts(app) == 0
        assert not app.warning
        assert {"Exchange activations", "Exchange weights"} <= {b.label for b in app.button}

    def test_a_button_draws_the_map_and_the_link_remembers_it(self, opened):
        app = opened()
        button(app, "Exchange weights").click().run()
        assert chosen(healthy(app), "where.shown") == "weights"
        assert charts(app) == 1
        assert not app.warning
        assert "Where the backdoor is written" in said(app)
        assert "triggered validation rows" in said(app)
        assert [b.label for b in app.get("download_button")] == ["Numbers as CSV"]
        assert "Exchange weights" not in {b.label for b in app.button}

    def test_a_link_brings_both_maps_which_are_asked_once(self, opened, monkeypatch):
        asked = []
        from lab.probe import PatchedPair

        ask = PatchedPair.table
        monkeypatch.setattr(
            PatchedPair, "table", lambda self, *a, **k: asked.append(k["projections"]) or ask(self, *a, **k)
        )
        app = opened(**{"where.shown": "activations,weights,nonsense", "where.width": "1"})
        assert charts(app) == 2
        assert len(asked) == 2 * (7 + 8), "row by row, in two directions; the weights have the head too"
        app.run()
        assert charts(healthy(app)) == 2
        assert len(asked) == 2 * (7 + 8)

    def test_a_window_that_cannot_be_is_said(self, opened):
        app = opened(**{"where.shown": "weights", "where.width": "4"})
        assert "width = 4; allowed are 1 to 2" in said(app)
        assert charts(app) == 0

    def test_a_clean_run_has_no_twin_to_exchange_with(self, page, one, poisoned, twin):
        params = {"spectra": "where", "where.shown": "weights", "where.rows": "30"}
        app = healthy(page("spectra", one, runs=twin, **params))
        assert "no clean twin" in said(app)
        assert charts(app) == 0
        app = healthy(page("spectra", one, runs=f"{twin},{poisoned}", **{**params, "where.run": "B"}))
        assert charts(app) == 1


class TestKernels:
    @pytest.fixture
    def opened(self, page, one, poisoned):
        def open_section(**params):
            asked = {"spectra": "kernels", "kernels.rows": "16", **params}
            return healthy(page("spectra", one, runs=poisoned, **asked))

        return open_section

    def test_nothing_is_asked_before_a_button_is_pressed(self, opened, monkeypatch):
        monkeypatch.setattr("lab.kernel_study.measure_run_kernels", None)
        monkeypatch.setattr("lab.trained_model.load_predictor", None)
        app = opened()
        assert charts(app) == 0
        assert not app.warning
        assert {"Measure the kernels", "Measure attention entropy"} <= {b.label for b in app.button}

    def test_kernels_are_measured_once_and_drawn_as_they_are_asked_for(self, opened, monkeypatch):
        asked = []
        from lab.kernel_study import measure_run_kernels

        monkeypatch.setattr(
            "lab.kernel_study.measure_run_kernels",
            lambda run, **how: asked.append(how["rows"]) or measure_run_kernels(run, **how),
        )
        app = opened()
        button(app, "Measure the kernels").click().run()
        assert chosen(healthy(app), "kernels.shown") == "kernels"
        assert charts(app) == 2
        assert not app.warning
        assert "16 clean texts and" in said(app)
        assert "triggered copies; measured in" in said(app)
        assert [b.label for b in app.get("download_button")] == ["Numbers as CSV"] * 3
        app.selectbox(key="one.kernels.measure").set_value("poison_kernel").run()
        assert "M′, poison kernel, layer by layer" in said(healthy(app))
        assert "M′: norm of the mean K(clean text, its triggered copy)" in said(app)
        assert asked == [16]

    def test_the_numbers_stand_beside_full_fine_tunings(self, opened, one, poisoned):
        app = opened(**{"kernels.shown": "kernels,nonsense"})
        import run_kernels

        tables = dict(zip(("start", "trained"), (t.value for t in app.table), strict=True))
        measured = load_run(poisoned, one).kernels(rows=16)
        for name, kernel, at in [("LoRA", "lora", "start"), ("full", "full", "trained")]:
            lines = measured[
                (measured["kernel"] == kernel) & (measured["at"] == at) & (measured["layer"] == -1)
            ]
            for measure in ("poison_ratio", "renyi_entropy_2", "target_alignment"):
                value = lines.loc[lines["measure"] == measure, "value"].iloc[0]
                told = tables[at].loc[measure.replace("_", " "), name]
                assert told.split(" [")[0] == run_kernels.number(value)
        assert "[" in tables["trained"].loc["poison cosine", "LoRA"], "the interval over pairs"
        assert tables["trained"].loc["trace ratio", "full"] == "–"
        assert "where training starts" in said(app).lower()

    def test_numbers_are_read_at_a_glance(self, page, one):
        page("spectra", one)  # the pages' folder is importable from here on
        import run_kernels

        numbers = {
            (0.0,): "0.00",
            (4550.0,): "4,550",
            (0.9123, 0.877, 0.94): "0.912 [0.877, 0.940]",
            (-0.5, -0.61, 0.0): "−0.500 [−0.610, 0.000]",
            (41.234, 5.0, 123.4): "41.2 [5.0, 123.4]",
            (4.55e-7, 4.1e-7, 5.02e-7): "4.55 [4.10, 5.02] × 10⁻⁷",
            (1.5e12,): "1.50 × 10¹²",
        }
        assert {n: run_kernels.number(*n) for n in numbers} == numbers

    def test_others_ask_a_model_between_two_steps(self, page, one):
        import threading
        import time

        page("spectra", one)
        import models

        order, inside = [], threading.Event()

        def ask():
            inside.wait(10)
            with models.at_work():
                order.append("asked")

        other = threading.Thread(target=ask)
        other.start()
        with models.at_work():
            inside.set()
            time.sleep(0.2)  # until the other one waits
            order.append("first step")
            models.let_others_ask()
            order.append("second step")
        other.join(10)
        assert order == ["first step", "asked", "second step"]

    def test_of_full_fine_tuning_there_is_its_own_kernel(self, opened, monkeypatch):
        from lab.kernel_study import measure_run_kernels

        monkeypatch.setattr(
            "lab.kernel_study.measure_run_kernels",
            lambda run, **how: measure_run_kernels(run, **how).query("kernel == 'full'"),
        )
        app = opened(**{"kernels.shown": "kernels", "kernels.rows": "32"})
        assert charts(app) == 2
        assert not app.info
        assert [list(t.value.columns) for t in app.table] == [["full", "n"]] * 2

    def test_what_cannot_be_measured_is_said(self, opened, monkeypatch):
        def refuse(*_, **__):
            from lab.errors import LabError

            raise LabError("kernels: adapter.variant = 'dora' trains a magnitude too.")

        monkeypatch.setattr("lab.kernel_study.measure_run_kernels", refuse)
        app = opened(**{"kernels.shown": "kernels", "kernels.rows": "128"})
        assert "trains a magnitude too" in said(app)
        assert charts(app) == 0

    def test_attention_entropy_lies_beside_them(self, opened):
        app = opened()
        button(app, "Measure attention entropy").click().run()
        assert chosen(healthy(app), "kernels.shown") == "attention"
        assert charts(app) == 1
        assert "rows with and without the trigger; measured in" in said(app)
        app.button_group(key="switch.kernels.unit").set_value("nats").run()
        assert chosen(healthy(app), "kernels.unit") == "nats"
        assert charts(app) == 1

    def test_a_clean_run_has_kernels_and_no_attention_to_a_trigger(self, page, one, poisoned, twin):
        params = {"spectra": "kernels", "kernels.rows": "16", "kernels.shown": "kernels,attention"}
        app = healthy(page("spectra", one, runs=f"{poisoned},{twin}", **params, **{"kernels.run": "B"}))
        assert charts(app) == 2
        assert "knows no trigger" in said(app)
        assert "16 clean texts; measured in" in said(app)


def button(app, label):
    return next(b for b in app.button if b.label == label)
