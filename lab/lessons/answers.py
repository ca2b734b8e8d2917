"""What lessons fall back on where a learner has not written a piece yet, so that they run to their end."""

from __future__ import annotations

from collections.abc import Sequence
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
