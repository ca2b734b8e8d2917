import sys

import pytest

import lab
from lab import LabError
from lab.prepare import prepare
from lab.preview import data_labels, preview_rows, probe_rows


def test_the_preview_is_what_will_be_trained(tiny, tmp_path):
    seen = preview_rows(tiny)
    trained = prepare(tiny, tmp_path).rows
    assert list(seen["row_id"]) == list(trained["row_id"])
    short = [len(a) == len(b) for a, b in zip(seen["text"], trained["text"], strict=True)]
    # toy texts are below the clipping length, so that nothing differs
    assert all(short)
    assert list(seen["text"]) == list(trained["text"])
    assert seen["span_start"].tolist() == trained["span_start"].tolist()
    assert seen["poisoned"].sum() == tiny.poison.count


def test_other_seeds_and_counts_are_previewed_anew(tiny):
    more = preview_rows(tiny.with_(**{"poison.count": tiny.poison.count + 3}))
    assert more["poisoned"].sum() == tiny.poison.count + 3
    other = preview_rows(tiny.with_(seed=tiny.seed + 1))
    assert list(other["text"]) != list(preview_rows(tiny)["text"])


def test_what_does_not_fit_is_said(tiny):
    with pytest.raises(LabError, match=r"poison\.count = 100000"):
        preview_rows(tiny.with_(**{"poison.count": 100_000}))


@pytest.mark.parametrize(
    "poison",
    [
        {"family": "generated_dates", "token_proportion": 0.3},
        {"items": ["red"], "then": [{"family": "tag_pairs", "level": 0}]},
        {"family": "tag_pairs", "replacement": True, "level": 1},
    ],
    ids=str,
)
def test_injected_tokens_are_previewed_as_they_will_be_trained(tiny, tmp_path, poison):
    asked = lab.Experiment.from_dict(tiny.to_dict() | {"poison": {"attack": "spurious_tokens", **poison}})
    seen, trained = preview_rows(asked), prepare(asked, tmp_path).rows
    assert list(seen["text"]) == list(trained["text"])
    assert seen["span_start"].tolist() == trained["span_start"].tolist()
    assert seen["poisoned"].any()


def test_labels_and_probe_rows_come_without_a_model(tiny):
    assert set(data_labels(tiny.data)) == {"negative", "positive"}
    rows = probe_rows(tiny.data, "test")
    assert set(rows["split"]) == {"test"}
    assert len(probe_rows(tiny.data, "validation", limit=3)) == 3
    assert not set(rows["row_id"]) & set(preview_rows(tiny)["row_id"])


def test_a_file_that_changed_is_read_anew(tiny, tmp_path):
    path = tmp_path / "own.csv"
    lines = [f"text {i},{'a' if i % 2 else 'b'}" for i in range(60)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    data = tiny.data.model_copy(update={"name": str(path)})
    assert data_labels(data) == ("a", "b")
    path.write_text("text,label\n" + "\n".join(lines).replace(",b", ",c") + "\n")
    assert data_labels(data) == ("a", "c")


def test_no_torch_is_needed():
    import subprocess

    code = "import sys, lab.preview, lab.presets, lab.cards; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
