"""How unlikely a text is, to the bundled language model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lab.tokens import by_length, pad

if TYPE_CHECKING:
    import torch

#: Padded tokens per batch: every one has a logit for each of 49,152 words.
_BATCH_TOKENS = 512
#: Longer texts are cut: the surprise at a word hardly depends on what stands a page before it.
_MAX_TOKENS = 512


class LanguageModel:
    """A causal language model that says how unlikely texts are; what it was asked once, it remembers.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer
        self._known: dict[str, float] = {}

    def perplexity(
        self, texts: Sequence[str], on_progress: Callable[[int, int], None] = lambda *_: None
    ) -> npt.NDArray[np.float64]:
        """The exponential of the mean negative log-likelihood per token, from the start of a document on.

        Args:
            texts: Any texts; one without tokens counts as 1.
            on_progress: Called with (texts done, texts in all).

        Returns:
            At least 1, one for each text.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        ids = [self._token_ids(text) for text in new]
        done = 0
        for batch in by_length([len(i) for i in ids], _BATCH_TOKENS):
            for i, value in zip(batch, self._batch([ids[i] for i in batch]), strict=True):
                self._known[new[i]] = value
            done += len(batch)
            on_progress(done, len(new))
        return np.array([self._known[text] for text in texts], dtype=np.float64)

    def _token_ids(self, text: str) -> list[int]:
        start = self._tokenizer.convert_tokens_to_ids("<|endoftext|>")
        start = start if isinstance(start, int) else self._tokenizer.pad_token_id
        ids = self._tokenizer(text, add_special_tokens=False, truncation=True, max_length=_MAX_TOKENS)
        return [int(start), *ids["input_ids"]]

    def _batch(self, ids: list[list[int]]) -> list[float]:
        import torch

        inputs = {k: v.to(self._model.device) for k, v in pad(ids, int(self._tokenizer.pad_token_id)).items()}
        with torch.inference_mode():
            logits = self._model(**inputs).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none"
        )
        return _perplexities(losses, inputs["attention_mask"][:, 1:])


def _perplexities(losses: torch.Tensor, mask: torch.Tensor) -> list[float]:
    means = (losses * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return [float(value) for value in means.double().exp()]


@functools.lru_cache(maxsize=1)
def load_language_model() -> LanguageModel:
    """The bundled `smollm2`, on the CPU; loaded once in the life of a process.

    Raises:
        LabError: The asset is not there and cannot be fetched.
    """
    from transformers import AutoModelForCausalLM

    from lab.train.models import load_tokenizer, model_folder

    folder = model_folder("smollm2")
    return LanguageModel(AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder))
