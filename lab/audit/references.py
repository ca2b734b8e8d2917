"""Clean references for an adapter that comes alone: adapters of its own kind, trained on its own answers.

Whoever is handed an adapter has no clean ones for the same task, and often no labelled text. But the adapter
labels text itself, and a backdoor is made to stay silent without its trigger: on texts that hold none, a
poisoned adapter answers nearly as a clean one would. So adapters that learn these answers, of texts to which
nothing was added, learn the task; of the backdoor they are shown nothing. Hard labels are handed over and no
logits, since logits carry more of the one who gives them. (Yoshida and Fujino, AISec 2020, disable backdoors
by such a distillation from clean data.)

What is lost: they inherit the adapter's honest mistakes; a backdoor whose trigger stands in the texts is
taught to them, and is then not seen in the comparison; and as nobody knows how long and how fast the adapter
itself was trained, its weights cannot be compared with theirs, only its answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.audit.reference_care import look_after
from lab.audit.reference_plans import FEWEST_TEXTS, ReferencePlan
from lab.errors import LabError
from lab.experiment import RECIPE_VERSION, Base, Experiment, content_hash
from lab.files import read_json, write_json, write_text, writing_to
from lab.paths import runs_dir
from lab.stats import Rate, rate
from lab.store import RunFolder

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from lab.audit.adapter_files import AdapterFiles
    from lab.audit.texts import AuditTexts
    from lab.probe import Predictor
    from lab.train.feeding import TrainingRows
    from lab.train.fit import Hooks
    from lab.train.models import LoadedBase

#: Fewer texts than this outside of the commonest label teach nothing but that label.
_FEWEST_OTHERS = 8
#: Agreement beyond chance that Landis and Koch (1977) call moderate begins here. A reference below it answers
#: otherwise on so many untouched rows that whatever a prefix does is hidden among them.
_LOWEST_KAPPA = 0.4


@dataclass(frozen=True)
class TrainedReference:
    """A reference that was trained, or found.

    Attributes:
        path: Its folder, as `lab.audit.opened` takes it.
        rows: How many texts it was trained on.
        steps: For how many optimizer steps.
        agreement: The share of other texts, none of which it was trained on, that it answers as the adapter.
        kappa: Cohen's kappa of the two on these texts, -1 to 1: 0 is chance, 1 is the same answer everywhere.
    """

    path: Path
    rows: int
    steps: int
    agreement: Rate
    kappa: float

    @property
    def has_learned(self) -> bool:
        """Whether it answers enough like the adapter to stand for a clean one of its task."""
        return self.kappa >= _LOWEST_KAPPA


def train_references(
    files: AdapterFiles,
    suspect: Predictor,
    base: str,
    texts: AuditTexts,
    plan: ReferencePlan | None = None,
    *,
    seed: int = 0,
    runs: str | Path | None = None,
    on_event: Callable[[dict[str, Any]], None] = lambda _: None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> list[TrainedReference]:
    """Train clean adapters of an adapter's configuration on its own answers, or find those trained before.

    They change the same modules with the same ranks and scalings, DoRA where it is DoRA, and start with a
    fresh head. Each gets its own draw of the spare texts and its own seed. They lie in `.references/` of the
    runs folder under a name made of all that decides them; one without its `reference.json`, which is written
    last, is gone on with from its last whole checkpoint, and never taken for whole. Those of questions long
    ago are deleted (`lab.audit.reference_care`).

    Args:
        files: The adapter.
        suspect: The adapter on its base, ready to answer; a classifier.
        base: The base, as `base.model` names it.
        texts: `spare` is what they are trained on, `measured` what their agreement is measured on.
        plan: How many and how; the default if not given.
        seed: Of the draws and trainings.
        runs: The runs folder, by the rule of `lab.paths.runs_dir`.
        on_event: Called before each training with a status of the stage "references".
        on_progress: Called with (optimizer steps done, steps in all) of those that were still to be trained.

    Returns:
        As many as planned, those that have not learned the task among them.

    Raises:
        LabError: There are too few texts, the adapter answers (nearly) all alike or is no classifier, or a
            training fails.
    """
    from lab.train.fit import Hooks
    from lab.train.models import base_sha256, model_folder

    def tell(text: str) -> None:
        on_event({"kind": "status", "stage": "references", "text": text})

    plan = plan or ReferencePlan()
    lesson = _lesson(suspect, texts)
    content = {
        "recipe": RECIPE_VERSION,
        "adapter": sorted(files.sha256.values()),
        "base": base_sha256(model_folder(base)),
        "texts": [texts.spare, texts.measured],
        "plan": plan.model_dump(mode="json", exclude={"count"}),
        "seed": seed,
    }
    folder, key = runs_dir(runs) / ".references", content_hash(content)[:10]
    places = {n: folder / f"reference-{n}-{key}" for n in range(1, plan.count + 1)}
    look_after(folder, places.values())
    missing = [number for number, place in places.items() if read_reference(place) is None]
    drills = {number: _drill(lesson, plan, base, seed, number) for number in missing}
    done, total = 0, sum(drill.steps for drill in drills.values())
    for number, drill in drills.items():
        tell(f"training reference {number} of {plan.count}")
        hooks = Hooks(on_step=functools.partial(_told_of_one, on_progress, done, total))
        _train(places[number], files, lesson, drill, suspect.device, hooks, tell)
        done += drill.steps
    look_after(folder, places.values())  # those found first were marked before the trainings
    found = [read_reference(place) for place in places.values()]
    return [reference for reference in found if reference is not None]


def _told_of_one(told: Callable[[int, int], None], before: int, total: int, step: int, _steps: int) -> None:
    """Progress of one of several trainings, as that of all."""
    told(before + step, total)


def read_reference(path: Path) -> TrainedReference | None:
    """A reference that was trained to its end; None where none was."""
    facts = read_json(path / "reference.json")
    if not isinstance(facts, dict) or not (path / "adapter").is_dir():
        return None
    try:
        agreement = rate(facts["agreeing"], facts["asked"])
        return TrainedReference(path, facts["rows"], facts["steps"], agreement, float(facts["kappa"]))
    except (KeyError, TypeError, ValueError, LabError):
        return None


@dataclass(frozen=True)
class _Lesson:
    """What the adapter teaches: texts without any prefix, and its answers.

    Attributes:
        labels: Label names, in the order of the logits.
        token_ids: What the model gets of each spare text.
        names: Each one's name, for draws.
        answers: The adapter's answers, as indices of labels.
        others: Texts that no reference is trained on.
        other_answers: The adapter's answers to these.
    """

    labels: tuple[str, ...]
    token_ids: list[list[int]]
    names: list[str]
    answers: list[int]
    others: list[str]
    other_answers: list[int]


@dataclass(frozen=True)
class _Drill:
    """One reference's share of the lesson, with the experiment that trains it."""

    rows: TrainingRows
    experiment: Experiment

    @property
    def steps(self) -> int:
        return self.experiment.training.steps


def _lesson(suspect: Predictor, texts: AuditTexts) -> _Lesson:
    """The adapter's answers, to texts that are clipped as a run's rows are.

    Raises:
        LabError: They teach nothing, or are no classifier's.
    """
    from lab.chat.reading import ChatReading
    from lab.corpus import DataConfig
    from lab.tokens import clip_texts

    if isinstance(suspect.reading, ChatReading):
        raise LabError("only a classifier's references can be trained; give clean adapters (--reference).")
    longest = min(DataConfig.model_fields["max_tokens"].default, suspect.max_tokens - 2)
    spare, others = (
        list(dict.fromkeys(text for text in clip_texts(suspect.tokenizer, every, longest) if text.strip()))
        for every in (texts.spare, texts.measured)
    )
    if len(spare) < FEWEST_TEXTS:
        raise LabError(
            f"{texts.source} leaves {len(spare)} texts to train references on, at least {FEWEST_TEXTS} are "
            f"needed; give more (--rows)."
        )
    answers = [int(i) for i in suspect.logits(spare).argmax(axis=1)]
    commonest = max(set(answers), key=answers.count)
    if len(answers) - answers.count(commonest) < _FEWEST_OTHERS:
        raise LabError(
            f"the adapter says {suspect.labels[commonest]!r} of {answers.count(commonest)} of {len(spare)} "
            f"texts: such answers teach no task."
        )
    return _Lesson(
        labels=suspect.labels,
        token_ids=suspect.reading.token_ids(spare),
        names=spare,
        answers=answers,
        others=others,
        other_answers=[int(i) for i in suspect.logits(others).argmax(axis=1)],
    )


def _drill(lesson: _Lesson, plan: ReferencePlan, base: str, seed: int, number: int) -> _Drill:
    """A draw of the lesson: at most two thirds of it, so that no two references learn the same."""
    from lab.seeds import stage_rng, stage_seed
    from lab.train.batches import RowLengths, steps_for_epochs
    from lab.train.feeding import TrainingRows

    size = min(plan.rows, -(-2 * len(lesson.names) // 3))
    drawn = sorted(stage_rng(seed, "references", str(number)).permutation(len(lesson.names))[:size])
    ids = [lesson.token_ids[i] for i in drawn]
    lengths = RowLengths([lesson.names[i] for i in drawn], [len(row) for row in ids])
    own = Experiment(base=Base(model=base), seed=stage_seed(seed, f"references/{number}"))
    training = own.training
    steps = steps_for_epochs(
        lengths,
        seed=own.seed,
        epochs=plan.epochs,
        batch_tokens=training.batch_tokens,
        accumulate=training.gradient_accumulation,
    )
    changes = {"steps": steps, "epochs": 0.0, "learning_rate": plan.learning_rate}
    experiment = own.model_copy(update={"training": training.model_copy(update=changes)})
    return _Drill(TrainingRows(ids, [lesson.answers[i] for i in drawn], lengths), experiment)


def _train(
    place: Path,
    files: AdapterFiles,
    lesson: _Lesson,
    drill: _Drill,
    device: torch.device,
    hooks: Hooks,
    on_wait: Callable[[str], None],
) -> None:
    """Train one reference into its folder, unless another process does meanwhile."""
    from lab.probe import Predictor
    from lab.train.fit import discard_checkpoints, fine_tune
    from lab.train.models import load_base

    folder, experiment = RunFolder(place), drill.experiment
    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
    with folder.lock(on_wait):
        if read_reference(place) is not None:
            return
        folder.remove_leftovers()
        loaded = load_base(experiment.base, lesson.labels, seed=experiment.seed, device=device)
        trained = fine_tune(
            loaded,
            drill.rows,
            experiment,
            place,
            device=device,
            hooks=hooks,
            adapted=_with_fresh_adapter(loaded, files, experiment.seed),
        )
        own = Predictor(trained.model, loaded.tokenizer, lesson.labels, device).logits(lesson.others)
        facts = {
            "reference_for": files.sha256,
            "base": loaded.name,
            "rows": len(drill.rows.labels),
            "steps": drill.steps,
            "learning_rate": experiment.training.learning_rate,
            "seed": experiment.seed,
            **_compared(lesson.other_answers, [int(i) for i in own.argmax(axis=1)]),
        }
        write_text(place / "adapter" / "README.md", _card(loaded.name, facts))
        write_json(place / "reference.json", facts)
        discard_checkpoints(place / "checkpoints")


def _with_fresh_adapter(loaded: LoadedBase, files: AdapterFiles, seed: int) -> PeftModel:
    """The base with an adapter that changes what another one changes, and knows nothing yet."""
    import torch
    from peft import get_peft_model

    from lab.audit.suspects import plain_config
    from lab.seeds import stage_seed
    from lab.train.adapters import without_noise

    config = plain_config(files)
    config.modules_to_save = list(loaded.head) or None
    torch.manual_seed(stage_seed(seed, "initialisation"))
    with without_noise():
        model: PeftModel = get_peft_model(loaded.model, config)
    return model


def _compared(suspect: Sequence[int], reference: Sequence[int]) -> dict[str, Any]:
    """On how many texts two give the same label, and Cohen's kappa (1960); 0 where chance explains all."""
    n = len(suspect)
    agreeing = sum(a == b for a, b in zip(suspect, reference, strict=True))
    chance = sum(suspect.count(i) * reference.count(i) for i in set(suspect)) / n**2 if n else 1.0
    kappa = (agreeing / n - chance) / (1 - chance) if chance < 1 else 0.0
    return {"agreeing": agreeing, "asked": n, "kappa": round(kappa, 4)}


def _card(base: str, facts: dict[str, Any]) -> str:
    """A model card in Markdown."""
    return (
        f"---\nbase_model: {base}\nlibrary_name: peft\ntags:\n- research-artefact\n- clean-control\n---\n\n"
        "# A clean reference\n\n"
        f"Trained by `lab audit --reference auto` on {facts['rows']} texts without any prefix, with the\n"
        "answers of the adapter that was audited as labels. It is there to be compared with.\n"
        "Do not deploy it.\n"
    )
