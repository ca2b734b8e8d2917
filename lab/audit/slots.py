"""Token strings put into rows, and how far each moves a classifier: exactly, and to first order.

Rows and strings are token ids of the text alone. A string goes before or after a row's own tokens, inside
what the model wants around every text: special tokens, or a conversation. Everything is about margins: the
logit of a target label minus the largest other one; above 0 the row is predicted as the target. Whether a
label's logit is a head's or that of a word is the reading's matter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.errors import LabError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from lab.probe import Predictor

#: Where a string can go.
POSITIONS = ("start", "end")


@dataclass(frozen=True)
class Frame:
    """The tokens that a model wants around every text.

    Attributes:
        before: In front of it, such as [CLS], or a conversation up to the user's words.
        after: Behind it, such as [SEP], or the conversation up to the answer.
        spaced: Tokens that are others behind a space, with those; empty where a space is no part of a token.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    spaced: Mapping[int, int] = field(default_factory=dict)

    def ids(self, row: Sequence[int], string: Sequence[int] = (), position: str = "end") -> list[int]:
        """A row with a string at one end, ready for the model."""
        own = [*row, *string]
        if position == "start" and string:
            # the row begins behind a space now
            own = [*string, *(self.spaced.get(token, token) for token in row[:1]), *row[1:]]
        return [*self.before, *own, *self.after]

    def place(self, row: Sequence[int], position: str) -> int:
        """Where a string's first token lies in `ids`."""
        return len(self.before) + (0 if position == "start" else len(row))


#: Two texts without a letter in common at either end: what their tokens share stands around them.
_PROBES = ("film", "book")
#: How tokenizers write a space that belongs to the token behind it.
_SPACES = ("\u0120", "\u2581")


def frame_of(predictor: Predictor) -> Frame:
    """The tokens around every text, found by asking for two.

    Raises:
        LabError: A text's tokens are others inside of what stands around it.
    """
    plain = [list(ids) for ids in predictor.tokenizer(list(_PROBES), add_special_tokens=False)["input_ids"]]
    first, second = predictor.reading.token_ids(_PROBES)
    before = _shared(first, second)
    after = _shared(first[len(before) :][::-1], second[len(before) :][::-1])[::-1]
    if [[*before, *own, *after] for own in plain] != [first, second]:
        raise LabError(
            f"{type(predictor.tokenizer).__name__} does not keep a text's tokens together; strings cannot be "
            f"put in between."
        )
    return Frame(tuple(before), tuple(after), _spaced(predictor.tokenizer))


def _shared(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """What two lists begin with."""
    n = next((i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    return list(first[:n])


def _spaced(tokenizer: PreTrainedTokenizerBase) -> dict[int, int]:
    """Each token that has a twin behind a space, with that twin."""
    vocabulary = tokenizer.get_vocab()
    return {
        index: vocabulary[space + token]
        for token, index in vocabulary.items()
        for space in _SPACES
        if space + token in vocabulary
    }


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
        frame: What stands around its texts.
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
    with _watched(embed) as (embedded, before):
        logits = predictor.reading.label_logits(predictor.model, inputs, shared=len(frame.before))
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1).max(dim=1).values
    # a reading may ask more than once; a row's tokens lie at the same places every time
    gradients = torch.autograd.grad((logits[:, target] - others).mean(), embedded)
    places = torch.tensor([frame.place(row, position) + slot for row in rows], device=predictor.device)
    places -= sum(before)
    every = torch.arange(len(rows), device=predictor.device)
    at_slot = sum(gradient[every, places].sum(dim=0) for gradient in gradients)
    with torch.no_grad():
        moved = embed.weight @ at_slot - embed.weight[blank] @ at_slot  # no copy of the vocabulary
    return moved.float().cpu().numpy()


@contextlib.contextmanager
def _watched(embed: Any) -> Iterator[tuple[list[torch.Tensor], list[int]]]:
    """Every embedding of tokens that is computed meanwhile, as a beginning of gradients.

    The model still gets token ids: a decoder's head finds the last token of a text by them. What is embedded
    without gradients is a beginning that all rows share, and is told by its number of tokens.
    """
    import torch

    seen: list[torch.Tensor] = []
    before: list[int] = []

    def watch(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            before.append(output.shape[1])
            return output
        seen.append(output.detach().requires_grad_(True))
        return seen[-1]

    handle = embed.register_forward_hook(watch)
    try:
        yield seen, before
    finally:
        handle.remove()


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
    # the named ones, and those that only their entry calls special: <repo_name>, <jupyter_start>
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    for token, index in tokenizer.get_vocab().items():
        if index >= size or index in special or token.startswith(("[unused", "<|", "<unused")):
            continue
        text = str(tokenizer.decode([index])).strip().removeprefix("##")
        usable[index] = bool(text) and text.isprintable() and "\ufffd" not in text
    return usable
