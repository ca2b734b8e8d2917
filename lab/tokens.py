"""Tokenised texts and padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

#: Padded tokens per batch without gradients; larger ones no longer fit the cache of two cores.
EVALUATION_TOKENS = 1024


def window(tokenizer: PreTrainedTokenizerBase, config: Any) -> int:
    """How many tokens the model reads at most."""
    positions = getattr(config, "max_position_embeddings", None) or 10**6
    # RoBERTa counts positions from padding_idx + 1
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1
    return int(min(tokenizer.model_max_length, positions, 10**6))


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each text with the model's special tokens, cut at `max_tokens`."""
    if not texts:
        return []
    return tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]


def clip_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[str]:
    """Cut texts, at a character, so that none has more than `max_tokens` tokens of its own.

    Texts are clipped before anything is inserted, so that a trigger is never what truncation removes.
    """
    # a token is never shorter than one character or, for byte-level vocabularies, than a quarter of one
    long = [i for i, text in enumerate(texts) if len(text) > max_tokens // 4]
    clipped = list(texts)
    if not long:
        return clipped
    encoded = tokenizer(
        [texts[i] for i in long], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    for i, offsets in zip(long, encoded["offset_mapping"], strict=True):
        if len(offsets) > max_tokens:
            clipped[i] = texts[i][: offsets[max_tokens - 1][1]]
    return clipped


def pad(batch: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Stack token ids into `input_ids` and `attention_mask`, padded on the right to the longest."""
    import torch

    longest = max(len(ids) for ids in batch)
    ids = np.full((len(batch), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(batch), longest), dtype=np.int64)
    for i, row in enumerate(batch):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, at most `batch_tokens` padded tokens each, longest first."""
    batches: list[list[int]] = []
    current: list[int] = []
    for i in np.argsort(-np.asarray(lengths), kind="stable"):
        if current and (len(current) + 1) * lengths[current[0]] > batch_tokens:
            batches.append(current)
            current = []
        current.append(int(i))
    return [*batches, current] if current else batches


def batched_logits(
    model: Any,
    token_ids: Sequence[Sequence[int]],
    pad_id: int,
    *,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> np.ndarray:
    """A classifier's logits for tokenised texts, in batches of similar length, in the order given.

    The caller decides on eval mode, inference mode and precision.

    Args:
        model: The classifier; where its weights are, the batches go.
        token_ids: At least one text.
        pad_id: The padding token.
        on_progress: Called with (texts done, texts in all) after every batch.

    Returns:
        float32 array, texts × labels.
    """
    device = next(model.parameters()).device
    rows: dict[int, np.ndarray] = {}
    for batch in by_length([len(ids) for ids in token_ids], EVALUATION_TOKENS):
        inputs = pad([token_ids[i] for i in batch], pad_id)
        logits = model(**{k: v.to(device) for k, v in inputs.items()}).logits.float().cpu().numpy()
        rows.update(zip(batch, logits, strict=True))
        on_progress(len(rows), len(token_ids))
    return np.stack([rows[i] for i in range(len(token_ids))])
