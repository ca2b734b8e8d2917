import json

import pandas as pd
import pytest
from paper_runs import cell, claims_on, line

from lab.defend import settle
from lab.paper_cards import passes
from lab.paper_cards.cells import COMMITTED, HERE
from lab.paper_cards.evidence import result_table
from lab.paper_cards.passes import PASS_COLUMNS, pass_table, read_pass
from lab.presets import load_sweep
from lab.probing_stage import probe_id

PLATFORM = "Linux-6.1.2-some-build-x86_64-with-glibc2.36"
ASKED = {
    "a mean": {"of": {"arm": "full", "poison.count": 8}},
    "a difference of points": {
        "of": {"arm": "full", "poison.count": 8},
        "minus": {"arm": "lora", "poison.count": 8},
    },
    "a difference of measures": {
        "of": {"arm": "full", "poison.count": 8},
        "minus_measure": "untriggered_target_rate",
    },
    "a trend": {"of": {"arm": "lora"}, "trend": "poison.count"},
}


@pytest.fixture(scope="module")
def plan():
    return load_sweep("lora-vs-full-backdoor")


@pytest.fixture
def runs(plan, tmp_path):
    """A listing of a whole sweep, its folder, and what each run says of itself."""
    made = []
    for arm in plan.arms:
        for count in plan.over["poison.count"]:
            for seed in range(3):
                name = f"{arm}-{count}-{seed}"
                rate = min(1.0, count / 20 + seed / 10 + (arm == "full") / 5)
                measures = {"attack_success_rate": rate, "attack_success_rate.n": 271}
                measures |= {"untriggered_target_rate": rate / 7, "untriggered_target_rate.n": 271}
                made.append(line(cell(plan, arm, count, seed), name, **measures))
                (tmp_path / name).mkdir()
                versions = {"torch": "2.13.0", "python": "3.11.7", "numpy": "2"}
                (tmp_path / name / "experiment.json").write_text(json.dumps({"versions": versions}))
                machine = {"platform": PLATFORM, "device": "cpu", "threads": 1}
                told = {"finished": 1.8e9, "timings": {"total": 12.5}, "machine": machine}
                (tmp_path / name / "result.json").write_text(json.dumps(told))
    return pd.DataFrame(made), tmp_path


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_pass_says_what_the_runs_said(runs, asked, tmp_path, monkeypatch):
    listing, folder = runs
    quantity = {"source": "lora-vs-full-backdoor", "measure": "attack_success_rate", "above": 0, **asked}
    claims = claims_on(quantity)
    file = tmp_path / "pass.csv"
    pass_table(claims, listing, folder).to_csv(file, index=False)
    monkeypatch.setattr(passes, "pass_path", lambda _: file)
    here = result_table(claims, listing, folder).iloc[0]
    kept = result_table(claims, pd.DataFrame(), folder).iloc[0]
    numbers = ["value", "low", "high", "n", "seeds"]
    assert here[numbers].to_dict() == pytest.approx(kept[numbers].to_dict())
    assert (here["held"], kept["held"]) == (HERE, COMMITTED)
    assert kept["machine"] == "Linux x86_64, cpu, threads 1"
    assert kept["runs"] == ""


def test_a_line_says_where_and_with_what_it_was_measured(runs):
    listing, folder = runs
    quantity = {"source": "lora-vs-full-backdoor", "measure": "attack_success_rate", "above": 0}
    table = pass_table(claims_on({**quantity, **ASKED["a mean"]}), listing, folder)
    assert tuple(table.columns) == (*PASS_COLUMNS, "attack_success_rate", "attack_success_rate.n")
    assert len(table) == len(listing)
    assert set(table["versions"]) == {"python 3.11.7, torch 2.13.0"}
    assert set(table["finished"]) == {"2027-01-15"}
    assert not table.astype(str).apply(lambda column: column.str.contains("some-build")).any(axis=None)


def test_without_a_pass_there_are_no_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "pass_path", lambda arxiv: tmp_path / f"{arxiv}.csv")
    assert read_pass("2505.12871") == {}


def test_half_a_pass_has_no_trend_and_leaves_the_former_line(runs, tmp_path, monkeypatch):
    listing, folder = runs
    quantity = {"source": "lora-vs-full-backdoor", "measure": "attack_success_rate", "above": 0}
    claims = claims_on({**quantity, **ASKED["a trend"]})
    file = tmp_path / "pass.csv"
    whole = pass_table(claims, listing, folder)
    monkeypatch.setattr(passes, "pass_path", lambda _: file)
    found = {}
    for name, kept in (("whole", whole), ("half", whole.iloc[: len(whole) // 3])):
        kept.to_csv(file, index=False)
        found[name] = result_table(claims, pd.DataFrame(), folder).iloc[0]
    assert found["whole"]["machine"] == "Linux x86_64, cpu, threads 1"
    assert found["half"]["machine"] == "x86_64, CPU"


def test_a_mean_over_families_says_on_how_many_texts_it_rests(runs, plan):
    listing, folder = runs
    asked = probe_id(settle(plan.experiment).probe)
    for path in folder.glob("*/result.json"):
        told = json.loads(path.read_text())
        rows = {} if path.parent.name == "full-8-2" else {"family_rows": {"held_out_members": 24}}
        probe = {"split": "test", "twin": "t", "families": {"held_out_members": 0.75}, **rows}
        path.write_text(json.dumps({**told, "probes": {asked: probe}}))
    asked = {"source": "lora-vs-full-backdoor", "measure": "held_out_members", "above": 0}
    found = [
        result_table(claims_on({**asked, "of": {"arm": arm, "poison.count": 8}}), listing, folder).iloc[0]
        for arm in ("lora", "full")
    ]
    assert [row["value"] for row in found] == [0.75, 0.75]
    # a run of before the count was kept has none: then the mean of all has none either
    assert [row["n"] for row in found] == [72, 0]
