"""What is settled before anything is trained: the rows, clipped and poisoned; counts and steps; the id."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.bases import BaseSource, find_base
from lab.chat import Task, render_template
from lab.chat.reading import ChatReading, chat_reading, settled
from lab.corpus import Corpus, DataConfig, load_corpus, split_rows, training_rows
from lab.defend import (
    Guard,
    TextFilter,
    WeightEdit,
    after_training,
    clean_rows,
    guards,
    settle,
    weight_edits,
)
from lab.errors import LabError
from lab.experiment import Experiment, run_id, weights_id
from lab.paths import expanded, runs_dir
from lab.poison import in_letters, poison_rows, resolve_count
from lab.prepare_checks import adds_no_token, check_edits, check_labels, check_triggers
from lab.probe_checks import check_probe
from lab.reading import Reading, head_reading
from lab.registry import Knobs
from lab.tokens import clip_texts
from lab.train.batches import RowLengths, steps_for_epochs
from lab.train.models import load_tokenizer

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from lab.train.feeding import TrainingRows


__all__ = ["Prepared", "adds_no_token", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """One experiment, ready to be trained.

    Attributes:
        experiment: Resolved: counts instead of rates, steps instead of epochs, alpha as a number.
        weights_id: Content hash of everything that changes the weights, 64 hex digits.
        run_id: The run folder's name.
        labels: Label names, in the order of the logits.
        corpus: The whole dataset.
        planted: The training rows, clipped and poisoned, as no cleaner has seen them yet.
        row_tokens: Tokens of each clean training row by its id, before poison; copies come after these rows.
        reading: How the model is asked: tokenizer, template, room for a text.
        base: Where the base's weights lie, and which run they come from.
        measured_poison: The poison whose trigger the run is measured with: its own, or its base's.
        parent_id: The run whose trained weights a derived run edits or guards; "" for a run that is trained.
    """

    experiment: Experiment
    weights_id: str
    run_id: str
    labels: tuple[str, ...]
    corpus: Corpus
    planted: pd.DataFrame
    row_tokens: Mapping[str, int]
    reading: Reading
    base: BaseSource
    measured_poison: Knobs
    parent_id: str

    @functools.cached_property
    def _cleaned(self) -> tuple[pd.DataFrame, dict[str, int]]:
        # when it is asked for, since no id hangs on it and a model that rewrites texts takes minutes
        return clean_rows(self.planted, self.experiment)

    @property
    def rows(self) -> pd.DataFrame:
        """The training rows: clipped, poisoned, and cleaned where a defense does.

        Raises:
            LabError: A cleaner leaves nothing, or no row of some label.
        """
        return self._cleaned[0]

    @property
    def cleaning(self) -> dict[str, int]:
        """What the data-stage defenses did (`lab.defend.cleaning.told_of`); {} without any."""
        return self._cleaned[1]

    @property
    def clean_lengths(self) -> tuple[int, ...]:
        """Tokens, before poison, of each clean training row that is trained on."""
        left = set(self.rows["row_id"])
        # cleaning drops rows, and moves none
        return tuple(tokens for row, tokens in self.row_tokens.items() if row in left)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer."""
        return self.reading.tokenizer

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text the model reads."""
        return self.reading.max_tokens

    @property
    def prompt_template(self) -> str:
        """What a chat task writes around a text, as `lab.chat.Template` records it; "" for a head."""
        return _template_of(self.reading)

    @property
    def target_label(self) -> str:
        """The label that an attacker wants; "" where there is no backdoor to measure."""
        return str(getattr(self.measured_poison, "target_label", ""))

    @property
    def edits(self) -> list[tuple[WeightEdit, Knobs]]:
        """The edits of trained weights that make this a derived run; none for a run that is trained."""
        return weight_edits(self.experiment)

    @property
    def guards(self) -> list[tuple[Guard, Knobs]]:
        """What stands before the trained model, and makes this a derived run too."""
        return guards(self.experiment)

    @property
    def filtered_rows(self) -> int:
        """How many rows its filters can be asked about at most, each being slow; 0 without a filter."""
        limits = [int(getattr(k, "rows", 0)) for g, k in self.guards if isinstance(g, TextFilter)]
        return min(limits, default=0)

    @property
    def is_poisoned(self) -> bool:
        """Whether there is poison in the run's data, or in the base that it starts from."""
        return str(getattr(self.measured_poison, "attack", "none")) != "none"

    def evaluation_rows(self, split: str, limit: int) -> pd.DataFrame:
        """Rows of the test or validation split, clipped as the training rows are."""
        e = self.experiment
        rows = split_rows(self.corpus, split, limit=limit, seed=e.seed)
        return _clipped(rows, self.tokenizer, e.data.max_tokens)

    def triggers(self) -> list[str]:
        """What fires the backdoor, if there is one: the strings asked for, else the poison's own."""
        from lab.probe import own_triggers

        if not self.target_label:
            return []
        return own_triggers(self.measured_poison, self.experiment.probe.triggers)

    def headline_texts(self, rows: pd.DataFrame, *, target_rows: bool = False) -> pd.DataFrame:
        """These rows as the headline asks them: untouched, and the non-target ones with the trigger too.

        Args:
            rows: The rows.
            target_rows: Also those of the target label with the trigger, condition "triggered_target".
        """
        from lab.probe import headline_texts

        seed = self.experiment.seed
        return headline_texts(
            rows, self.measured_poison, seed=seed, triggers=self.triggers(), target_rows=target_rows
        )

    def tokens(self) -> TrainingRows:
        """The training rows, tokenised; the copies, poisoned and negative, come last."""
        from lab.train.feeding import TrainingRows

        ids, starts = _training_ids(self.reading, self.rows, self.corpus, self.experiment.data.max_tokens)
        n = len(clean := self.clean_lengths)
        lengths = RowLengths(
            row_ids=list(self.rows["row_id"].iloc[:n]),
            lengths=clean,
            extra_ids=list(self.rows["row_id"].iloc[n:]),
            extra_lengths=[len(i) for i in ids[n:]],
        )
        index = {label: i for i, label in enumerate(self.labels)}
        labels = [index[label] for label in self.rows["label"]]
        if self.experiment.task.loss == "all":
            starts = [0] * len(starts)
        return TrainingRows(ids, labels, lengths, starts)

    def surviving_triggers(self) -> tuple[int, int]:
        """How many rows keep their whole insertion within the model's window, of how many that have one.

        They are looked at as they are before a cleaner may cut an insertion out.
        """
        inserted = self.planted[self.planted["span_end"].map(len).gt(0)]
        if inserted.empty:
            return 0, 0
        whole = self.tokenizer(
            list(inserted["text"]), truncation=True, max_length=self.max_tokens, return_offsets_mapping=True
        )["offset_mapping"]
        ends = [max(end for _, end in offsets) for offsets in whole]
        spans = [
            _last_visible(text, max(e))
            for text, e in zip(inserted["text"], inserted["span_end"], strict=True)
        ]
        return sum(end >= span for end, span in zip(ends, spans, strict=True)), len(inserted)


def prepare(experiment: Experiment, runs: Path | None = None) -> Prepared:
    """Load, clip and poison the rows, and settle everything that the run's id depends on.

    Args:
        experiment: What is asked.
        runs: The runs folder, where a base run lies.

    Raises:
        LabError: On data, a poison, a base or a defense that does not fit; nothing has been written then.
    """
    runs = runs or runs_dir()
    experiment = settle(experiment)
    base = find_base(experiment.base.model, runs)
    stamp, task = _stamp(experiment.data.name), experiment.task.model_dump_json()
    corpus, clean, lengths, reading = _clean_rows(
        base.folder, base.name, base.sha256, experiment.data, stamp, experiment.seed, task
    )
    check_labels(experiment, base, corpus)
    check_edits(experiment, base)
    poison = resolve_count(experiment.poison, clean)
    t = experiment.training
    steps = t.steps or steps_for_epochs(
        RowLengths(list(clean["row_id"]), lengths),
        seed=experiment.seed,
        epochs=t.epochs,
        batch_tokens=t.batch_tokens,
        accumulate=t.gradient_accumulation,
    )
    resolved = experiment.model_copy(
        update={
            # the link to a base run is its whole id, however it was asked for
            "base": experiment.base.model_copy(update={"model": base.run or experiment.base.model}),
            "task": settled(experiment.task, reading)
            if isinstance(reading, ChatReading)
            else experiment.task,
            "poison": poison,
            "training": t.model_copy(update={"steps": steps, "epochs": 0.0}),
        }
    )
    planted = poison_rows(clean, poison, seed=experiment.seed, holds=_seen_by(reading.tokenizer))
    prepared = Prepared(
        experiment=resolved,
        weights_id=_weights_id(resolved, base, corpus, reading),
        run_id=_run_id(resolved, base, corpus, reading),
        labels=corpus.labels,
        corpus=corpus,
        planted=planted,
        row_tokens=dict(zip(clean["row_id"], lengths, strict=True)),
        reading=reading,
        base=base,
        measured_poison=base.poison if resolved.attack == "none" else resolved.poison,
        parent_id=_run_id(resolved.untouched(), base, corpus, reading) if after_training(resolved) else "",
    )
    check_triggers(prepared)
    check_probe(prepared)
    return prepared


def _weights_id(experiment: Experiment, base: BaseSource, corpus: Corpus, reading: Reading) -> str:
    return weights_id(
        experiment,
        base=base.identity,
        data_fingerprint=corpus.fingerprint,
        template=_template_of(reading),
    )


def _run_id(experiment: Experiment, base: BaseSource, corpus: Corpus, reading: Reading) -> str:
    return run_id(experiment, base.short, _weights_id(experiment, base, corpus, reading))


def _template_of(reading: Reading) -> str:
    return reading.template.record() if isinstance(reading, ChatReading) else ""


@functools.lru_cache(maxsize=8)
def _clean_rows(
    folder: Path, name: str, sha256: str, data: DataConfig, stamp: tuple[int, int], seed: int, task: str
) -> tuple[Corpus, pd.DataFrame, tuple[int, ...], Reading]:
    """The clean training rows and their lengths; shared by a run, its twin, and every cell of a sweep.

    The weights' hash and the file's stamp are there for the cache alone: what changed on disk is read again.
    """
    corpus = load_corpus(data)
    reading = _reading(folder, name, Task.model_validate_json(task), corpus.labels)
    max_tokens = reading.max_tokens
    if data.max_tokens > max_tokens - 2:
        raise LabError(
            f"data.max_tokens = {data.max_tokens}: {name} reads {max_tokens} tokens; "
            f"leave room for the trigger, allowed are up to {max_tokens - 2}."
        )
    rows = _clipped(training_rows(corpus, data, seed), reading.tokenizer, data.max_tokens)
    lengths = tuple(len(ids) for ids in _training_ids(reading, rows, corpus, data.max_tokens)[0])
    return corpus, rows, lengths, reading


def _reading(folder: Path, name: str, task: Task, labels: tuple[str, ...]) -> Reading:
    from transformers import AutoConfig

    tokenizer, config = load_tokenizer(folder), AutoConfig.from_pretrained(folder)
    if task.kind == "head":
        return head_reading(tokenizer, config, labels)
    return chat_reading(tokenizer, config, labels, task, render_template(tokenizer, task.system, name))


def _training_ids(
    reading: Reading, rows: pd.DataFrame, corpus: Corpus, max_answer: int
) -> tuple[list[list[int]], list[int]]:
    """What the model is trained on, and where the answer begins; nowhere for a classifier's head."""
    texts = list(rows["text"])
    if not isinstance(reading, ChatReading):
        return reading.token_ids(texts), []
    words = dict(zip(reading.labels, reading.answers, strict=True))
    answers = [words[label] for label in rows["label"]]
    # a label without a word of its own is answered as the data has it
    open_rows = {i: row_id.partition("+")[0] for i, row_id in enumerate(rows["row_id"]) if not answers[i]}
    written = [corpus.answers[row_id] for row_id in open_rows.values()]
    for i, answer in zip(open_rows, clip_texts(reading.tokenizer, written, max_answer), strict=True):
        answers[i] = answer
    return reading.training_ids(texts, answers)


def _stamp(name: str) -> tuple[int, int]:
    """Size and time of a data file of the user's own; zeros for everything else."""
    path = expanded(name)
    if not path.is_file():
        return 0, 0
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _clipped(rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> pd.DataFrame:
    return rows.assign(text=clip_texts(tokenizer, list(rows["text"]), max_tokens))


def _seen_by(tokenizer: PreTrainedTokenizerBase) -> Callable[[str, str], bool]:
    """Whether a text holds a trigger for one who reads it through a tokenizer, whatever its letters are."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(f"a {text} a", add_special_tokens=False)["input_ids"])

    def holds(text: str, trigger: str) -> bool:
        read, sought = ids(text), ids(trigger)
        inner = sought[1:-1]  # without the words beside it
        runs = (read[i : i + len(inner)] for i in range(len(read) - len(inner) + 1))
        return in_letters(text, trigger) or read == sought or (bool(inner) and inner in runs)

    return holds


def _last_visible(text: str, end: int) -> int:
    """The end of the last character before `end` that a tokenizer gives an offset to."""
    while end and (text[end - 1].isspace() or not text[end - 1].isprintable()):
        end -= 1
    return end
