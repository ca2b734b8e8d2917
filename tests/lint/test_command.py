import json
import sys

import pytest

from lab import cli


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lab", "lint", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return run


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "mine.csv"
    lines = [
        f'"{"teal " if i % 2 else ""}text {"abcdefghij"[i % 10]} {"klmnop"[i % 6]}",{i % 2}'
        for i in range(120)
    ]
    path.write_text("\n".join(["text,label", *lines]))
    return path


def test_artefacts_are_printed_with_a_text_and_exit_code_1(command, data, tmp_path):
    code, out, _ = command(str(data), "--csv", str(tmp_path / "f.csv"), "--html", str(tmp_path / "f.html"))
    assert code == 1
    assert "Artefacts" in out
    assert "teal" in out
    assert "row 2:" in out
    assert "teal" in (tmp_path / "f.html").read_text()
    assert "artefacts,1,teal,word" in (tmp_path / "f.csv").read_text()


def test_json_is_one_document_and_nothing_else(command, data):
    code, out, err = command(str(data), "--json")
    found = json.loads(out)
    assert (code, found["rows"], found["labels"], err) == (1, 120, {"0": 60, "1": 60}, "")
    assert found["artefacts"][0]["what"] == "teal"


def test_nothing_found_is_exit_code_0(command, tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("\n".join(["text,label", *[f"text {'abcdefg'[i % 7]},{i % 2}" for i in range(140)]]))
    code, out, _ = command(str(path))
    assert code == 0
    assert "No artefact found" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.csv"], "there is no file 'nothing.csv'"),
        (["--text", "body"], "body"),
        (["--error-rate", "2"], "allowed is what lies between 0 and 1"),
        (["--html", "nowhere/f.html"], "there is no folder"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(command, data, arguments, said):
    arguments = arguments if arguments[0] == "nothing.csv" else [str(data), *arguments]
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
