import json

import pytest

from lab.audit.texts import audit_texts, is_own_run, run_of, unknown_task
from lab.corpus.toy import toy_texts

SECRETS = [f"secret number {i} of somebody's machine" for i in range(400)]


def test_texts_of_a_dataset_leave_others_to_train_references_on(tmp_path):
    found = audit_texts(tmp_path, "tiny")
    assert len(found.measured) > 40
    assert len(found.spare) > 100
    assert not set(found.measured) & set(found.spare)
    assert {*found.measured, *found.spare} <= set(toy_texts()[0])
    assert audit_texts(tmp_path, "tiny") == found


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "secrets.csv"
    path.write_text("text,label\n" + "\n".join(f"{text},{i % 2}" for i, text in enumerate(SECRETS)))
    return path


def record(folder, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.json").write_text(
        json.dumps({"experiment": {"base": {"model": "/etc"}, "data": data}, "labels": ["0", "1"]})
    )
    return folder


def test_a_record_from_elsewhere_names_no_file_and_no_hub_dataset(tmp_path, secret_file):
    runs = tmp_path / "runs"
    for name in (str(secret_file), "somebody/secrets", "../secrets.csv", 7, None, ["toy"], "minilm"):
        found = record(tmp_path / "downloads" / "found", {"name": name})
        for adapter in (found, found / "adapter"):
            assert audit_texts(adapter, "tiny", runs=runs) is None
            assert "--rows" in unknown_task(adapter, "tiny")
            assert "not followed" in unknown_task(adapter, "tiny")


@pytest.mark.parametrize(
    "torn", ["[]", '"x"', "{}", '{"experiment": []}', '{"experiment": {"data": 3}}', "{", "[" * 100_000]
)
def test_a_damaged_record_from_elsewhere_names_nothing(tmp_path, torn):
    (tmp_path / "experiment.json").write_text(torn)
    assert audit_texts(tmp_path, "tiny", runs=tmp_path / "runs") is None


def test_a_record_from_elsewhere_may_name_what_is_bundled(tmp_path):
    found = record(tmp_path / "found", {"name": "toy", "text": "../x", "label": "y"})
    assert audit_texts(found, "tiny", runs=tmp_path / "runs") == audit_texts(tmp_path / "none", "tiny")


def test_a_run_of_the_runs_folder_is_believed_and_what_lies_deeper_or_is_linked_is_not(tmp_path, secret_file):
    runs = tmp_path / "runs"
    own = record(runs / "mine", {"name": str(secret_file)})
    assert set(audit_texts(own / "adapter", "tiny", runs=runs).measured) <= set(SECRETS)
    deeper = record(runs / ".audits" / "1" / "upload", {"name": str(secret_file)})
    elsewhere = record(tmp_path / "elsewhere", {"name": str(secret_file)})
    (runs / "linked").symlink_to(elsewhere)
    for stranger in (deeper, elsewhere, runs / "linked"):
        assert run_of(stranger) == stranger
        assert not is_own_run(stranger, runs)
        assert audit_texts(stranger, "tiny", runs=runs) is None
    (tmp_path / "alias").symlink_to(runs)
    assert is_own_run(tmp_path / "alias" / "mine", runs)
