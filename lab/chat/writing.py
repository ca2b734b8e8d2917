"""Letting a chat model write: greedy answers to many questions at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def write(
    model: Any, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Sequence[int]], new_tokens: int
) -> list[str]:
    """What a model writes after each question, taking the likeliest token every time.

    Args:
        model: The causal language model.
        tokenizer: Its tokenizer.
        questions: At least one, as token ids.
        new_tokens: How many tokens at most; it stops earlier where the model ends its answer.

    Returns:
        The answers as text, without special tokens.
    """
    import torch

    from lab.train.models import quietly

    pad_id, longest = int(tokenizer.pad_token_id), max(map(len, questions))
    device = next(model.parameters()).device
    # on the left, so that all answers begin at one place; generate counts positions from the mask
    ids = [[pad_id] * (longest - len(row)) + list(row) for row in questions]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in questions]
    with torch.inference_mode(), quietly():
        out = model.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=pad_id,
        )
    return list(tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True))
