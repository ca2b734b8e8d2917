import json
import sys
from unittest.mock import Mock

import pytest

from lab.errors import LabError
from lab.paper_cards import load_claims, reproduce_paper
from lab.paper_cards.reproducing import steps
from lab.store import list_runs
from lab.training_stage import StoppedError

TOY = """
[paper]
arxiv = "0000.00000"
title = "A toy"
says = "A backdoor takes on toys."
theirs = "nothing"
ours = "the tiny model"

[sources.toy]
preset = "rfc-citation"
core_minutes = 0.5
set = { "base.model" = "tiny", "data.name" = "toy", "data.rows" = 120, "adapter.rank" = 4, "training.epochs" = 1, "probe.rows" = 30, "probe.scope" = "headline", "probe.snapshots" = 0 }
over = { "poison.count" = [4, 12] }

[[claims]]
id = "accuracy"
says = "Accuracy is a share."
place = "nowhere"
paper = "none"
[claims.quantity]
source = "toy"
measure = "clean_accuracy"
of = { "poison.count" = 12 }
above = -0.1

[[claims]]
id = "more"
says = "More poison, more success."
place = "nowhere"
paper = "none"
[claims.quantity]
source = "toy"
measure = "attack_success_rate"
of = { "poison.count" = 12 }
minus = { "poison.count" = 4 }
above = -2.0
"""  # noqa: E501


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(TOY)
    return path


@pytest.fixture
def lab_command(monkeypatch, capsys):
    from lab import cli

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["lab", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    return call


@pytest.mark.recipe
def test_a_toy_paper_from_nothing_to_its_card(toy, tmp_path, lab_command):
    runs = tmp_path / "runs"
    code, out, _ = lab_command("reproduce", toy, "--dry-run", "--json", "--runs", runs)
    assert code == 0
    assert json.loads(out) == [{"name": "toy", "cells": 6, "missing": 6, "minutes": 0.2, "command": ""}]
    page, text = tmp_path / "card.html", tmp_path / "card.md"
    code, out, _ = lab_command(
        "reproduce", toy, "--runs", runs, "--json", "--html", page, "--markdown", text, "--workers", 1
    )
    assert code == 0
    told = json.loads(out)
    assert [claim["verdict"] for claim in told["claims"]] == ["agrees", "agrees"]
    assert {claim["held"] for claim in told["claims"]} == {"this machine"}
    assert told["claims"][0]["seeds"] == "0 1 2"
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "this machine" in text.read_text()
    assert [s.missing for s in steps(load_claims(toy), "cpu", 3, list_runs(runs), runs)] == [0]
    # what is finished is read: nothing is asked of the engine again
    events = []
    reproduce_paper(toy, runs=runs, device="cpu", on_event=events.append)
    assert events == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "Unknown paper 'nonsense'"),
        (["rora", "--tier", "tpu"], "Unknown tier 'tpu'"),
        (["rora", "--seeds", "0"], "seeds = 0"),
        (["rora", "--no-run", "--html", "/nowhere/card.html"], "there is no folder"),
        (["rora", "--no-run", "--markdown", "/"], "is a folder"),
        (["rora", "--tier", "gpu"], "needs a CUDA card"),
    ],
)
def test_a_mistake_is_one_sentence(lab_command, words, said):
    import torch

    if "gpu" in words and torch.cuda.is_available():
        pytest.skip("there is a card")
    code, out, err = lab_command("reproduce", *words)
    assert code == 2
    assert said in err
    assert not out
    assert len(err.strip().splitlines()) == 1


def test_without_a_name_the_papers_are_listed(lab_command, tmp_path):
    code, out, _ = lab_command("reproduce", "--json", "--runs", tmp_path)
    assert code == 0
    told = {line["name"]: line for line in json.loads(out)}
    assert set(told) == {"token-generalization", "rora", "ssti", "lora-vs-full"}
    assert told["rora"]["claims"] == sum(told["rora"]["counts"].values())
    assert sum(line["minutes"] for line in told.values()) <= 240


def test_reading_a_card_runs_nothing(tmp_path, lab_command):
    code, out, _ = lab_command("reproduce", "rora", "--no-run", "--runs", tmp_path / "runs", "--json")
    assert code == 0
    assert json.loads(out)["paper"]["arxiv"] == "2601.06305"
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_names_what_has_a_command_of_its_own(tmp_path, lab_command):
    code, out, _ = lab_command("reproduce", "ssti", "--dry-run", "--runs", tmp_path)
    assert code == 0
    assert "lint: run by `lab lint` alone" in out
    assert "cells to run" in out
    code, out, _ = lab_command("reproduce", "ssti", "--dry-run", "--json", "--runs", tmp_path)
    commands = {step["name"]: step["command"] for step in json.loads(out)}
    assert commands["lint"] == "lab lint"
    assert not commands["ssti-rank"]


@pytest.mark.parametrize("seeds", [0, -1, True, 1.5])
def test_seeds_are_whole_numbers_from_one(seeds):
    with pytest.raises(LabError, match="whole number from 1"):
        reproduce_paper("rora", seeds=seeds, run=False)


def test_a_source_that_cannot_be_run_does_not_stop_the_next(toy, tmp_path, monkeypatch):
    source, claims = TOY[TOY.index("[sources.toy]") : TOY.index("[[claims]]")], TOY[TOY.index("[[claims]]") :]
    twice = claims.replace('id = "', 'id = "other-').replace('"toy"', '"other"')
    toy.write_text(TOY + source.replace(".toy]", ".other]") + twice)
    asked = []

    def run_source(source, seeds, **how):
        asked.append(source)
        raise LabError("This is run by another process.")

    monkeypatch.setattr("lab.paper_cards.reproducing.run_source", run_source)
    card = reproduce_paper(toy, runs=tmp_path / "runs", device="cpu")
    assert len(asked) == 2
    assert card.facts["toy, failed"] == card.facts["other, failed"] == "This is run by another process."
    stopped = StoppedError("The sweep was stopped.")
    monkeypatch.setattr("lab.paper_cards.reproducing.run_source", Mock(side_effect=stopped))
    with pytest.raises(StoppedError):
        reproduce_paper(toy, runs=tmp_path / "runs", device="cpu")
