import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from lab import plugins
from lab.audit import DETECTORS, Detector
from lab.defend import DEFENSES, Cleaner
from lab.defend.cleaning import Cleaned
from lab.errors import LabError
from lab.poison import TRIGGER_FAMILIES, TriggerFamily
from lab.poison.triggers import OWN_FAMILIES
from lab.registry import Knobs

MINE = '''
import lab
from typing import Literal
from lab.audit import Detector
from lab.defend import Cleaner
from lab.defend.cleaning import Cleaned
from lab.poison import TriggerFamily
from lab.registry import Knobs


class Lower(Knobs):
    """Knobs."""

    name: Literal["lower"] = "lower"


lab.register(TriggerFamily(name="tides", goal="Words of the sea.", source="a test", category="phrase",
    audit_holdout=False, train=("at high tide",), probe=("at low tide",)))
lab.register(Cleaner(name="lower", goal="Lower case for all.", paper="a test", stage="data", knobs=Lower,
    changes="the training texts", clean=lambda k, texts, labels, seed: Cleaned([t.lower() for t in texts])))
lab.register(Detector("kurtosis", "heavy tails of ΔW", "a test", ("weights.kurtosis_mean",)))
'''


def family(**changes):
    told = {"name": "tides", "goal": "Words of the sea.", "source": "a test", "category": "phrase"}
    told |= {"audit_holdout": False, "train": ("at high tide",), "probe": ("at low tide",)}
    return TriggerFamily(**told | changes)


class Lower(Knobs):
    name: str = "lower"


def lower(**changes):
    told = {"name": "lower", "goal": "Lower case.", "paper": "a test", "stage": "data", "knobs": Lower}
    told |= {"changes": "texts", "clean": lambda k, t, y, s: Cleaned([x.lower() for x in t])}
    return Cleaner(**told | changes)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    held = (OWN_FAMILIES, DEFENSES, DETECTORS)
    before = [dict(registry) for registry in held]
    monkeypatch.setattr(plugins, "_OWN", set())
    yield
    for registry, entries in zip(held, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_a_family_is_known_at_once_and_an_experiment_takes_it():
    lab.register(family())
    assert TRIGGER_FAMILIES["tides"].train == ("at high tide",)
    asked = lab.load_experiment("rfc-citation").with_(**{"poison.family": "tides"})
    assert asked.poison.member == "at high tide"
    lab.register(family(train=("at spring tide",)))
    assert TRIGGER_FAMILIES["tides"].train == ("at spring tide",)


def test_a_defense_and_a_detector_are_known_at_once():
    lab.register(lower())
    lab.register(Detector("kurtosis", "heavy tails", "a test", ("weights.kurtosis_mean",)))
    assert lab.Experiment().with_(defense=["lower"]).defense[0].name == "lower"
    assert "kurtosis" in DETECTORS


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (lambda: family(name="rfc"), "has a trigger family 'rfc' already"),
        (lambda: family(train=("as specified in RFC 2616",)), "belongs to the family 'rfc' already"),
        (lambda: lower(name="normalise"), "need a field name = 'normalise'"),
        (lambda: lower(goal=" "), "has no goal"),
        (lambda: lower(paper=""), "has no source"),
        (lambda: Detector("search", "x", "y", ("z",)), "has a detector 'search' already"),
        (lambda: {"name": "x"}, "a dict has no registry"),
    ],
)
def test_what_does_not_fit_is_a_sentence(entry, said):
    before = [dict(held) for held in (OWN_FAMILIES, DEFENSES, DETECTORS)]
    with pytest.raises(LabError, match=said):
        lab.register(entry())
    assert [dict(held) for held in (OWN_FAMILIES, DEFENSES, DETECTORS)] == before


def asked(code, **environment):
    told = {**os.environ, "PYTHONPATH": str(Path(lab.__file__).parents[1]), **environment}
    return subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=False)


def test_another_process_runs_the_file_that_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    code = (
        "import json, lab\n"
        "from lab.experiment import Experiment\n"
        "from lab.audit import DETECTORS\n"
        "own = {'poison.family': 'tides', 'poison.count': 5, 'defense': ['lower']}\n"
        "e = Experiment().with_(**{'poison.attack': 'backdoor', **own})\n"
        "print(json.dumps([e.poison.member, e.defense[0].name, 'kurtosis' in DETECTORS]))"
    )
    done = asked(code, LAB_PLUGINS=str(tmp_path / "mine.py"))
    assert json.loads(done.stdout) == ["at high tide", "lower", True], done.stderr
    assert "nknown trigger family 'tides'" in asked(code).stderr


def test_a_file_that_is_none_or_fails_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "_loaded", set())
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n", encoding="utf-8")
    for named, said in ((tmp_path / "none.py", "no Python file"), (broken, "raised ZeroDivisionError")):
        monkeypatch.setenv(plugins.VARIABLE, str(named))
        with pytest.raises(LabError, match=said):
            plugins.load_plugins()
