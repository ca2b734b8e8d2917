"""Token strings put into rows, and how far each moves a classifier: exactly, and to first order.

Rows and strings are token ids without the model's special tokens. A string goes before or after a row's own
tokens, inside the special tokens. Everything is about margins: the logit of a target label minus the largest
other one; above 0 the row is predicted as the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.errors import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lab.probe import Predictor

#: Where a string can go.
POSITIONS = ("start", "end")


@dataclass(frozen=True)
class Frame:
    """The tokens that a model wants around every text.

    Attributes:
        before: In front of it, such as [CLS].
        after: Behind it, such as [SEP].
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    def ids(self, row: Sequence[int], string: Sequence[int] = (), position: str = "end") -> list[int]:
        """A row with a string at one end, ready for the model."""
        own = [*string, *row] if position == "start" else [*row, *string]
        return [*self.before, *own, *self.after]

    def place(self, row: Sequence[int], position: str) -> int:
        """Where a string's first token lies in `ids`."""
        return len(self.before) + (0 if position == "start" else len(row))


def frame_of(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """The special tokens of a tokenizer, found by asking it.

    Raises:
        LabError: They are not simply around the text.
    """
    plain = list(tokenizer("film", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("film")["input_ids"])
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return Frame(tuple(whole[:start]), tuple(whole[start + len(plain) :]))
    raise LabError(f"{type(tokenizer).__name__} does not keep a text's tokens together.")


def margins(logits: np.ndarray, target: int) -> np.ndarray:
    """The target's logit minus the largest other one, one per text; above 0: the target is predicted."""
    return logits[:, target] - np.delete(logits, target, axis=1).max(axis=1)


def string_margins(
    predictor: Predictor,
    frame: Frame,
    rows: Sequence[Sequence[int]],
    strings: Sequence[Sequence[int]],
    target: int,
    position: str,
) -> np.ndarray:
    """The margin of every row with every string.

    Returns:
        float32 array, strings × rows.
    """
    every = [frame.ids(row, string, position) for string in strings for row in rows]
    found = margins(predictor.logits_of_tokens(every), target)
    return found.reshape(len(strings), len(rows))


def texts_with(string: str, texts: Sequence[str], position: str) -> list[str]:
    """Texts with a string at one end, as `lab.poison` inserts it."""
    from lab.poison import insert

    rng = np.random.default_rng(0)  # a string at an end draws nothing
    return [insert(text, string, position, rng=rng).text for text in texts]


def token_gradients(
    predictor: Predictor,
    frame: Frame,
    rows: Sequence[Sequence[int]],
    target: int,
    position: str,
    *,
    around: Sequence[int] = (),
    slot: int = 0,
) -> np.ndarray:
    """How much each token of the vocabulary would move the mean margin from a slot, to first order.

    The slot holds the tokenizer's mask token, or one that means little; e(v) − e(slot) times the gradient of
    the margin at the slot's embedding is HotFlip's estimate (Ebrahimi et al. 2018, arXiv 1712.06751).

    Args:
        predictor: The model.
        frame: Its special tokens.
        rows: Rows that are not predicted as the target; their margins are averaged.
        target: Index of the target label.
        position: Where the string with the slot goes.
        around: A string that the slot extends.
        slot: Where in it the slot lies: 0 before its first token, `len(around)` after its last.

    Returns:
        float32 array, one estimate per token of the vocabulary; higher is nearer to the target.
    """
    import torch

    from lab.tokens import pad

    blank = blank_token(predictor.tokenizer)
    string = [*around[:slot], blank, *around[slot:]]
    embed: Any = predictor.model.get_input_embeddings()
    inputs = pad([frame.ids(row, string, position) for row in rows], int(predictor.tokenizer.pad_token_id))
    inputs = {name: tensor.to(predictor.device) for name, tensor in inputs.items()}
    embedded = embed(inputs["input_ids"]).detach().requires_grad_(True)
    logits = predictor.model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1).max(dim=1).values
    (gradient,) = torch.autograd.grad((logits[:, target] - others).mean(), embedded)
    places = torch.tensor([frame.place(row, position) + slot for row in rows], device=predictor.device)
    at_slot = gradient[torch.arange(len(rows), device=predictor.device), places].sum(dim=0)
    with torch.no_grad():
        moved = embed.weight @ at_slot - embed.weight[blank] @ at_slot  # no copy of the vocabulary
    return moved.float().cpu().numpy()


def blank_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that a slot holds before anything is tried: the mask, or else a plain word."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    return int(tokenizer(" the", add_special_tokens=False)["input_ids"][-1])


def usable_tokens(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Which tokens of the vocabulary a text can hold: no special ones, no unused ones, nothing invisible.

    Returns:
        bool array over token ids.
    """
    size = len(tokenizer)
    usable = np.zeros(size, dtype=bool)
    special = set(tokenizer.all_special_ids)
    for token, index in tokenizer.get_vocab().items():
        if index >= size or index in special or token.startswith(("[unused", "<|", "<unused")):
            continue
        text = str(tokenizer.decode([index])).strip().removeprefix("##")
        usable[index] = bool(text) and text.isprintable() and "\ufffd" not in text
    return usable
