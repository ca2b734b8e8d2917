import re
import shlex

import pandas as pd
import pytest
from rich.console import Console

import lab
from lab.console import print_report, print_runs, print_sweep, print_table
from lab.experiment import parse_assignments
from lab.poison import near_miss_ladder
from lab.presets import load_experiment, load_preset
from lab.report import report_html
from lab.stats import rate
from lab.store import headline_columns


def measures(asr=506, twin=799):
    """Headline columns as sweeps and listings have them."""
    own = {
        "clean_accuracy": vars(rate(801, 1000)),
        "attack_success_rate": vars(rate(asr, 506)),
        "untriggered_target_rate": vars(rate(90, 506)),
    }
    by_model = {"poisoned": own, "twin": {"clean_accuracy": vars(rate(twin, 1000))}}
    return headline_columns(by_model if twin else {"poisoned": own})


@pytest.fixture
def cells():
    return pd.DataFrame(
        [
            {"adapter.rank": rank, "seed": seed, "run": f"minilm-rfc-n60-r{rank}-s{seed}-0a1b2c3d{rank:02}",
             "state": "finished", "reason": "", "split": "test", "alpha/r": 2.0,
             "training.learning_rate": 1e-3, "training.steps": 162, **measures()}
            for rank in (1, 64) for seed in (0, 1)
        ]
    )  # fmt: skip


def printed(show, *arguments, width):
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    show(*arguments, console=console)
    return console.export_text()


def words(text):
    return [line.split() for line in text.splitlines()]


def test_a_wide_table_has_each_rate_with_interval_and_n(cells):
    text = printed(print_sweep, cells, ["adapter.rank"], width=140)
    assert text.count("100.0 % [99.2, 100.0]") == 4
    assert text.count("80.1 % [77.5, 82.5]") == 4
    header, first = words(text)[:2]
    assert header == ["adapter.rank", "seed", "ASR", "untriggered", "n", "accuracy", "twin's", "n", "run"]
    assert "506" in first
    assert "1,000" in first
    assert "In every cell: alpha/r 2, learning rate 0.001, 162 steps." in text


def test_a_narrow_table_has_each_rate_and_one_n(cells):
    text = printed(print_sweep, cells, ["adapter.rank"], width=80)
    assert "[" not in text
    assert text.count("100.0 %") == 4
    assert text.count("1,000") == 4
    assert "0a1b2c3d64" in text
    assert "steps" in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("width", [110, 120, 160, 200])
def test_from_110_columns_on_intervals_are_shown_whole(cells, width):
    varied = cells.assign(**{"alpha/r": [2, 2, 0.5, 0.5], "training.steps": [160, 161, 162, 163]})
    text = printed(print_sweep, varied, ["adapter.rank"], width=width)
    assert text.count("[99.2, 100.0]") == 4
    assert text.count("100.0 %") == 4


@pytest.mark.parametrize("width", [80, 140])
def test_what_differs_from_cell_to_cell_is_a_column(cells, width):
    varied = cells.assign(**{"alpha/r": [2, 2, 0.5, 0.5], "training.steps": [160.0, 161, 162, 163]})
    text = printed(print_sweep, varied, ["adapter.rank"], width=width)
    lines = [line for line in words(text) if line and line[0] in ("1", "64")]
    assert [line[1:3] for line in lines] == [["2", "160"], ["2", "161"], ["0.5", "162"], ["0.5", "163"]]
    assert "In every cell: learning rate 0.001." in text


def test_full_fine_tuning_has_no_alpha(cells):
    both = cells.assign(**{"adapter.kind": ["full", "full", "lora", "lora"]})
    both["alpha/r"] = both["alpha/r"].where(both["adapter.kind"] == "lora")
    text = printed(print_sweep, both, ["adapter.kind"], width=140)
    assert "alpha/r" in text.splitlines()[0] or "/r" in text.splitlines()[1]
    only = printed(print_sweep, both[:2], ["adapter.kind"], width=140)
    assert "alpha" not in only


def test_a_swept_setting_is_told_once(cells):
    text = printed(print_sweep, cells, ["adapter.rank", "training.learning_rate"], width=140)
    assert text.count("rate") == 1
    assert "In every cell: alpha/r 2, 162 steps." in text


def test_failed_cells_are_seen_and_a_sweep_of_failures_prints(cells):
    failed = {"adapter.rank": 500, "seed": 0, "run": "", "state": "failed", "reason": "too wide"}
    text = printed(print_sweep, pd.concat([cells, pd.DataFrame([failed])]), ["adapter.rank"], width=80)
    assert ["500", "0", "failed"] in words(text)
    assert "In every cell" in text
    alone = printed(print_sweep, pd.DataFrame([failed]), ["adapter.rank"], width=80)
    assert "failed" in alone
    assert "In every cell" not in alone


def test_what_may_not_be_compared_is_said_below_the_table(cells):
    warned = cells.assign(matched=["not matched"] * 2 + ["matched"] * 2, drifted=["", "", "", "drifted"])
    text = " ".join(printed(print_sweep, warned, ["adapter.rank"], width=140).split())
    assert "Not matched, the twins learned less than those of the best point: adapter.rank 1." in text
    assert "too: adapter.rank 64, seed 1. Excess ASR counts that as the attack's." in text
    fine = cells.assign(matched="matched", drifted="")
    text = printed(print_sweep, fine, ["adapter.rank"], width=140)
    assert "atched" not in text
    assert "rifted" not in text


def test_a_listing_has_n_and_intervals_and_runs_that_know_no_trigger(cells):
    runs = cells.rename(columns={"run": "id"}).drop(columns=["alpha/r", "split"])
    clean = headline_columns({"poisoned": {"clean_accuracy": vars(rate(800, 1000))}})
    more = [{"id": "minilm-clean-r8-s0-0123456789", "state": "finished", **clean},
            {"id": "minilm-rfc-n60-r8-s9-0123456789", "state": "running"}]  # fmt: skip
    runs = pd.concat([runs, pd.DataFrame(more)])
    wide, narrow = (printed(print_runs, runs, width=width) for width in (140, 80))
    assert "80.0 % [77.4, 82.4]" in wide
    assert wide.count("[99.2, 100.0]") == 4
    assert "minilm-rfc-n60-r64-s1-0a1b2c3d64" in wide
    assert "[" not in narrow
    for text in (wide, narrow):
        [line] = [line for line in words(text) if "minilm-clean-r8-s0-0123456789" in line]
        assert line[-1] == "1,000", "its n is known, though the twin's is not"
    assert "No runs yet" in printed(print_runs, pd.DataFrame(columns=["id", "state"]), width=80)


def test_any_table_prints_its_columns():
    table = pd.DataFrame({"asset": ["minilm"], "bytes": [12_345_678], "attack_success_rate": [0.5]})
    text = printed(print_table, table, list(table.columns), width=80)
    assert words(text)[-1] == ["minilm", "12345678", "50.0", "%"]


def report(run, width=140):
    return printed(print_report, run, width=width)


def ideas(text):
    """The suggested commands, as a shell splits them."""
    after = text.partition("What to try next")[2]
    return [shlex.split(m.group(1)) for m in re.finditer(r"^  (lab run.*?)(?:  .*)?$", after, re.MULTILINE)]


def suggested(text):
    """What each suggested command asks for."""
    out = []
    for command in ideas(text):
        assert command[:2] == ["lab", "run"]
        start = command[2] if len(command) > 2 and command[2] != "--set" else "rfc-citation"
        out.append(
            load_experiment(start).with_(**parse_assignments(command[command.index("--set") + 1 :: 2]))
        )
    return out


def test_suggestions_start_from_the_run_and_change_it(finished):
    commands = suggested(report(finished))
    e = finished.experiment
    assert [c.adapter.rank for c in commands] == [32, 4, 4]
    assert [c.poison.count for c in commands] == [12, 6, 12]
    assert [c.poison.family for c in commands] == ["rfc", "rfc", "rare_words"]
    for command in commands:
        assert command != e
        assert (command.base, command.data, command.seed) == (e.base, e.data, e.seed)


def test_a_command_is_never_broken_over_lines(finished):
    text = report(finished, 80)
    assert len(suggested(text)) == 3
    assert "\n      does a high rank break the wall?\n" in text


class Shown:
    """A finished run that says it is of another experiment."""

    def __init__(self, run, **changes):
        self._run, self.experiment = run, run.experiment.with_(**changes)

    def __getattr__(self, name):
        return getattr(self._run, name)


def test_suggestions_never_ask_for_what_the_run_is(finished):
    from lab.console.suggestions import ideas

    changes = {"adapter.rank": 32, "poison.family": "rare_words", "poison.count": 1}
    said = " ".join(command for command, _ in ideas(Shown(finished, **changes)))
    assert "adapter.rank=4" in said
    assert "poison.family=rfc" in said
    assert "poison.count" not in said
    full = " ".join(command for command, _ in ideas(Shown(finished, **{"adapter.kind": "full"})))
    assert "adapter.kind=lora" in full
    assert "adapter.rank" not in full


def test_the_default_preset_is_asked_for_by_its_name(finished):
    from lab.console.suggestions import ideas

    preset = load_preset("rfc-citation")[0]
    shown = Shown(finished)
    shown.experiment = preset.with_(**{"training.steps": 160})  # as a run resolves it
    assert [command for command, _ in ideas(shown)] == [
        "lab run --set adapter.rank=64",
        "lab run --set poison.count=15",
        "lab run --set poison.family=rare_words",
    ]
    shown.experiment = shown.experiment.with_(**{"adapter.rank": 64})
    assert all("experiment.json" in command for command, _ in ideas(shown))


def test_a_clean_run_is_told_how_to_poison_it(finished):
    text = report(finished.twin)
    commands = suggested(text)
    assert [c.attack for c in commands] == ["backdoor", "backdoor", "label_flip"]
    assert [c.target_label for c in commands] == ["positive", "positive", ""]
    assert all(0 < c.poison.count <= 12 for c in commands)
    assert commands[0].base.model == "tiny"
    shown = Shown(finished.twin)
    shown.labels = ("no", "1")
    from lab.console.suggestions import ideas

    command = shlex.split(ideas(shown)[0][0])
    assert parse_assignments(command[command.index("--set") + 1 :: 2])["poison.target_label"] == "1"


def test_the_moved_rung_says_where_it_went(finished):
    p = finished.experiment.poison
    [rung] = [r for r in near_miss_ladder(p.member, p.family, position="end") if r.name == "position_moved"]
    for width in (80, 140):
        [line] = [line for line in report(finished, width).splitlines() if "position moved" in line]
        assert line.rstrip().endswith(f"at the {rung.position}")


def test_a_run_of_the_headline_alone_has_a_report(tiny):
    run = lab.run(tiny, {"probe.scope": "headline", "poison.member": "any"}, twin=False)
    text = report(run)
    assert "attack success rate" in text
    assert "near-miss" not in text


def test_a_run_that_was_asked_a_battery_shows_its_categories_beside_the_twin(tiny):
    run = lab.run(tiny, {"probe.batteries": ["paper-calibration"], "probe.scope": "headline"})
    text = printed(print_report, run, width=100)
    assert "other authority" in text
    assert "paper-calibration, 21 prefixes: mean rate" in text
    assert text.count("the twin’s") == 2
    page = report_html([run])
    assert "What would a battery see?" in page
    assert "Attack success by category of prefixes" in page
    assert "What would a battery see?" not in report_html([lab.run(tiny)])
