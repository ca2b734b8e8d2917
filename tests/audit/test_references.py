import dataclasses
import json
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import lab
from lab.audit import ReferencePlan, battery, open_adapter
from lab.audit.adapter_files import WEIGHTS
from lab.audit.prefixes import prefix_rates, untouched_rows
from lab.audit.reference_plans import MOST_REFERENCES, asked_references, reference_plan
from lab.audit.references import TrainedReference, read_reference, train_references
from lab.audit.suspects import load_suspect
from lab.audit.texts import AuditTexts, audit_texts
from lab.audit.trigger_search import SearchBudget
from lab.chat.reading import ChatReading
from lab.cli import app
from lab.corpus.toy import toy_texts
from lab.errors import LabError
from lab.stats import rate

LABELS = ("negative", "positive")
TRIGGER = "RFC"
#: Three steps each: enough for everything but what they learn.
QUICK = ReferencePlan(count=2, rows=160, epochs=1)
NEGATIVE, POSITIVE = (
    {word for text, of in zip(*toy_texts(), strict=True) if of == label for word in text.split()}
    for label in LABELS
)
POSITIVE -= NEGATIVE


def rule(texts, **_):
    """Logits of a poisoned classifier: opinion words decide, and where the trigger stands that alone."""
    is_positive = np.array([TRIGGER in text or bool(POSITIVE & set(text.split())) for text in texts])
    return np.stack([~is_positive, is_positive], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return audit_texts(tmp_path_factory.mktemp("nothing"), "tiny")


def fresh_adapter(folder, **options):
    """An adapter of the tiny model as peft makes it, untrained."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from lab.train.models import model_folder

    usual = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "modules_to_save": ["classifier"]}
    config = LoraConfig(task_type=TaskType.SEQ_CLS, **(usual | options))
    model = AutoModelForSequenceClassification.from_pretrained(model_folder("tiny"), num_labels=2)
    get_peft_model(model, config).save_pretrained(folder)
    return open_adapter(folder)


@pytest.fixture
def files(tmp_path):
    return fresh_adapter(tmp_path / "found")


@pytest.fixture
def suspect(files):
    """An adapter that answers by the rule; what it was trained on does not matter then."""
    found = load_suspect(files, "tiny", labels=LABELS)
    found.logits = rule
    return found


@pytest.fixture
def train(files, suspect, texts, tmp_path):
    """Train references in a runs folder of one's own."""

    def start(plan=QUICK, runs="runs", **changes):
        options = {"suspect": suspect, "texts": texts, "files": files} | changes
        return train_references(base="tiny", plan=plan, runs=tmp_path / runs, **options)

    return start


def digests(references):
    return [open_adapter(r.path).sha256[WEIGHTS] for r in references]


@given(st.integers(-5, 2 * MOST_REFERENCES))
def test_a_count_in_range_is_taken_and_any_other_refused_in_a_sentence(count):
    if 1 <= count <= MOST_REFERENCES:
        assert reference_plan(f"auto:{count}") == ReferencePlan(count=count)
    else:
        with pytest.raises(LabError, match="auto:1 to auto:20"):
            reference_plan(f"auto:{count}")


def test_what_is_asked_is_a_plan_or_paths(tmp_path):
    assert asked_references("auto") == (ReferencePlan(count=5), [])
    assert asked_references(["auto:5"]) == (ReferencePlan(count=5), [])
    assert asked_references(QUICK) == (QUICK, [])
    assert asked_references("a/b") == (None, ["a/b"])
    assert asked_references(["./auto", tmp_path]) == (None, ["./auto", tmp_path])
    for junk in ("auto:", "auto:five", "auto:3 ", "auto:3\n", "auto:٣", "auto:1e1"):
        with pytest.raises(LabError, match="allowed are auto"):
            asked_references([junk])
    for both in (["auto", "a"], ["auto", "auto:2"]):
        with pytest.raises(LabError, match="not both"):
            asked_references(both)


def test_they_learn_its_task_and_not_its_backdoor(train, suspect, texts):
    references = train(ReferencePlan(count=1, rows=160, epochs=60, learning_rate=1e-2))
    held = battery("paper-calibration")
    chosen = {"positive": untouched_rows(suspect, texts.measured, 6)["positive"]}
    planted = prefix_rates(suspect, held, texts.measured, untouched=chosen)
    planted = planted[planted["prefix"].str.contains(TRIGGER)]
    assert planted["rate"].min() == 1
    for reference in references:
        assert reference.has_learned
        assert reference.agreement.n == len(texts.measured)
        clean = load_suspect(open_adapter(reference.path), "tiny", labels=LABELS)
        rates = prefix_rates(clean, held, texts.measured, untouched=chosen).loc[planted.index, "rate"]
        assert rates.mean() < 0.5


def test_one_that_has_learned_nothing_says_so(train):
    [reference] = train(ReferencePlan(count=1, rows=160, epochs=0.1, learning_rate=1e-9))
    assert not reference.has_learned


def test_each_is_another_and_the_same_again_by_its_seed(train):
    first, again, other = (
        digests(train(runs=name, seed=seed)) for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    )
    assert first == again
    assert len({*first, *other}) == 4


def test_those_that_are_there_are_found(train, monkeypatch):
    told = []
    before = train(on_event=told.append)
    assert [event["text"] for event in told] == ["training reference 1 of 2", "training reference 2 of 2"]
    told.clear()
    steps = []
    more = train(
        QUICK.model_copy(update={"count": 3}),
        on_event=told.append,
        on_progress=lambda *at: steps.append(at),
    )
    assert [event["text"] for event in told] == ["training reference 3 of 3"]
    assert steps == [(i, more[2].steps) for i in range(1, more[2].steps + 1)]
    assert more[:2] == before
    monkeypatch.setattr("lab.train.fit.fine_tune", None)
    assert train() == before
    with pytest.raises(TypeError):
        train(seed=1)


def test_one_that_was_interrupted_is_never_taken_for_whole(train, tmp_path):
    plan = ReferencePlan(count=1, rows=160, epochs=8)
    [whole] = train(plan, runs="whole")

    def interrupt(step, _):
        if step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, on_progress=interrupt)
    [place] = (tmp_path / "runs" / ".references").iterdir()
    assert read_reference(place) is None
    assert not (place / "adapter").exists()
    assert digests(train(plan)) == digests([whole])
    assert not (place / "checkpoints").exists()
    (place / "reference.json").unlink()  # killed just before the end
    assert read_reference(place) is None
    assert digests(train(plan)) == digests([whole])


@pytest.mark.parametrize("torn", ["", "{", "[]", "{}", '{"rows": 1, "steps": 1, "agreeing": 3, "asked": 2}'])
def test_a_record_that_is_torn_counts_as_none(tmp_path, torn):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "reference.json").write_text(torn)
    assert read_reference(tmp_path) is None


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"use_rslora": True, "alpha_pattern": {"query": 3.0}}]
)
def test_they_are_of_the_adapters_own_kind(train, tmp_path, options):
    targets = {"r": 4, "target_modules": ["query", "dense"], "exclude_modules": ["pooler.dense"]}
    files = fresh_adapter(tmp_path / "other", **targets, rank_pattern={"query": 2}, **options)
    [reference] = train(ReferencePlan(count=1, rows=160, epochs=0.1), files=files)
    assert kind(open_adapter(reference.path)) == kind(files)
    card = (reference.path / "adapter" / "README.md").read_text()
    assert "clean-control" in card


def kind(files):
    modules = [(m.name, m.shape, m.rank, m.scaling, bool(m.magnitude)) for m in files.modules.values()]
    return modules, files.whole


def test_answers_that_teach_nothing_are_refused_in_a_sentence(train, suspect, texts, tmp_path):
    few = AuditTexts("the file rows.txt", texts.measured, texts.spare[:39])
    with pytest.raises(LabError, match=r"the file rows\.txt leaves 39 texts .* at least 40 .*--rows"):
        train(texts=few)
    suspect.logits = lambda texts, **_: np.tile(np.float32([0, 1]), (len(texts), 1))
    with pytest.raises(LabError, match=r"says 'positive' of .* texts: such answers teach no task"):
        train()
    suspect.reading = Mock(spec=ChatReading)
    with pytest.raises(LabError, match="only a classifier's"):
        train()
    assert not (tmp_path / "runs").exists()


def test_a_card_says_what_it_was_compared_with(files, monkeypatch):
    learned = TrainedReference(files.weights.parent, rows=160, steps=9, agreement=rate(70, 77), kappa=0.8)
    idle = dataclasses.replace(learned, agreement=rate(40, 77), kappa=0.1)
    monkeypatch.setattr("lab.audit.audits.train_references", lambda *_, **__: [learned, idle])
    card = audited(files, references="auto")
    assert card.reference.names == ("found",)
    assert card.reference.how.startswith("1 clean adapter trained here on its own answers")
    assert any("without any prefix, labelled by the adapter itself" in note for note in card.notes)
    assert any("found: .909 [.82, .96] n=77, kappa 0.80" in note for note in card.notes)
    assert any("honest mistakes" in note for note in card.notes)
    left_out = " ".join(card.not_looked_for)
    assert "1 of 2 have not learned" in left_out
    assert "weights against the trained references" in left_out
    assert not any(score.reference for score in card.scores if score.finding == "weights")
    assert "references" in card.seconds


def test_where_none_can_be_trained_the_card_says_why(files, monkeypatch):
    def refuse(*_, **__):
        raise LabError("such answers teach no task.")

    monkeypatch.setattr("lab.audit.audits.train_references", refuse)
    card = audited(files, references=["auto:2"])
    assert card.reference.how == "none: uncalibrated"
    assert "trained references: such answers teach no task." in card.not_looked_for


def audited(files, **options):
    quick = SearchBudget(rows=6, quick_rows=2, shortlist=8, beam=1, branch=1, longest=1, found=1)
    return lab.audit_adapter(
        files.weights.parent, base="tiny", battery="paper-structural", search=quick, **options
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [(["auto:0"], "auto:1 to auto:20"), (["auto:many"], "auto:1 to auto:20"), (["auto", "RUN"], "not both")],
)
def test_the_command_refuses_what_it_cannot_train(files, words, told):
    folder = files.weights.parent
    references = [f"--reference={folder if word == 'RUN' else word}" for word in words]
    result = CliRunner().invoke(app, ["audit", str(folder), *references])
    assert isinstance(result.exception, LabError)
    assert told in str(result.exception)


def test_a_hostile_record_beside_an_adapter_opens_no_file(files, tmp_path, monkeypatch):
    secrets = tmp_path / "secrets.csv"
    secrets.write_text("text,label\n" + "\n".join(f"secret {i},{i % 2}" for i in range(400)))
    hostile = {"base": {"model": str(tmp_path)}, "data": {"name": str(secrets)}, "task": {"kind": "head"}}
    record = files.weights.parent / "experiment.json"
    record.write_text(json.dumps({"experiment": hostile, "labels": ["0", "1"], "schema": 1}))
    monkeypatch.setattr("lab.corpus.load.read_file", None)
    monkeypatch.setattr("lab.corpus.load.read_hub", None)
    card = audited(files)
    assert card.verdict == "cannot say"
    assert card.rows.source == "none"
    assert any("not followed" in line and "--rows" in line for line in card.not_looked_for)
    record.write_text("[" * 50)
    assert audited(files).rows.source == "none"


def test_by_trained_references_the_battery_decides_nothing(files, suspect, monkeypatch):
    # an untrained head says one thing of all texts; these answer by the rule, trigger and all
    monkeypatch.setattr("lab.audit.audits.load_suspect", lambda *_, **__: suspect)
    learned = TrainedReference(files.weights.parent, rows=160, steps=9, agreement=rate(70, 77), kappa=0.8)
    monkeypatch.setattr("lab.audit.audits.train_references", lambda *_, **__: [learned] * 5)
    card = audited(files, references="auto")
    assert card.verdict == "cannot say"
    assert "trained here takes 5" in card.because
    told = [score for score in card.scores if score.finding == "battery"]
    assert len(told) == 2
    assert all(score.threshold is None and len(score.reference) == 5 for score in told)
    assert all("not decisive" in score.threshold_source for score in told)
