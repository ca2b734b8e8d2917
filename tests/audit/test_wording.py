import json
import shutil

import pytest
import torch

from lab.audit.safetensors_header import UnreadableAdapterError
from lab.audit.wording import Wording, given_wording, run_wording
from lab.chat.config import PAPER_SYSTEM
from lab.errors import LabError
from lab.experiment import Base
from lab.train.models import load_base


@pytest.fixture(scope="module")
def loaded(tiny_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        return load_base(Base(model="tiny-chat"), ("a", "b"), seed=0, device=torch.device("cpu"), kind="chat")


def test_words_are_asked_for_as_they_are_given(loaded):
    reading = given_wording(("Lovely", "awful")).reading(loaded)
    assert reading.labels == reading.answers == ("Lovely", "awful")
    assert PAPER_SYSTEM in reading.template.before
    assert "system" not in given_wording(("a", "b"), "").reading(loaded).template.before


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ((), "--labels"),
        (("good",), "at least two"),
        (("good", "bad", " Good "), "same word"),
        (("good", "good"), "same word"),
    ],
)
def test_words_that_tell_nothing_apart_are_refused(labels, told):
    with pytest.raises(LabError, match=told):
        given_wording(labels).check_words("x")


@pytest.mark.parametrize("labels", [("dull", "dull weak"), ("weak dull", "warm", "weak")])
def test_a_word_that_begins_another_is_refused(loaded, labels):
    with pytest.raises(LabError, match="begin with all those of"):
        given_wording(labels).reading(loaded)


def test_words_that_begin_alike_are_scored_as_wholes(loaded):
    assert given_wording(("dull weak", "dull warm")).reading(loaded).collides


def test_no_place_of_the_record_is_taken_for_a_prompt():
    with pytest.raises(LabError, match=r"task\.system"):
        given_wording(("a", "b"), "say {text}")


def test_a_base_without_a_chat_template_cannot_be_asked(loaded):
    held = loaded.tokenizer.chat_template
    try:
        loaded.tokenizer.chat_template = None
        with pytest.raises(UnreadableAdapterError, match="no chat template"):
            given_wording(("good", "bad")).reading(loaded)
    finally:
        loaded.tokenizer.chat_template = held


def test_a_run_says_it_all(chat_run, loaded):
    found = run_wording(chat_run.path, given_wording())
    assert found.names == found.labels == ("negative", "positive")
    reading = found.reading(loaded)
    assert reading.answers == ("awful", "lovely")
    assert reading.template.record() == chat_run.record["prompt_template"]
    assert "trained with" in found.told()


def test_the_user_may_call_a_runs_labels_and_prompt_otherwise(chat_run, loaded):
    found = run_wording(chat_run.path, given_wording(("bad", "good"), "say it !"))
    found.check_words("x")
    assert found.names == ("bad", "good")
    reading = found.reading(loaded)
    assert reading.answers == ("awful", "lovely")
    assert "say it !" in reading.template.before
    assert "say it !" in found.told()
    with pytest.raises(LabError, match=r"1 names were given, but x tells 2"):
        run_wording(chat_run.path, given_wording(("bad",))).check_words("x")


def test_a_run_with_a_head_gives_the_names(finished):
    found = run_wording(finished.path, given_wording())
    assert found == Wording(names=("negative", "positive"))


@pytest.mark.parametrize("labels", [None, [], ["one"], [1, 2]])
def test_a_damaged_record_is_told_in_a_sentence(finished, tmp_path, labels):
    run = shutil.copytree(finished.path, tmp_path / "run", ignore=lambda *_: ["adapter", "measures"])
    record = json.loads((run / "experiment.json").read_text())
    (run / "experiment.json").write_text(json.dumps(record | {"labels": labels}))
    with pytest.raises(LabError, match="labels"):
        run_wording(run, given_wording())


def test_a_long_prompt_is_told_in_part():
    assert len(given_wording(("a", "b"), "x" * 5000).told()) < 500
