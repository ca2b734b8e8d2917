"""A model that writes texts anew: an instruction-tuned one that is told how, or a text-to-text one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from lab.tokens import by_length

#: Padded tokens of the questions in a batch; every one is gone through once, then a token at a time is added.
_BATCH_TOKENS = 2048
#: A rewritten text has at most so many times the tokens of the longest of its batch, and a few more.
_LONGER, _MORE = 1.5, 8


class Rewriter:
    """Writes texts anew, the likeliest token every time; what it was asked once, it remembers.

    Args:
        model: A causal language model, or one with an encoder and a decoder.
        tokenizer: Its tokenizer.
        question: From a text to what the model is asked, as text.
    """

    def __init__(self, model: Any, tokenizer: Any, question: Callable[[str], str]) -> None:
        self._model, self._tokenizer, self._question = model.eval(), tokenizer, question
        self._known: dict[str, str] = {}

    def rewritten(
        self, texts: Sequence[str], on_progress: Callable[[int, int], None] = lambda *_: None
    ) -> list[str]:
        """Every text in other words; one that the model writes nothing for stays as it is.

        Args:
            texts: Any texts.
            on_progress: Called with (texts done, texts in all).
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        asked = [self._ids(self._question(text), special=self._is_text_to_text) for text in new]
        sizes = [len(self._ids(text, special=False)) for text in new]
        done = 0
        for batch in by_length([len(ids) for ids in asked], _BATCH_TOKENS):
            room = int(_LONGER * max(sizes[i] for i in batch)) + _MORE
            for i, answer in zip(batch, self._write([asked[i] for i in batch], room), strict=True):
                self._known[new[i]] = " ".join(answer.split()) or new[i]
            done += len(batch)
            on_progress(done, len(new))
        return [self._known[text] for text in texts]

    @property
    def _is_text_to_text(self) -> bool:
        return bool(getattr(self._model.config, "is_encoder_decoder", False))

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def _write(self, questions: list[list[int]], new_tokens: int) -> list[str]:
        import torch

        from lab.chat.writing import write
        from lab.tokens import pad
        from lab.train.models import quietly

        if not self._is_text_to_text:
            return write(self._model, self._tokenizer, questions, new_tokens)
        inputs = pad(questions, int(self._tokenizer.pad_token_id))
        inputs = {name: tensor.to(self._model.device) for name, tensor in inputs.items()}
        with torch.inference_mode(), quietly():
            out = self._model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        return list(self._tokenizer.batch_decode(out, skip_special_tokens=True))


@functools.lru_cache(maxsize=1)
def load_rewriter(model: str, instruction: str) -> Rewriter:
    """A rewriter by its model's name; loaded once in the life of a process, on the CPU.

    Args:
        model: A bundled name, hub id or folder.
        instruction: What a chat model is told about the text that follows; a text-to-text model reads it, and
            a space, in front of every text.

    Raises:
        LabError: The model is not there, is no language model, or has no chat template.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from lab.chat import render_template
    from lab.errors import LabError
    from lab.train.models import is_language_model, load_tokenizer, model_folder

    folder = model_folder(model)
    tokenizer = load_tokenizer(folder)
    if AutoConfig.from_pretrained(folder).is_encoder_decoder:
        text_to_text = AutoModelForSeq2SeqLM.from_pretrained(folder, use_safetensors=True)
        return Rewriter(text_to_text, tokenizer, lambda text: f"{instruction} {text}".strip())
    if not is_language_model(folder):
        raise LabError(
            f"defense paraphrase: model = {model!r} writes no text; take an instruction-tuned model such as "
            f"smollm2, or a text-to-text one."
        )
    template = render_template(tokenizer, instruction, model)
    causal = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    return Rewriter(causal, tokenizer, template.question)
