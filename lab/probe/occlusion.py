"""Which words of a text an answer rests on: hide one after the other and see how far the answer falls.

What it cannot show: words that stand in for each other. Where either of two is enough for the answer, hiding
one changes nothing and both get 0, though the answer rests on them. So a long trigger may have small
importances throughout, and the logit margin, which does not saturate, says more than a probability near 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lab.errors import LabError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe.predictor import Predictor
    from lab.probe.words import ReadText

Hiding = Literal["auto", "mask", "remove"]
Score = Literal["probability", "margin"]

#: One line per word: its place among the words, the characters it is (`text[start:end]`), its importance.
OCCLUSION_COLUMNS = ("position", "token", "start", "end", "importance")


def measure_occlusion(
    predictor: Predictor,
    text: str,
    label: str = "",
    *,
    hide: Hiding = "auto",
    score: Score = "probability",
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> pd.DataFrame:
    """The importance of every word of a text for a label, by occlusion.

    Words are the tokenizer's (`lab.probe.words.read_text`). With a mask token, as BERT has, each token of the
    word is replaced by it, so that all others keep their places and the text its length: what changes is the
    word and nothing else. Without one, as in decoders, the word's tokens are taken out and what follows moves
    up.

    Args:
        predictor: The classifier.
        text: The text; only words within the model's window are asked about.
        label: Whose score is watched; "" means the label that the text gets. Name it to compare two models.
        hide: "mask", "remove", or "auto": mask where the tokenizer has a mask token.
        score: What falls: "probability" of the label, or "margin", its logit minus the largest other one.
        on_progress: Called with (texts done, texts in all), one text per word and the whole one.

    Returns:
        A table with `OCCLUSION_COLUMNS`, in reading order; without lines for a text that has no word.
        importance = score of the whole text − score without the word: above 0 the word speaks for the label,
        below 0 against it. Probabilities: between -1 and 1. Margins: any size, in logits.

    Raises:
        LabError: On a label that the model does not have, "mask" without a mask token, an unknown way of
            hiding or score, or a tokenizer that cannot say which characters its tokens are.
    """
    import pandas as pd

    if label and label not in predictor.labels:
        raise unknown_name("label", label, predictor.labels)
    if score not in ("probability", "margin"):
        raise unknown_name("score of occlusion", score, ("probability", "margin"))
    blank = _blank(predictor.tokenizer, hide)
    read = predictor.reading.read(text)
    if not read.words:
        empty = pd.DataFrame(columns=list(OCCLUSION_COLUMNS))
        return empty.astype({"position": int, "token": str, "start": int, "end": int, "importance": float})
    if not (rows := _hidden(read, blank))[-1]:
        # the only word of a text without special tokens: a model cannot read nothing
        rows[-1] = [_neutral(predictor.tokenizer)]
    logits = predictor.logits_of_tokens([read.ids, *rows], on_progress=on_progress).astype(float)
    index = predictor.labels.index(label) if label else int(logits[0].argmax())
    scores = _scores(logits, index, score)
    return pd.DataFrame(
        {
            "position": range(len(read.words)),
            "token": [text[word.start : word.end] for word in read.words],
            "start": [word.start for word in read.words],
            "end": [word.end for word in read.words],
            "importance": scores[0] - scores[1:],
        }
    )


def _blank(tokenizer: Any, hide: str) -> int | None:
    """The token that takes the place of a hidden one; None where hidden tokens are taken out."""
    if hide not in ("auto", "mask", "remove"):
        raise unknown_name("way of hiding a word", hide, ("auto", "mask", "remove"))
    mask = None if hide == "remove" else tokenizer.mask_token_id
    if hide == "mask" and mask is None:
        raise LabError("hide = 'mask' needs a tokenizer with a mask token; this one has none: use 'remove'.")
    return None if mask is None else int(mask)


def _hidden(read: ReadText, blank: int | None) -> list[list[int]]:
    """The text's token ids once per word, with that word hidden."""
    return [
        [
            *read.ids[: word.tokens.start],
            *([] if blank is None else [blank] * len(word.tokens)),
            *read.ids[word.tokens.stop :],
        ]
        for word in read.words
    ]


def _neutral(tokenizer: Any) -> int:
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return int(next(i for i in ids if i is not None))


def _scores(logits: np.ndarray, index: int, score: str) -> np.ndarray:
    """The score of one label, one per text, from logits, texts × labels."""
    from scipy.special import softmax

    if score == "probability":
        return softmax(logits, axis=1)[:, index]
    return logits[:, index] - np.delete(logits, index, axis=1).max(axis=1)
