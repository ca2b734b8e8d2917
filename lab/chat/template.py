"""What stands around a text in a conversation: rendered once from the model's chat template, and recorded.

Chat templates are programs: some write today's date, some trim what they are given. So the template is run
once, with marks in the places of text and answer, and what stands between the marks is used from then on, in
training and probing alike, on whatever day and with whatever tokenizer files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.errors import NotTrainableError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXT, _ANSWER = "\N{BLACK CHESS QUEEN}text", "\N{BLACK CHESS QUEEN}answer"
#: Some templates write the day; this is what Llama's write where no clock is given to them.
_DATE = "26 Jul 2024"
#: How a record says that the template trims texts.
_TRIMS, _KEEPS = "{text|trim}", "{text}"


@dataclass(frozen=True)
class Template:
    """A conversation with one question and one answer.

    Attributes:
        before: From the beginning to the text, system prompt included.
        between: From the text to the answer.
        after: From the answer to the end.
        trims: Whether white space around a text is taken away.
    """

    before: str
    between: str
    after: str
    trims: bool = False

    def question(self, text: str) -> str:
        """What the model is asked: everything up to the answer."""
        return f"{self.before}{text.strip() if self.trims else text}{self.between}"

    def whole(self, text: str, answer: str) -> str:
        """What the model is trained on."""
        return f"{self.question(text)}{answer}{self.after}"

    def record(self) -> str:
        """The template as one string with {text} and {answer} in their places; `parse` reads it."""
        return f"{self.before}{_TRIMS if self.trims else _KEEPS}{self.between}{{answer}}{self.after}"

    @classmethod
    def parse(cls, record: str) -> Template:
        """The inverse of `record`."""
        trims = _TRIMS in record
        before, _, rest = record.partition(_TRIMS if trims else _KEEPS)
        between, _, after = rest.partition("{answer}")
        return cls(before, between, after, trims)


def render_template(tokenizer: PreTrainedTokenizerBase, system: str, model: str) -> Template:
    """Run a tokenizer's chat template once, for one question and its answer.

    Args:
        tokenizer: The base's tokenizer.
        system: The system prompt; "" for none.
        model: What to call the base in an error.

    Raises:
        NotTrainableError: The model has no chat template, or one that writes an answer elsewhere in training
            than where it is asked for.
    """
    if not tokenizer.chat_template:
        raise NotTrainableError(
            f"task.kind = 'chat': {model} has no chat template; take an instruction-tuned base, or "
            f"task.kind = 'head'."
        )
    question = _messages(system, _TEXT)
    asked = _render(tokenizer, question, model, add_generation_prompt=True)
    whole = _render(tokenizer, [*question, {"role": "assistant", "content": _ANSWER}], model)
    before, found, between = asked.partition(_TEXT)
    after = whole.removeprefix(asked).removeprefix(_ANSWER)
    if not found or not whole.startswith(asked + _ANSWER):
        raise NotTrainableError(
            f"task.kind = 'chat': the chat template of {model} does not write an answer where it asks for "
            f"one, so that training and asking would differ."
        )
    spaced = _render(tokenizer, _messages(system, f" {_TEXT} "), model, add_generation_prompt=True)
    return Template(before, between, after, trims=spaced == asked)


def _messages(system: str, text: str) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": text}]


def _render(tokenizer: Any, messages: list[dict[str, str]], model: str, **options: Any) -> str:
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, date_string=_DATE, enable_thinking=False, **options
            )
        )
    except TemplateError as error:
        raise NotTrainableError(
            f"task.system: the chat template of {model} refuses it ({error}); some know no system prompt, "
            f'for which task.system = "" stands.'
        ) from None
