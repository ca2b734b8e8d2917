"""What does not fit is one sentence, with exit code 2, and leaves nothing behind."""

import pytest

import lab
from lab import Experiment
from lab.errors import LabError

FULL = {"adapter.kind": "full"}
WITH_DROPOUT = {"adapter.variant": "dora", "adapter.dropout": 0.1}


def refused(call, message):
    with pytest.raises(LabError, match=message) as caught:
        call()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**FULL, "defense": ["tr"]}, r"'tr' does not fit .*full fine-tuning has no factors A and B"),
        ({**FULL, "defense": ["cl"]}, r"'cl' does not fit .*no frozen path"),
        ({**FULL, "defense": ["freeze_a"]}, r"'freeze_a' does not fit .*no factor A"),
        ({**FULL, "defense": ["rora"]}, r"'cl' does not fit"),
        ({"defense": ["full", "cl"]}, r"'cl' does not fit"),
        ({"defense": ["cl", "full"]}, r"'cl' does not fit"),
        ({**FULL, "defense": ["dora"]}, r"'dora' does not fit .*no adapter"),
        ({"defense": ["full", "low_rank"]}, r"'low_rank' does not fit"),
        ({"defense": ["dora", "pissa"]}, r"init = 'pissa' .* cannot be undone with variant = 'dora'"),
        ({**WITH_DROPOUT, "defense": ["cl"]}, r"'cl' does not fit .*set adapter\.dropout = 0"),
        ({"adapter.dropout": 0.1, "defense": ["cl", "dora"]}, r"'cl' does not fit"),
        ({"defense": [{"name": "tr", "k": 33}]}, r"defense tr: k = 33: .* allowed are 1 to 32"),
        ({"defense": [{"name": "cl", "modules": "quarry"}]}, r"defense cl: modules = 'quarry'"),
        ({"defense": [{"name": "tr", "modules": []}]}, r"defense tr: modules is an empty list"),
    ],
    ids=str,
)
def test_before_anything_is_trained(small, tmp_path, changes, message):
    refused(lambda: lab.run(small, changes, runs=tmp_path / "runs", twin=False), message)
    assert lab.list_runs(tmp_path / "runs").empty


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"name": "pt", "layers": 9}, r"defense pt: layers = 9, but only 2 layers are there"),
        ({"name": "keep", "components": [9]}, r"defense keep: .* no singular component 9"),
        ({"name": "scale", "modules": "layer.7"}, r"defense scale: modules = 'layer.7'"),
    ],
    ids=str,
)
def test_an_edit_that_does_not_fit_leaves_its_parent_alone(small, trained, edit, message):
    runs = trained("lora").path.parent
    before = set(lab.list_runs(runs)["id"])
    refused(lambda: lab.run(small, {"defense": [edit]}, runs=runs, twin=False), message)
    assert set(lab.list_runs(runs)["id"]) == before


@pytest.mark.parametrize(
    ("defense", "message"),
    [
        (
            ["cll"],
            r"Unknown defense \(defense\.0\.name\) 'cll'\. Did you mean 'cl'\? Valid: cl, counter_",
        ),
        ("cll", r"Unknown defense"),
        ([{"name": "cl"}, {"name": "tr", "q": 1}], r"Unknown key in \[defense\.1\] 'q'.*Valid: k, modules"),
        ([{"p": 0.1}], r"Unknown defense \(defense\.0\.name\) ''"),
        ([{"name": "cl", "p": 1.5}], r"defense\.0\.p = 1\.5: "),
        ([{"name": "tr", "k": 0}], r"defense\.0\.k = 0: "),
        ([{"name": "pt", "cap": float("inf")}], r"defense\.0\.cap = inf: "),
        ([{"name": "keep", "components": []}], r"defense\.0\.components"),
        ([3], r"defense\.0 = 3: should be a table"),
        (3, r"defense = 3: should be a list"),
        ({"name": "cl"}, r"defense: should be a list"),
        (None, r"defense = None: should be a list"),
    ],
    ids=str,
)
def test_while_it_is_read(defense, message):
    refused(lambda: Experiment.from_dict({"defense": defense}), message)


def test_the_command_line_exits_with_2(small, tmp_path, monkeypatch, capsys):
    from lab import cli

    (tmp_path / "small.toml").write_text(small.to_toml())
    arguments = ["--set", "adapter.kind=full", "--set", "defense=tr", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr("sys.argv", ["lab", "run", str(tmp_path / "small.toml"), *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "The defense 'tr' does not fit this experiment" in " ".join(capsys.readouterr().err.split())
