"""How an adapter from outside is asked, and what its answers are called.

A classifier's head answers whatever it is asked. A language model has to be asked in the conversation that it
was trained with, for words that stand for its labels. The record of a run says all of it; of other adapters
nobody does but the user. What an adapter brings along, a template or a tokenizer, is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.audit.safetensors_header import UnreadableAdapterError
from lab.chat import Task, Template, render_template
from lab.errors import LabError
from lab.files import read_json

if TYPE_CHECKING:
    from lab.chat.reading import ChatReading
    from lab.train.models import LoadedBase

_LONGEST_TOLD = 200


@dataclass(frozen=True)
class Wording:
    """How an adapter is asked.

    Attributes:
        names: What its labels are called, in the order of the logits; () where nobody says.
        labels: What a language model's labels are called where its answers are looked up; () where nobody
            says what it answers.
        task: The system prompt, and the word that stands for each label.
        system: The system prompt that the user asks for; None for that of the run, or else the lab's usual.
        template: The conversation that a run was trained with, as its record has it; "" for the base's own.
    """

    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    task: Task = field(default_factory=lambda: Task(kind="chat"))
    system: str | None = None
    template: str = ""

    def check_words(self, adapter: str) -> None:
        """Refuse words that a language model cannot be asked for.

        Args:
            adapter: What to call the adapter.

        Raises:
            UnreadableAdapterError: Nobody says what it answers.
            LabError: There are too few words, too many names for them, or two that are one.
        """
        if not self.labels:
            raise UnreadableAdapterError(
                f"{adapter} is a language model's and answers in words, and nothing says in which; give them "
                f"(--labels BENIGN,INJECTION). Only its weights were looked at."
            )
        if len(self.labels) < 2:
            raise LabError(
                f"labels: {self.labels[0]!r} alone was given; a language model's answer is one of at least "
                f"two words."
            )
        if len(self.names) != len(self.labels):
            raise LabError(
                f"labels: {len(self.names)} names were given, but {adapter} tells {len(self.labels)} labels "
                f"apart."
            )
        said = [self.task.answer(label).strip().upper() for label in self.labels]
        if len(set(said)) < len(said):
            raise LabError(
                f"labels: two of {', '.join(self.labels)} are the same word; each label needs its own."
            )

    def reading(self, loaded: LoadedBase) -> ChatReading:
        """How the adapter is asked on a base.

        Raises:
            LabError: The base has no chat template or one that cannot be used, or its tokenizer does not tell
                the words apart.
        """
        from lab.chat.reading import chat_reading

        tokenizer = loaded.tokenizer
        if self.template:
            template = Template.parse(self.template)
        elif tokenizer.chat_template:
            template = render_template(tokenizer, self.task.system, loaded.name)
        else:
            raise UnreadableAdapterError(
                f"{loaded.name} has no chat template, so that nothing says how it is asked."
            )
        reading = chat_reading(tokenizer, loaded.model.config, self.labels, self.task, template)
        _check_answers(reading)
        return reading

    def told(self) -> str:
        """How a language model was asked, in a sentence."""
        words = ", ".join(repr(self.task.answer(label)) for label in self.labels)
        if self.template:
            return f"It was asked for one of {words}, in the conversation that its run was trained with."
        system = self.task.system
        shown = f"{system[:_LONGEST_TOLD]}…" if len(system) > _LONGEST_TOLD else system
        prompt = f"the system prompt “{shown}”" if system else "no system prompt"
        return (
            f"It was asked for one of {words}, in the base's chat template with {prompt}; an adapter that "
            f"was trained with another one may answer otherwise (--system)."
        )


def given_wording(labels: Sequence[str] = (), system: str | None = None) -> Wording:
    """The wording that a user gives: the labels are the words themselves.

    Args:
        labels: Label names in the order of the logits; of a language model, the words that it answers.
        system: The system prompt; "" for none, None for the lab's usual one.

    Raises:
        LabError: The system prompt, or a word, is none.
    """
    from lab.experiment import Experiment

    task = {"kind": "chat", "answers": {label: label for label in labels}}
    if system is not None:
        task["system"] = system
    names = tuple(labels)
    return Wording(names, names, Experiment.from_dict({"task": task}).task, system)


def run_wording(run: Path, given: Wording) -> Wording:
    """The wording of a run, with the names and the system prompt that the user gives instead.

    Args:
        run: Its folder.
        given: What the user says.

    Raises:
        LabError: Its record is missing or damaged.
    """
    from lab.trained_model import read_asked

    try:
        asked, labels = read_asked(run)
    except (KeyError, TypeError, ValueError, AttributeError):
        labels = ()
    if len(labels) < 2 or not all(isinstance(label, str) for label in labels):
        raise LabError(f"{run.name}: experiment.json does not say what its labels are.")
    names = given.names or labels
    if asked.task.kind == "head":
        return replace(given, names=names)
    if given.system is not None:
        return replace(
            given, names=names, labels=labels, task=asked.task.model_copy(update={"system": given.system})
        )
    template = (read_json(run / "experiment.json") or {}).get("prompt_template", "")
    return Wording(names, labels, asked.task, template=str(template))


def _check_answers(reading: ChatReading) -> None:
    """Refuse words whose order a tokenizer decides beforehand.

    Raises:
        LabError: A word's tokens are the beginning of another's, so that the other never is the likelier one.
        NotTrainableError: A word's beginning and the template's end are one token.
    """
    words = [answer for answer in reading.answers if answer]
    reading.training_ids(["film"] * len(words), words)
    found = [(word, ids) for word, ids in zip(reading.answers, reading.answer_ids, strict=True) if word]
    for word, ids in found:
        for other, more in found:
            if word != other and more[: len(ids)] == ids:
                raise LabError(
                    f"labels: the tokens of {other!r} begin with all those of {word!r}, so that it never is "
                    f"the likelier answer; give words of which none begins another."
                )
