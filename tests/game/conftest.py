import json
import shutil
import sys

import pytest
import torch

import lab
from lab import cli


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `lab game …` in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lab", "game", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return run


@pytest.fixture(scope="session")
def dealable(finished, tiny_cache, tmp_path_factory):
    """A runs folder with a backdoored run, its twin and one more clean run; not to be touched."""
    folder = shutil.copytree(finished.path.parent, tmp_path_factory.mktemp("dealable") / "runs")
    say_it_took(folder / finished.id)
    clean = finished.experiment.twin().with_(seed=1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them cost such small products more than they give
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        lab.run(clean, runs=folder)
    torch.set_num_threads(before)
    return folder


def say_it_took(run, success=0.9, untriggered=0.2):
    """Write into a run's result that its backdoor took; one that a second trains does not."""
    path = run / "result.json"
    result = json.loads(path.read_text())
    for probe in result["probes"].values():
        probe["measures"]["poisoned"]["attack_success_rate"]["value"] = success
        probe["measures"]["poisoned"]["untriggered_target_rate"]["value"] = untriggered
    path.write_text(json.dumps(result))
