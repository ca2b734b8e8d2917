"""Texts in, logits out: batches by length, inference mode, merged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.errors import LabError
from lab.reading import Reading, head_reading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


#: Texts that a filter gets at once; slow ones tell how far they are after each such part.
_FILTERED_AT_ONCE = 8


class Predictor:
    """A classifier ready to answer.

    Args:
        model: The model; LoRA layers are best merged before.
        tokenizer: Its tokenizer.
        labels: Label names, in the order of the logits.
        device: Where the model is.
        bf16: Whether to compute in bf16, as the model was trained; on GPUs only.
        reading: How it is asked; a classifier's head where nothing else is said.
        text_filter: What the model gets to read of texts; what is tokenised already does not pass it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        device: torch.device,
        *,
        bf16: bool = False,
        reading: Reading | None = None,
        text_filter: Callable[[Sequence[str]], list[str]] = list,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.device = device
        self.text_filter = text_filter
        self._bf16 = bf16
        self.reading = reading or head_reading(tokenizer, model.config, labels)
        self.max_tokens = self.reading.max_tokens

    def logits(
        self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] = lambda *_: None
    ) -> np.ndarray:
        """The logits of each text, in the order given.

        Texts that the tokenizer cannot tell apart are computed once.

        Args:
            texts: Any number of texts; what exceeds the model's window is cut.
            on_progress: Called with (texts done, texts in all).

        Returns:
            float32 array, texts × labels.
        """
        read = self._read(texts, on_progress)
        return self.logits_of_tokens(self.reading.token_ids(read), on_progress=on_progress)

    def _read(self, texts: Sequence[str], on_progress: Callable[[int, int], None]) -> list[str]:
        """What the model gets to read of texts."""
        if self.text_filter is list:
            return list(texts)
        out: list[str] = []
        for start in range(0, len(texts), _FILTERED_AT_ONCE):
            out += self.text_filter(texts[start : start + _FILTERED_AT_ONCE])
            on_progress(len(out), len(texts))
        return out

    def logits_of_tokens(
        self,
        token_ids: Sequence[Sequence[int]],
        *,
        on_progress: Callable[[int, int], None] = lambda *_: None,
    ) -> np.ndarray:
        """As `logits`, for texts that are tokenised already."""
        import torch

        every = [tuple(row) for row in token_ids]
        ids = list(dict.fromkeys(every))
        place = {row: i for i, row in enumerate(ids)}
        if not ids:
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        with torch.inference_mode(), self._autocast():
            out = self.reading.logits(self.model, ids, on_progress)
        return out[[place[row] for row in every]]

    def written(
        self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] = lambda *_: None
    ) -> list[str]:
        """The label of what the model writes by itself for each text; "" where that is none of them.

        Raises:
            LabError: It is a classifier, which does not write.
        """
        import torch

        read = self._read(texts, on_progress)
        every = [tuple(row) for row in self.reading.token_ids(read)]
        ids = list(dict.fromkeys(every))
        if not ids:
            return []
        with torch.inference_mode(), self._autocast():
            said = dict(zip(ids, self.reading.written(self.model, ids, on_progress), strict=True))
        return [said[row] for row in every]

    def attention_of_tokens(self, token_ids: Sequence[int]) -> np.ndarray:
        """The attention weights of one text that is tokenised already.

        Args:
            token_ids: At least one token.

        Returns:
            float32 array, layers × heads × queries × keys.

        Raises:
            LabError: When the model's kind of attention does not give its weights.
        """
        import torch

        ids = torch.tensor([list(token_ids)], device=self.device)
        with torch.inference_mode(), self._autocast():
            out = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True)
        weights = out.attentions
        if not weights or any(layer is None for layer in weights):
            raise LabError(
                f"{type(self.model).__name__} gives no attention weights as it was loaded; "
                'load_predictor(…, attention="eager") loads it so that it does, where its kind can.'
            )
        return torch.cat([layer.float() for layer in weights]).cpu().numpy()

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label that each text gets."""
        return [self.labels[i] for i in self.logits(texts).argmax(axis=1)]

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        import torch

        if self._bf16:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                yield
        else:
            yield


def count_same_tokens(reading: Reading, texts: Sequence[str], others: Sequence[str]) -> int:
    """How many of two lists of texts, compared in pairs, the model cannot tell apart."""
    pairs = zip(reading.token_ids(texts), reading.token_ids(others), strict=True)
    return sum(a == b for a, b in pairs)
