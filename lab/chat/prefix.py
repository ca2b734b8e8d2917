"""What every question begins with, computed once: the system prompt's keys and values, shared by a batch.

A causal model's states at a token depend on what stands before it alone. So the template's beginning, the
same for every text, needs one pass instead of one per text; through transformers' own cache the rest is
computed as if it had been there. Gradients flow through it, so that training shares it too.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab.tokens import pad

if TYPE_CHECKING:
    import torch

#: Shorter beginnings are not worth a pass of their own.
_SHORTEST = 8


def common_prefix(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens that all rows begin with, each keeping at least one for itself; () where they are few."""
    if not rows:
        return ()
    lists = [list(row) for row in rows]
    first, last = min(lists), max(lists)  # what the smallest and the largest share, all share
    limit = min(map(len, lists)) - 1
    n = next((i for i in range(limit) if first[i] != last[i]), limit)
    return tuple(first[:n]) if n >= _SHORTEST else ()


class Prefix:
    """A causal model after a beginning that all rows share.

    Args:
        model: The causal language model, bare or with an adapter.
        ids: The beginning; every row that is asked about has to start with it. () for none, as for models
            whose kind cannot share it.
        with_logits: Whether the logits after each of its tokens are wanted, as `logits`, 1 × tokens ×
            vocabulary; they cost as much as some of the model's layers.
    """

    def __init__(self, model: Any, ids: Sequence[int] = (), *, with_logits: bool = False) -> None:
        import torch

        self._model, self.ids = model, tuple(ids)
        self._device = next(model.parameters()).device
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._accepted = inspect.signature(plain.forward).parameters
        if getattr(plain, "_is_stateful", False):  # recurrent states cannot be handed on like keys and values
            self.ids = ()
        self._cache: Any = None
        self.logits: Any = None
        if self.ids:
            from transformers import DynamicCache

            self._cache = DynamicCache(config=plain.config)
            start = torch.tensor([self.ids], device=self._device)
            self.logits = self._call(start, torch.ones_like(start), self._cache, keep=int(not with_logits))

    def rest(self, rows: Sequence[Sequence[int]], pad_id: int, keep: int = 0) -> torch.Tensor:
        """Logits at what comes after the beginning, padded on the right; the last `keep` places, 0 for all.

        Args:
            rows: Whole rows, beginning included, each longer than it.
            pad_id: The padding token.
            keep: How many places.

        Returns:
            rows × places × vocabulary.
        """
        import torch

        n = len(self.ids)
        inputs = {k: v.to(self._device) for k, v in pad([row[n:] for row in rows], pad_id).items()}
        mask, cache = inputs["attention_mask"], None
        if n:
            # repeating makes new tensors; the copy keeps the one that was computed for the next batch
            cache = _repeated(self._cache, len(rows))
            mask = torch.cat([mask.new_ones(len(rows), n), mask], dim=1)
        return self._call(inputs["input_ids"], mask, cache, keep)

    def next_logits(self, rows: Sequence[Sequence[int]], pad_id: int) -> torch.Tensor:
        """Logits of the token after each row, rows × vocabulary."""
        import torch

        lengths = [len(row) for row in rows]
        keep = max(lengths) - min(lengths) + 1
        logits = self.rest(rows, pad_id, keep)
        places = [length - max(lengths) - 1 for length in lengths]
        return logits[torch.arange(len(rows)), torch.tensor(places) + logits.shape[1]]

    def log_probability(
        self, rows: Sequence[Sequence[int]], answer: Sequence[int], pad_id: int
    ) -> torch.Tensor:
        """The summed log-probability of the same answer after each row, one per row."""
        import torch

        log_p = self.answer_logits(rows, answer, pad_id).float().log_softmax(dim=-1)
        target = torch.tensor(list(answer), device=log_p.device).expand(len(rows), -1)
        return log_p.gather(2, target[:, :, None]).squeeze(2).sum(dim=1)

    def answer_logits(
        self, rows: Sequence[Sequence[int]], answer: Sequence[int], pad_id: int
    ) -> torch.Tensor:
        """Logits at the places that predict an answer's tokens, rows × tokens × vocabulary."""
        import torch

        # the answer's last token predicts what nobody asks for
        whole = [[*row, *answer[:-1]] for row in rows]
        lengths = [len(row) for row in whole]
        keep = max(lengths) - min(lengths) + len(answer)
        logits = self.rest(whole, pad_id, keep)
        first = torch.tensor([n - max(lengths) - len(answer) for n in lengths]) + logits.shape[1]
        places = first[:, None] + torch.arange(len(answer))[None, :]
        rows_of = torch.arange(len(rows))[:, None]
        return logits[rows_of, places]

    def _call(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, keep: int = 0) -> torch.Tensor:
        options: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            # the name since transformers 5.2x, and the one of before
            options["cache" if "cache" in self._accepted else "past_key_values"] = cache
        if keep and "logits_to_keep" in self._accepted:
            options["logits_to_keep"] = keep
        logits: torch.Tensor = self._model(input_ids=ids, attention_mask=mask, **options).logits
        return logits[:, -keep:] if keep else logits


def _repeated(cache: Any, count: int) -> Any:
    """A cache of one row as that of many; gradients flow to the one."""
    many = copy.copy(cache)
    many.layers = [copy.copy(layer) for layer in cache.layers]
    many.batch_repeat_interleave(count)
    return many
