import os
import sys

import pytest

from lab import cli
from lab.paths import expanded

NOBODY = "~nobody-of-this-name/x"


def test_home_is_expanded_and_that_of_nobody_is_left():
    assert str(expanded("~/x")) == os.path.join(os.path.expanduser("~"), "x")
    assert str(expanded(NOBODY)) == NOBODY


@pytest.mark.parametrize(
    "words",
    [
        ["run", f"{NOBODY}.toml"],
        ["run", "--set", f"base.model={NOBODY}"],
        ["run", "--set", f"data.name={NOBODY}.csv"],
        ["sweep", f"{NOBODY}.toml"],
        ["run", "--runs", NOBODY],
        ["list", "--runs", NOBODY],
        ["cohort", "build", "tiny", "--folder", NOBODY],
        ["audit", NOBODY],
        ["lint", f"{NOBODY}.csv"],
        ["show", NOBODY],
        ["runs", "import", f"{NOBODY}.zip"],
        ["reproduce", "rora", "--no-run", "--html", f"{NOBODY}.html"],
        ["reproduce", f"{NOBODY}.toml"],
        ["cohort", "judge", NOBODY],
    ],
    ids=" ".join,
)
def test_a_path_in_the_home_of_nobody_is_a_sentence(words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lab", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.strip().splitlines()[-1].startswith("lab: "), told
    assert ended.value.code == 2
    assert not list(tmp_path.glob("~*"))
