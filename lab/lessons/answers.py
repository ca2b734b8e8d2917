"""What lessons fall back on where a learner has not written a piece yet, so that they run to their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.record import Run


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
