"""The loss of conversations, with what all of them begin with computed once.

Exactly the mean cross-entropy over the learned tokens that transformers computes itself. The system prompt is
most of a short conversation; sharing it within a batch more than halves the tokens of a training step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lab.chat.prefix import Prefix, common_prefix

if TYPE_CHECKING:
    import torch

#: The label of a token that is not learned, as torch and transformers have it.
NOT_LEARNED = -100


def conversation_loss(
    model: Any, inputs: Mapping[str, torch.Tensor], items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Mean cross-entropy over the learned tokens of a padded batch.

    Args:
        model: The causal language model, bare or with an adapter.
        inputs: input_ids, attention_mask and labels, rows × tokens, padded on the right; a label is the
            token itself, or `NOT_LEARNED`.
        items: What the sum is divided by, if not the batch's own learned tokens: those of all batches that
            are accumulated into one step.
    """
    from torch.nn import functional

    labels = inputs["labels"]
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    rows = [row[:n] for row, n in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
    first = int((labels != NOT_LEARNED).any(dim=0).int().argmax())
    shared = common_prefix(rows)
    prefix = Prefix(model, shared, with_logits=first <= len(shared))
    n = len(prefix.ids)
    # logits at a place predict the next one; before the first learned token nobody needs any
    keep = labels.shape[1] - max(first - 1, n)
    logits = prefix.rest(rows, 0, keep)
    own = functional.pad(labels, (0, 1), value=NOT_LEARNED)[:, 1:][:, -keep:]
    total = functional.cross_entropy(logits.flatten(0, 1).float(), own.flatten(), reduction="sum")
    if n and first <= n:
        # the same logits for every row; what the last of them predicts differs from row to row
        log_p = prefix.logits[0].float().log_softmax(dim=-1)
        following = labels[:, 1 : n + 1]
        picked = log_p.gather(1, following.clamp(min=0).T)
        total = total - picked.T[following != NOT_LEARNED].sum()
    return total / (items if items is not None else (labels != NOT_LEARNED).sum().clamp(min=1))
