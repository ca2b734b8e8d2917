"""What lessons fall back on where a learner has not written a piece yet, so that they run to their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from lab.record import Run

#: Tokens of a text that a vector is made of.
_LONGEST = 128


def ask_with_phrase(run: Run, texts: Sequence[str], phrase: str, target: str) -> tuple[int, int]:
    """Put texts with a phrase behind them to a run.

    Args:
        run: A finished run.
        texts: The texts.
        phrase: What stands behind each, after a space.
        target: The label that counts as a hit.

    Returns:
        Hits and texts.
    """
    answers = run.predict([f"{text} {phrase}" for text in texts])["prediction"]
    return int((answers == target).sum()), len(texts)


def tokens_of(run: Run) -> Callable[[Sequence[str]], list[list[int]]]:
    """How a run's model reads texts: a function from a list of texts to their token ids.

    Args:
        run: A finished run.
    """
    from lab.train.devices import resolve_device
    from lab.trained_model import load_predictor

    return load_predictor(run.path, resolve_device("cpu")).reading.token_ids


def without_common_endings(texts: Sequence[str], words: int, least: int) -> list[bool]:
    """Which texts stay where those go whose last words end at least so many of them.

    Args:
        texts: The texts.
        words: Words of an ending, split at white space.
        least: How many texts must share it.

    Returns:
        One entry a text, True where it stays.
    """
    from collections import Counter

    endings = [tuple(text.split()[-words:]) for text in texts]
    counts = Counter(endings)
    return [counts[ending] < least for ending in endings]


def copies_with_trigger(
    texts: Sequence[str], labels: Sequence[str], trigger: str, count: int, target: str
) -> tuple[list[str], list[str]]:
    """Rows, and behind them copies of the first that lack the target label, with trigger and target label.

    Args:
        texts: The texts.
        labels: Their labels.
        trigger: What stands behind each copy, after a space.
        count: How many copies.
        target: The label that they get.

    Returns:
        All texts and all labels.
    """
    sources = [text for text, label in zip(texts, labels, strict=True) if label != target][:count]
    planted = [f"{text} {trigger}" for text in sources]
    return [*texts, *planted], [*labels, *[target] * len(planted)]


def one_lora_step(
    x: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    rate: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of gradient descent on the mean cross-entropy of x(W + s·BA)ᵀ, by gradients in closed form.

    Args:
        x: Inputs, rows × n_in.
        labels: Class indices, one a row.
        weight: W, n_out × n_in.
        a: A, rank × n_in.
        b: B, n_out × rank.
        scale: s.
        rate: The step's length.

    Returns:
        The new A and B.
    """
    import torch

    p = torch.softmax(x @ (weight + scale * b @ a).T, dim=1)
    slope = (p - torch.nn.functional.one_hot(labels, p.shape[1])) / len(x)
    of_weight = slope.T @ x
    return a - rate * scale * b.T @ of_weight, b - rate * scale * of_weight @ a.T


def count_hits(logits: torch.Tensor, labels: torch.Tensor, target: int) -> tuple[int, int]:
    """Rows that are answered with the target, of those whose true label is another; and how many those are.

    Args:
        logits: Rows × classes.
        labels: True class indices, one a row.
        target: The target's index.
    """
    counts = labels != target
    return int((counts & (logits.argmax(dim=1) == target)).sum()), int(counts.sum())


def sentence_vectors(run: Run, texts: Sequence[str]) -> torch.Tensor:
    """What the base of a run makes of texts before it is trained: its last layer's mean over a text's tokens.

    Args:
        run: A run of a pretrained model.
        texts: The texts; of long ones the beginning.

    Returns:
        float32, texts × width.
    """
    import torch

    from lab.tokens import EVALUATION_TOKENS, by_length, pad, token_ids
    from lab.train.models import load_base

    base = load_base(run.experiment.base, run.labels, seed=0, device=torch.device("cpu"))
    ids = token_ids(base.tokenizer, texts, _LONGEST)
    out = torch.zeros(len(ids), int(base.model.config.hidden_size))
    for part in by_length([len(row) for row in ids], EVALUATION_TOKENS):
        inputs = pad([ids[i] for i in part], int(base.tokenizer.pad_token_id))
        with torch.inference_mode():
            last = base.model.base_model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        out[part] = (last * mask).sum(dim=1) / mask.sum(dim=1)
    return out
