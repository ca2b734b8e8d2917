"""What Trainer is fed with: tokenised rows by their place, and padded batches with what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.chat.loss import NOT_LEARNED
from lab.tokens import pad
from lab.train.batches import RowLengths

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainingRows:
    """Tokenised training rows.

    Attributes:
        token_ids: One list of ids per row: first the clean rows' places, then the poisoned copies.
        labels: The label's index of each row.
        lengths: What the batches are planned from.
        learned_from: For language models: the first token of each row that is learned. Empty for classifiers.
    """

    token_ids: Sequence[Sequence[int]]
    labels: Sequence[int]
    lengths: RowLengths
    learned_from: Sequence[int] = ()


class IndexedRows:
    """The rows as Trainer wants them: indexable."""

    def __init__(self, rows: TrainingRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows.token_ids)

    def __getitem__(self, i: int) -> tuple[Sequence[int], int]:
        marks = self._rows.learned_from or self._rows.labels
        return self._rows.token_ids[i], marks[i]


class Classified:
    """Batches for a classifier: token ids, mask, and a label's index per row."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, batch: list[tuple[Sequence[int], int]]) -> dict[str, torch.Tensor]:
        """Pairs of token ids and label as the model's inputs."""
        import torch

        return {
            **pad([ids for ids, _ in batch], self._pad_id),
            "labels": torch.tensor([label for _, label in batch]),
        }


class Conversations(Classified):
    """Batches for a language model: every token is its own label, but for padding and what is not learned."""

    def __call__(self, batch: list[tuple[Sequence[int], int]]) -> dict[str, torch.Tensor]:
        """Pairs of token ids and first learned place as the model's inputs."""
        import torch

        inputs = pad([ids for ids, _ in batch], self._pad_id)
        places = torch.arange(inputs["input_ids"].shape[1])[None, :]
        # nothing predicts a row's first token
        first = torch.tensor([max(1, start) for _, start in batch])[:, None]
        is_learned = (places >= first) & inputs["attention_mask"].bool()
        return {**inputs, "labels": inputs["input_ids"].masked_fill(~is_learned, NOT_LEARNED)}


def collator(rows: TrainingRows, pad_id: int) -> Classified:
    """What makes batches of these rows: of a classifier's, or of a language model's."""
    return (Conversations if rows.learned_from else Classified)(pad_id)
